"""Folders of runs as train.py leaves them, without a training: what is learned has random values."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from yacs.config import CfgNode

import datasets  # noqa: F401  (registers the datasets)
import train
from dassl.config import merge_file, merge_options
from dassl.utils import set_random_seed, write_json
from experiments.methods import METHODS
from tests.paths import ROOT
from trainers.base import ClipTrainer
from trainers.without_data import dataset_without_images, trainer_without_data

CLASSNAMES = ["cat", "red apple", "house", "fire_engine", "a very long name of a class"]


def settings(name: str, **changed: Any) -> CfgNode:
    """The configuration of a row of METHODS on the demonstration."""
    method, cfg = METHODS[name], train.default_cfg()
    cfg.TRAINER.NAME = method.trainer
    for path in ("datasets/emoji.yaml", f"trainers/{method.trainer}/{method.demonstration}.yaml"):
        merge_file(cfg, ROOT / "configs" / path)
    given = {"SEED": 1, "VERBOSE": False, **{key.replace("__", "."): value for key, value in changed.items()}}
    merge_options(cfg, [str(word) for pair in given.items() for word in pair])
    return cfg


def small_run(name: str, folder: Path, classnames: list[str] = CLASSNAMES, **changed: Any) -> ClipTrainer:
    """Write the run of a method, whose learned tensors moved away from their start; returns its trainer."""
    cfg = settings(name, **changed)
    set_random_seed(1)
    trainer = trainer_without_data(cfg, dataset_without_images(cfg.DATASET.NAME, classnames))
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(cfg.dump(), encoding="utf-8")
    write_json({"classnames": classnames, "accuracy": None, "complete": True}, folder / "results.json")
    trainer.save_model(0, str(folder))
    return trainer


def arguments(run: Path, **changed: Any) -> SimpleNamespace:
    """Arguments of a command, as its parser gives them."""
    return SimpleNamespace(**{"run": str(run), "epoch": None, "backbone": None, "classes": None, **changed})
