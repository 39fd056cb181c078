"""Methods on other methods, trained on the demonstration: the same bits after a stop, precisions, advice, options."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import datasets  # noqa: F401  (registers the datasets)
import train
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from experiments.methods import METHODS
from experiments.plans import Plan
from tests.dassl.tiny import Stop, stop_after_epoch
from tests.golden import build
from tests.paths import ROOT
from tests.trainers.test_methods import NAMES, small_clip
from tests.trainers.test_toys import everything
from trainers.base import ClipTrainer
from trainers.precision import Precision

VARIANTS = [("DePT", "CoOp"), ("DePT", "KgCoOp"), ("DePT", "MaPLe"), ("ATPrompt", "CoOp"), ("ATPrompt", "MaPLe")]
TERMS = {"DePT": {"ce", "ce_lp"}, "ATPrompt": {"ce"}}


def make(trainer: str, base: str, folder: Path, classes: str = "base", **options: object) -> ClipTrainer:
    """One shot, two epochs; options are KEY__SUBKEY=value."""
    argv = ["--trainer", trainer, "--dataset-config-file", str(ROOT / "configs/datasets/emoji.yaml")]
    argv += ["--config-file", str(ROOT / f"configs/trainers/{trainer}/vit_micro_{base.lower()}.yaml")]
    short = {"DATASET.NUM_SHOTS": 1, "DATASET.SUBSAMPLE_CLASSES": classes, "DATALOADER.TRAIN_X.BATCH_SIZE": 10}
    short |= {"OPTIM.MAX_EPOCH": 2, "OPTIM.WARMUP_EPOCH": 0, "SEED": 1, "VERBOSE": False, "TEST.NO_TEST": True}
    given = short | {key.replace("__", "."): value for key, value in options.items()}
    cfg = train.setup_cfg(
        train.parse_args([*argv, "--output-dir", str(folder), *(f"{key}={value}" for key, value in given.items())])
    )
    set_random_seed(1)
    return build_trainer(cfg)


@pytest.mark.slow
@pytest.mark.parametrize(("trainer", "base"), VARIANTS)
def test_trains_stops_resumes_saves_and_tests_new_classes(trainer: str, base: str, tmp_path: Path) -> None:
    whole = make(trainer, base, tmp_path / "whole")
    learned = {name: p for name, p in whole.model.named_parameters() if p.requires_grad}
    start = everything(whole)
    whole.train()
    assert not [name for name, p in learned.items() if torch.equal(p.detach(), start[name])], "not trained"
    terms = TERMS[trainer] | ({"score"} if base == "KgCoOp" else set())
    for line in (tmp_path / "whole" / "history.jsonl").read_text().splitlines():
        losses = json.loads(line)["losses"]
        assert losses.keys() == {"loss", "acc"} | terms
        assert losses["loss"] == pytest.approx(sum(losses[term] for term in terms), rel=1e-5)

    stopped = make(trainer, base, tmp_path / "stopped")
    stop_after_epoch(stopped, 1)
    with pytest.raises(Stop):
        stopped.train()
    resumed = make(trainer, base, tmp_path / "stopped")
    resumed.train()
    assert resumed.start_epoch == 1
    assert all(torch.equal(tensor, everything(resumed)[name]) for name, tensor in everything(whole).items())

    new = make(trainer, base, tmp_path / "new", "new")
    new.load_model(str(tmp_path / "whole"), epoch=2)
    assert all(torch.equal(p, new.model.get_parameter(name)) for name, p in learned.items() if "linear_" not in name)
    with torch.no_grad():
        assert new.model.eval()(torch.randn(2, 3, 48, 48)).isfinite().all()


@pytest.mark.parametrize("prec", ["bf16", "amp"])
@pytest.mark.parametrize(("trainer", "base"), VARIANTS)
def test_precisions_agree(trainer: str, base: str, prec: str) -> None:
    """Within 8 bits of fp32's logits, but not its bits; what is learned and its gradients stay fp32."""
    options: dict[str, Any] = {"BASE": base} | ({"PROMPT_DEPTH": 2} if base == "MaPLe" else {})
    options |= {"ATTRIBUTES": ["color"]} if trainer == "ATPrompt" else {}
    image, logits = torch.randn(3, 3, 32, 32), []
    for precision in (Precision("fp32", torch.device("cpu")), Precision(prec, torch.device("cpu"))):
        clip_model = small_clip()
        precision.cast(clip_model)
        torch.manual_seed(0)
        model = build(trainer, NAMES, clip_model, **options).train()
        with precision.autocast():
            logits.append(model(image))
    assert logits[1].dtype == torch.float32
    assert 0 < (logits[0] - logits[1]).abs().max() < 0.03 * model.logit_scale.exp()
    logits[1].sum().backward()
    learned = [p for p in model.parameters() if p.requires_grad]
    assert all(p.dtype == torch.float32 for p in learned)
    assert all(p.grad.dtype == torch.float32 for p in learned if p.grad is not None)


