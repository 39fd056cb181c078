"""Run folders made from their parts and parsed into them, and the state of the run in a folder."""

import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from experiments.runs import IMAGENET_VARIANTS, STAGES, Run, Status, run_settings, run_status, unless_changed
from tests.paths import ROOT

DATASETS = sorted(path.stem for path in (ROOT / "configs" / "datasets").glob("*.yaml"))
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_+.=-]{0,20}", fullmatch=True).filter(lambda name: not name.endswith("shots"))
SEEDS = st.none() | st.integers(0, 10**6)


@st.composite
def runs(draw: st.DrawFn) -> Run:
    stage = draw(st.sampled_from(STAGES))
    zero_shot = stage == "zero_shot"
    variant = draw(st.lists(NAMES, max_size=2).map("/".join))
    return Run(
        stage,
        dataset=draw(st.sampled_from(DATASETS)),
        trainer=draw(st.sampled_from(["ZeroshotCLIP", "ZeroshotCLIP2"])) if zero_shot else draw(NAMES),
        config=draw(NAMES),
        shots=0 if zero_shot else draw(st.integers(-1, 64)),
        seed=draw(SEEDS),
        variant=variant,
        source=draw(st.sampled_from(DATASETS)) if stage == "evaluation" else "",
        reproduced=draw(st.booleans()),
    )


@given(runs())
def test_a_folder_is_parsed_into_the_parts_it_was_made_from(run: Run) -> None:
    assume(not any(part.startswith("seed") for part in run.variant.split("/")))
    assert Run.parse(run.folder) == run


@pytest.mark.parametrize(
    ("folder", "run", "protocol"),
    [  # the published tree
        (
            "base2new/train_base/dtd/shots_16/MaPLe/vit_b16_c2_ep5_batch4_2ctx/seed1",
            Run("train_base", "dtd", "MaPLe", "vit_b16_c2_ep5_batch4_2ctx", 16, 1),
            "base2new",
        ),
        (
            "base2new/test_new/eurosat/shots_4/CoOp/vit_b16/seed3",
            Run("test_new", "eurosat", "CoOp", "vit_b16", 4, 3),
            "base2new",
        ),
        (
            "imagenet/CoOp/vit_b16_ep50_16shots/nctx16_cscFalse_ctpend/seed2",
            Run("all_classes", "imagenet", "CoOp", "vit_b16_ep50", 16, 2, "nctx16_cscFalse_ctpend"),
            "few_shot",
        ),
        (
            "evaluation/MaPLe/vit_b16_16shots/imagenet_a/seed1",
            Run("evaluation", "imagenet_a", "MaPLe", "vit_b16", 16, 1, source="imagenet"),
            "domain_generalization",
        ),
        (
            "evaluation_emoji/MaPLe/vit_micro_1shots/emoji/seed0",
            Run("evaluation", "emoji", "MaPLe", "vit_micro", 1, 0, source="emoji"),
            "cross_dataset",
        ),
        (
            "reproduce/evaluation/MaPLe/vit_b16_16shots/dtd/seed1",
            Run("evaluation", "dtd", "MaPLe", "vit_b16", 16, 1, source="imagenet", reproduced=True),
            "cross_dataset",
        ),
        ("ZeroshotCLIP/rn50/dtd", Run("zero_shot", "dtd", "ZeroshotCLIP", "rn50", 0), "zero_shot"),
    ],
)
def test_published_folders(folder: str, run: Run, protocol: str) -> None:
    assert Run.parse(folder) == run
    assert run.folder == folder
    assert run.protocol == protocol


@pytest.mark.parametrize(
    "folder",
    [
        ".",
        "try",
        "seed1",
        "base2new/train_base/dtd",
        "base2new/train_half/dtd/shots_16/MaPLe/vit_b16/seed1",
        "base2new/train_base/dtd/shots_all/MaPLe/vit_b16/seed1",
        "dtd/MaPLe/vit_b16/seed1",
        "evaluation/MaPLe/vit_b16/dtd/seed1",
        "evaluations/MaPLe/vit_b16/dtd/seed1",
        "reproduce",
    ],
)
def test_other_folders_are_no_runs(folder: str) -> None:
    assert Run.parse(folder) is None


def test_unknown_stage() -> None:
    with pytest.raises(ValueError, match=r"no stage 'test_novel'.*test_new"):
        Run("test_novel", "dtd", "MaPLe", "vit_b16", 16)


def test_imagenet_s_variants_are_all_its_other_datasets() -> None:
    assert set(IMAGENET_VARIANTS) == {name for name in DATASETS if name.startswith("imagenet")} - {"imagenet"}


