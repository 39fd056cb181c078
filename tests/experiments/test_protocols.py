"""Jobs: what a test depends on, the epoch it loads, when it is repeated, and where downloaded weights are found."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import protocols
from experiments.methods import METHODS
from experiments.protocols import Job, Request
from tests.paths import ROOT

MAPLE = METHODS["maple"]


def finish(job: Job, config: str = "OPTIM:\n  MAX_EPOCH: 5\n", time: float | None = None, **results: object) -> None:
    """Leave what a finished run leaves."""
    job.path.mkdir(parents=True, exist_ok=True)
    (job.path / "config.yaml").write_text(config, encoding="utf-8")
    file = job.path / "results.json"
    file.write_text(json.dumps({"accuracy": 70.0, "complete": True} | results), encoding="utf-8")
    if time is not None:
        os.utime(file, (time, time))


@pytest.fixture
def request_of(tmp_path: Path):
    return lambda method=MAPLE, dataset="dtd", seed=1, **more: Request(
        method, dataset, seed, output=str(tmp_path), **more
    )


def test_a_test_depends_on_the_training_of_the_same_request(request_of) -> None:
    request = request_of(options=("OPTIM.LR", "0.1"))
    test = protocols.base2new_test(request)
    assert test.needs == protocols.base2new_train(request)
    assert test.needs.needs is None
    assert test.test_only and not test.needs.test_only
    assert len({test, test.needs, protocols.base2new_test(request)}) == 2, "jobs can be counted once each"


def test_a_transfer_depends_on_the_training_on_its_source(request_of) -> None:
    test = protocols.xd_test(request_of(dataset="eurosat"))
    assert test.needs == protocols.xd_train(request_of(dataset="imagenet"))
    assert "vit_b16_c2_ep5_batch4_2ctx_cross_datasets" in test.run.folder
    demonstration = protocols.xd_test(request_of(dataset="emoji", source="emoji"))
    assert demonstration.run.config == demonstration.needs.run.config == "vit_micro"


@pytest.mark.parametrize("name", ["tip_adapter", "tip_adapter_f", "taskres"])
def test_a_protocol_that_a_method_has_no_meaning_in_is_refused(request_of, name: str) -> None:
    """What it learns is of the classes that it was trained on: also ImageNet's variants have these, or some of them."""
    for make, protocol in (
        (protocols.base2new_train, "base2new"),
        (protocols.base2new_test, "base2new"),
        (protocols.xd_test, "cross_dataset"),
    ):
        with pytest.raises(ValueError) as error:
            make(request_of(METHODS[name]))
        assert f"{name} cannot run the protocol {protocol}: it" in str(error.value)
        assert str(error.value).endswith("nothing for other classes. It runs domain_generalization, few_shot")
    assert protocols.few_shot(request_of(METHODS[name])).run.stage == "all_classes"
    test = protocols.xd_test(request_of(METHODS[name], dataset="imagenet_a"))
    assert test.needs == protocols.xd_train(request_of(METHODS[name], dataset="imagenet"))
    assert protocols.xd_test(request_of(METHODS[name], dataset="emoji", source="emoji")).run.dataset == "emoji"
    nowhere = replace(METHODS[name], undefined=dict.fromkeys(protocols.DEFINABLE[:3], "a test"))
    with pytest.raises(ValueError, match=r"cross_dataset: a test. It runs few_shot"):
        protocols.xd_train(request_of(nowhere, dataset="imagenet"))


def test_a_published_config_with_another_backbone_has_the_published_settings(request_of) -> None:
    tip = METHODS["tip_adapter"]
    scale = ("TRAINER.TIPADAPTER.SEARCH_SCALE", "[13, 13]")
    assert protocols.few_shot(request_of(tip)).published == scale
    assert protocols.few_shot(request_of(tip, config="rn50")).published == scale
    assert protocols.few_shot(request_of(tip, config="vit_micro")).published == ()
    clip_adapter = METHODS["clip_adapter"]
    assert clip_adapter.published_configs("few_shot", "dtd", 1) == ("vit_b16_ep50", "rn50_ep50")
    assert clip_adapter.published_configs("few_shot", "emoji", 1) == ("vit_micro",)


@pytest.mark.parametrize("make", [protocols.base2new_train, protocols.base2new_test])
def test_a_method_without_training_depends_on_nothing(request_of, make) -> None:
    job = make(request_of(METHODS["zsclip"]))
    assert job.needs is None and job.test_only and job.is_ready()
    assert "--model-dir" not in job.command("python")


def test_a_test_is_ready_once_its_training_is_finished(request_of) -> None:
    test = protocols.base2new_test(request_of())
    assert not test.is_ready()
    finish(test.needs, complete=False)
    assert not test.is_ready()
    finish(test.needs)
    assert test.is_ready()


def test_a_test_is_repeated_after_a_new_training(request_of) -> None:
    test = protocols.base2new_test(request_of())
    finish(test.needs, time=1000)
    assert test.status().state == "new"
    finish(test, config="a: [", time=2000, epoch=5)  # not compared: the config cannot be read
    assert test.status().state == "finished"
    finish(test.needs, time=3000)
    assert test.status().state == "new"