def refusal(trainer: ClipTrainer, folder: Path) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        trainer.load_model(str(folder), epoch=1)
    return str(caught.value).splitlines()[-1]


def test_weights_of_other_settings_name_them_under_their_nodes(tmp_path: Path) -> None:
    make("DePT", "CoOp", tmp_path / "out", TRAINER__COOP__N_CTX=3).save_model(0, str(tmp_path / "coop"))
    make("DePT", "MaPLe", tmp_path / "out", TRAINER__MAPLE__PROMPT_DEPTH=2).save_model(0, str(tmp_path / "maple"))
    make("ATPrompt", "CoOp", tmp_path / "out", TRAINER__COOP__N_CTX=3).save_model(0, str(tmp_path / "atp"))
    dept, atp = make("DePT", "CoOp", tmp_path / "out"), make("ATPrompt", "MaPLe", tmp_path / "out")
    assert refusal(dept, tmp_path / "coop") == "It fits with TRAINER.COOP.N_CTX 3"
    maple = "TRAINER.DEPT.BASE MaPLe TRAINER.MAPLE.N_CTX 2 TRAINER.MAPLE.PROMPT_DEPTH 2"
    assert refusal(dept, tmp_path / "maple") == f"It fits with {maple}"
    assert refusal(atp, tmp_path / "atp") == "It fits with TRAINER.ATPROMPT.BASE CoOp TRAINER.COOP.N_CTX 3"
    assert refusal(atp, tmp_path / "coop") == "It was trained by DePT: pass --trainer DePT"


def test_kgcoop_and_coop_have_the_same_shapes_but_belong_to_themselves(tmp_path: Path) -> None:
    make("DePT", "CoOp", tmp_path / "out").save_model(0, str(tmp_path / "coop"))
    with pytest.raises(ValueError, match="base: 'CoOp' in the file, 'KgCoOp' here"):
        make("DePT", "KgCoOp", tmp_path / "out").load_model(str(tmp_path / "coop"), epoch=1)


def test_a_plan_s_settings_of_the_base_apply_to_the_method_on_it() -> None:
    options = (("TRAINER.COOP.N_CTX", ("8",)), ("TRAINER.DEPT.WEIGHT", ("0.5",)), ("TRAINER.MAPLE.N_CTX", ("4",)))
    plan = Plan("plan", ("base2new",), ("dept_coop",), ("dtd",), options=options)
    ((_, words),) = plan.settings(METHODS["dept_coop"])
    assert words == ("TRAINER.COOP.N_CTX", "8", "TRAINER.DEPT.WEIGHT", "0.5")
    ((_, words),) = plan.settings(METHODS["coop"])
    assert words == ("TRAINER.COOP.N_CTX", "8")


@pytest.mark.parametrize(
    ("name", "protocol", "dataset", "expected"),
    [
        ("atprompt_coop", "base2new", "caltech101", {}),
        ("atprompt_coop", "base2new", "dtd", {"TRAINER.COOP.N_CTX": "4"}),
        ("atprompt_coop", "base2new", "imagenet", {"OPTIM.MAX_EPOCH": "10"}),
        ("atprompt_coop", "cross_dataset", "imagenet", {}),
        ("atprompt_maple", "base2new", "eurosat", {"OPTIM.MAX_EPOCH": "10", "TRAINER.MAPLE.N_CTX": "4"}),
        ("atprompt_maple", "base2new", "food101", {"TRAINER.MAPLE.N_CTX": "4"}),
        ("atprompt_maple", "base2new", "ucf101", {}),
        ("atprompt_maple", "cross_dataset", "imagenet", {}),
        ("atprompt_maple", "base2new", "emoji", {}),
    ],
)
def test_published_settings_by_data_set(name: str, protocol: Any, dataset: str, expected: dict) -> None:
    words = METHODS[name].published_settings(protocol, dataset, 16)
    assert dict(zip(words[::2], words[1::2], strict=True)) == expected