# ---- state -----------------------------------------------------------------------------------------------------


def write(folder: Path, config: str, **results: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    if results:
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")


def test_new_unfinished_finished(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run_status(folder) == Status("new")
    folder.mkdir()
    assert run_status(folder) == Status("new"), "an empty folder"
    write(folder, "SEED: 1")
    assert run_status(folder) == Status("unfinished")
    write(folder, "SEED: 1", complete=False, accuracy=50.0)
    assert run_status(folder) == Status("unfinished")
    write(folder, "SEED: 1", complete=True, accuracy=50.0)
    assert run_status(folder) == Status("finished", 50.0)
    write(folder, "SEED: 1", complete=True, accuracy=None)
    assert run_status(folder) == Status("finished", None)


def test_differences_of_a_finished_run(tmp_path: Path) -> None:
    """Options win over files and later files over earlier; equal literals are equal; speed and printing don't count."""
    config = "OPTIM:\n  LR: 0.002\n  MAX_EPOCH: 5\nINPUT:\n  SIZE: [48, 48]\nDATALOADER:\n  NUM_WORKERS: 8\n"
    write(tmp_path / "run", config, complete=True, accuracy=50.0, epoch=5)
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("OPTIM:\n  LR: 0.1\n  MAX_EPOCH: 7\n", encoding="utf-8")
    second.write_text("OPTIM:\n  LR: 2.0e-3\nINPUT:\n  SIZE: (48, 48)\n", encoding="utf-8")

    def differences(*options: str, epoch: int | None = None) -> tuple[str, ...]:
        return run_status(tmp_path / "run", [first, second], options, epoch).differences

    assert differences() == ("OPTIM.MAX_EPOCH: the run has 5, now 7 is asked for",)
    assert differences("OPTIM.MAX_EPOCH", "5", "DATALOADER.NUM_WORKERS", "0") == ()
    assert differences("OPTIM.MAX_EPOCH", "5", "SEED", "3") == ("SEED: the run has None, now 3 is asked for",)
    assert differences("OPTIM.MAX_EPOCH", "5", epoch=5) == ()
    assert differences("OPTIM.MAX_EPOCH", "5", epoch=2) == ("epoch: the run tested 5, now 2 is asked for",)


def test_a_config_that_cannot_be_read_is_not_compared(tmp_path: Path) -> None:
    write(tmp_path / "run", "a: [", complete=True, accuracy=50.0)
    assert run_status(tmp_path / "run", options=("OPTIM.LR", "1")) == Status("finished", 50.0)


def test_settings_are_read_from_the_results_and_from_the_config_of_older_ones(tmp_path: Path) -> None:
    def differences(**results: object) -> tuple[str, ...]:
        write(tmp_path / "run", "OPTIM:\n  LR: 0.1\n", complete=True, accuracy=50.0, **results)
        return run_status(tmp_path / "run", options=("OPTIM.LR", "2e-1")).differences

    assert differences(settings={"OPTIM.LR": 0.2}) == ()
    assert differences(settings={"OPTIM.LR": 0.3}) == ("OPTIM.LR: the run has 0.3, now 2e-1 is asked for",)
    for older in ({}, {"settings": None}, {"settings": [1]}):
        assert differences(**older) == ("OPTIM.LR: the run has 0.1, now 2e-1 is asked for",)


def test_run_settings_of_every_state(tmp_path: Path) -> None:
    assert run_settings(tmp_path / "run") is None
    write(tmp_path / "run", "OPTIM:\n  LR: 0.1\n")
    assert run_settings(tmp_path / "run") == {"OPTIM.LR": 0.1}
    write(tmp_path / "run", "OPTIM:\n  LR: 0.1\n", complete=True, accuracy=1.0, settings={"OPTIM.LR": 0.2})
    assert run_settings(tmp_path / "run") == {"OPTIM.LR": 0.2}


@pytest.mark.parametrize("age", [0.0, 100.0])
def test_a_file_is_read_again_once_it_has_changed(tmp_path: Path, age: float) -> None:
    """Also where it is written again at once, in the same file, at the same length."""
    reads, file = [], tmp_path / "file"

    @unless_changed
    def read(path: Path) -> str:
        reads.append(path)
        return path.read_text()

    def write_aged(text: str, at: float) -> None:
        file.write_text(text)
        os.utime(file, (at, at))

    with pytest.raises(FileNotFoundError):
        read(file)
    reads.clear()
    now = time.time()
    write_aged("a", now - age)
    assert [read(file), read(file)] == ["a", "a"]
    assert len(reads) == (1 if age else 2)
    write_aged("b", now if age else now - age)
    assert read(file) == "b"