def test_the_loaded_epoch_is_the_one_asked_for_else_the_training_s_last_else_the_config_s(request_of) -> None:
    request = request_of()
    test = protocols.base2new_test(request)
    assert test.epoch() == 5, "MAX_EPOCH of the published config"
    finish(test.needs, config="OPTIM:\n  MAX_EPOCH: 3\n")
    assert test.epoch() == 3
    finish(test.needs, config="OPTIM:\n  MAX_EPOCH: 3\nTEST:\n  FINAL_MODEL: best_val\n")
    assert test.epoch() is None
    finish(test.needs, config="OPTIM:\n  MAX_EPOCH: 3\n  STEPS_PER_SHOT: 500\n")  # its epochs depend on the data
    assert test.epoch() is None
    assert protocols.base2new_test(replace(request, epoch=2)).epoch() == 2
    assert protocols.base2new_train(replace(request, epoch=2)).epoch() is None


def test_downloaded_weights_are_always_tested_again(request_of, tmp_path: Path) -> None:
    jobs = protocols.reproduce(request_of(), "/weights/seed1")
    assert [job.run.stage for job in jobs] == ["test_base", "test_new"]
    for job in [*jobs, *protocols.reproduce_xd(request_of(), "/weights/seed1")]:
        assert job.folder.startswith(f"{tmp_path}/reproduce/")
        finish(job)
        assert job.status().state == "new"
        command = job.command("python")
        assert command[command.index("--model-dir") + 1] == "/weights/seed1"


def test_the_first_published_place_that_holds_weights(tmp_path: Path) -> None:
    def put(place: str) -> None:
        (tmp_path / place / "prompt_learner").mkdir(parents=True)
        (tmp_path / place / "prompt_learner" / "model.pth.tar-5").touch()

    with pytest.raises(ValueError, match=r"no weights for dtd, seed 2: neither in .* is there a <model name>/model"):
        protocols.find_weights(str(tmp_path), "dtd", 2)
    for place in (".", "dtd/seed2", "dtd/base/seed2", "base/seed2", "seed2"):  # the last first
        put(place)
        found = Path(protocols.find_weights(str(tmp_path), "dtd", 2))
        assert found == tmp_path / place
    assert protocols.weight_folders(str(tmp_path), "dtd", 2)[0] == f"{tmp_path}/seed2"


@pytest.mark.parametrize("place", ["prompt_learner", "prompt_learner/model.pth.tar-5"])
def test_the_model_s_own_folder_or_file_is_understood(tmp_path: Path, place: str) -> None:
    (tmp_path / "prompt_learner").mkdir()
    (tmp_path / "prompt_learner" / "model.pth.tar-5").touch()
    assert protocols.find_weights(f"{tmp_path}/{place}", "dtd", 2) == str(tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset": "dtt"}, "no dataset 'dtt': there is no configs/datasets/dtt.yaml.*caltech101"),
        ({"classes": "old"}, "no classes 'old'"),
        ({"options": ("OPTIM.LR",)}, "pairs KEY VALUE, but there are 1: OPTIM.LR"),
    ],
)
def test_wrong_requests(request_of, given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        request_of(**given)


def test_another_config_must_exist(request_of) -> None:
    assert protocols.few_shot(request_of(config="vit_micro")).run.config == "vit_micro"
    with pytest.raises(ValueError, match=r"no config 'vit_x' of MaPLe: there is no configs/trainers/MaPLe/vit_x.yaml"):
        protocols.few_shot(request_of(config="vit_x"))


def test_relative_folders_start_at_the_root() -> None:
    job = protocols.zero_shot(Request(METHODS["zsclip"], "dtd", seed=3, shots=4))
    assert job.folder == "output/ZeroshotCLIP/vit_b16/dtd", "neither shots nor a seed"
    assert job.path == ROOT / job.folder


def test_published_settings_yield_to_the_options_and_to_the_training(request_of) -> None:
    def of_shots(protocol: str, dataset: str, shots: int) -> dict[str, object]:
        return {"OPTIM.MAX_EPOCH": shots, "TRAINER.MAPLE.N_CTX": 4}

    method = replace(METHODS["maple"], settings=of_shots)
    ask = request_of(method, shots=8)
    training, test = protocols.base2new_train(ask), protocols.base2new_test(ask)
    assert training.command("python")[-8:] == [
        *("OPTIM.MAX_EPOCH", "8", "TRAINER.MAPLE.N_CTX", "4"),
        *("DATASET.NUM_SHOTS", "8", "DATASET.SUBSAMPLE_CLASSES", "base"),
    ]
    assert test.epoch() == 8
    own = protocols.base2new_train(replace(ask, options=("OPTIM.MAX_EPOCH", "3")))
    assert own.command("python").count("OPTIM.MAX_EPOCH") == 1
    assert own.command("python")[-2:] == ["OPTIM.MAX_EPOCH", "3"]

    finish(training, "OPTIM:\n  MAX_EPOCH: 3\nTRAINER:\n  MAPLE:\n    N_CTX: 6\n")
    assert test.epoch() == 3
    assert test.command("python")[-2:] == ["TRAINER.MAPLE.N_CTX", "6"]
    assert test.command("python").count("TRAINER.MAPLE.N_CTX") == 1

    other = protocols.base2new_train(replace(ask, config="vit_micro"))
    assert "OPTIM.MAX_EPOCH" not in other.command("python")  # settings belong to the published config
