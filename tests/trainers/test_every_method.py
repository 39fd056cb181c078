"""Every method of the tables on the demonstration: precisions, resume to the same bits, other classes in the test."""

from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

import datasets  # noqa: F401  (registers the datasets)
import train
from dassl.config import merge_file, merge_options
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import set_random_seed
from experiments.methods import METHODS
from tests.dassl.tiny import Stop, stop_after_epoch
from tests.paths import ROOT
from tests.reads import reads_of_last_step
from trainers.base import ClipTrainer
from trainers.checkpoint import own_tensors

TRAINED = [name for name, method in METHODS.items() if method.trained]
# CoPrompt draws a description by the CPU's generator, whose number is on the host on every device
READS = {"coprompt": {"_local_scalar_dense": 1}}
ALONE = [name for name in TRAINED if not METHODS[name].base]  # for the others: test_on_base.py


def make(
    name: str, folder: Path, prec: str = "fp32", classes: str = "base", epochs: int = 2, **settings: object
) -> ClipTrainer:
    """The trainer of a row with its config of the demonstration, at one shot.

    Settings are NODE__KEY=value, or KEY=value of the method's own node.
    """
    method, cfg = METHODS[name], train.default_cfg()
    cfg.TRAINER.NAME = method.trainer
    for path in ("datasets/emoji.yaml", f"trainers/{method.trainer}/{method.demonstration}.yaml"):
        merge_file(cfg, ROOT / "configs" / path)
    for node in cfg.TRAINER.values():  # a method on another has two
        if isinstance(node, CfgNode) and "PREC" in node:
            node.PREC = prec
            if "VIEWS" in node:
                node.VIEWS = 2
    options = {"DATASET.NUM_SHOTS": 1, "DATASET.SUBSAMPLE_CLASSES": classes, "DATALOADER.TRAIN_X.BATCH_SIZE": 5}
    options |= {"TEST.NO_TEST": True, "OPTIM.STEPS_PER_SHOT": 0}  # after training; epochs, not steps
    options |= {"OUTPUT_DIR": folder, "SEED": 1, "VERBOSE": False, "OPTIM.MAX_EPOCH": epochs, "OPTIM.WARMUP_EPOCH": 0}
    own = TRAINER_REGISTRY.get(method.trainer).config_node
    for key, value in settings.items():
        options[key.replace("__", ".") if "__" in key else f"TRAINER.{own}.{key}"] = value
    merge_options(cfg, [str(word) for pair in options.items() for word in pair])
    set_random_seed(1)
    return build_trainer(cfg)


def learned(trainer: ClipTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def saved(trainer: ClipTrainer) -> dict[str, torch.Tensor]:
    """What is learned, and the buffers of checkpoints."""
    return learned(trainer) | own_tensors(trainer.checkpoint_root(), trainer.model.pretrained_tensors())


@pytest.mark.parametrize("name", ALONE)
def test_a_resumed_run_has_the_same_bits_and_its_weights_test_other_classes(name: str, tmp_path: Path) -> None:
    whole = make(name, tmp_path / "whole")
    start = learned(whole)
    whole.train()
    ended = learned(whole)
    assert start.keys() == ended.keys()
    assert not [key for key in start if torch.equal(start[key], ended[key])], "not trained"

    stopped = make(name, tmp_path / "stopped")
    if whole.max_epoch:
        stop_after_epoch(stopped, 1)
        with pytest.raises(Stop):
            stopped.train()
    resumed = make(name, tmp_path / "stopped")
    resumed.train()
    again = saved(resumed)
    assert not [key for key, value in saved(whole).items() if not torch.equal(value, again[key])], "other bits"

    new = make(name, tmp_path / "new", classes="new")
    if "base2new" in METHODS[name].undefined:
        with pytest.raises(ValueError, match=r"trained on 20 classes, but 20 of the 20 classes of Emoji are not among"):
            new.load_model(str(tmp_path / "whole"), epoch=whole.max_epoch)
        new = make(name, tmp_path / "all", classes="base")
        new.load_model(str(tmp_path / "whole"), epoch=whole.max_epoch)
        assert all(torch.equal(value, saved(new)[key]) for key, value in saved(whole).items()), "not loaded"
        assert 0 <= new.test() <= 100
        return
    new.load_model(str(tmp_path / "whole"), epoch=whole.max_epoch)
    loaded = learned(new)
    assert not [key for key in loaded if key in ended and not torch.equal(loaded[key], ended[key])], "not loaded"
    assert new.dm.dataset.classnames != whole.dm.dataset.classnames
    assert 0 <= new.test() <= 100


@pytest.mark.parametrize("prec", ["bf16", "amp"])
@pytest.mark.parametrize("name", TRAINED)
def test_lower_precisions_train_with_fp32_masters(name: str, prec: str, tmp_path: Path) -> None:
    trainer = make(name, tmp_path, prec, epochs=1)
    start, in_step = learned(trainer), reads_of_last_step(trainer)
    trainer.train()
    ended = learned(trainer)
    assert {value.dtype for value in ended.values()} <= {torch.float32}
    assert all(value.isfinite().all() for value in saved(trainer).values())
    assert any(not torch.equal(start[key], ended[key]) for key in start) or not trainer.max_epoch
    assert in_step == [READS.get(name, {})] * trainer.max_epoch, "a step waits for the device"
