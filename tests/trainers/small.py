"""Every method's trainer on a CLIP of four narrow layers and three classes, without data: steps in milliseconds."""

from copy import deepcopy
from functools import cache
from typing import Any

import torch
from yacs.config import CfgNode

import train
from clip.model import CLIP
from dassl.config import merge_file, merge_options
from experiments.methods import METHODS
from tests.paths import ROOT
from tests.trainers.test_methods import NAMES
from trainers.base import ClipTrainer
from trainers.on_features import FeatureTrainer
from trainers.tip_adapter import TipAdapterF
from trainers.without_data import dataset_without_images, trainer_without_data

#: Rows of the table of methods with optimizer steps on batches
STEPS = [
    name for name, method in METHODS.items() if method.trained and method.trainer not in ("TipAdapter", "LinearProbe")
]


@cache
def four_layers() -> CLIP:
    torch.manual_seed(0)
    return CLIP(32, 32, 4, 64, 8, 77, 49408, 64, 1, 4).requires_grad_(False).eval()


def small_trainer(name: str, **settings: object) -> ClipTrainer:
    """The trainer of a row with the settings of its demonstration, in fp32; others are NODE__KEY=value."""
    method, cfg = METHODS[name], train.default_cfg()
    cfg.TRAINER.NAME = method.trainer
    merge_file(cfg, ROOT / "configs" / "trainers" / method.trainer / f"{method.demonstration}.yaml")
    for node in cfg.TRAINER.values():
        if isinstance(node, CfgNode) and "PREC" in node:
            node.PREC = "fp32"
            if "VIEWS" in node:
                node.VIEWS = 1
    options = {"OUTPUT_DIR": "", "USE_CUDA": False, "INPUT__SIZE": "(32, 32)", "OPTIM__WARMUP_EPOCH": 0, **settings}
    merge_options(cfg, [str(word) for key, value in options.items() for word in (key.replace("__", "."), value)])
    backbone = deepcopy(four_layers())
    torch.manual_seed(1)
    trainer = trainer_without_data(cfg, dataset_without_images("Emoji", NAMES), backbone)
    if isinstance(trainer, TipAdapterF):
        trainer.fill_cache(torch.randn(6, 32), torch.arange(6) % len(NAMES))
        trainer.model.cache.set_weights(1.0, 1.17)
    trainer.num_batches = 2  # so that no step is the last one of an epoch
    trainer.set_model_mode("train")
    return trainer


def batch_of(trainer: ClipTrainer, size: int, seed: int = 0) -> dict[str, Any]:
    """What a loader gives, or the method's batches of features."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(size) % len(NAMES)
    if isinstance(trainer, FeatureTrainer):
        return {"features": torch.randn(size, 32, generator=generator), "label": label}
    views = [torch.randn(size, 3, 32, 32, generator=generator) for _ in range(trainer.cfg.DATALOADER.K_TRANSFORMS)]
    names = [f"{i}.jpg" for i in range(size)]
    return {"img": views if len(views) > 1 else views[0], "label": label, "impath": names, "domain": label * 0}
