"""A trainer without data, on a CLIP that is given."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from unittest.mock import patch

from yacs.config import CfgNode

import datasets  # noqa: F401  (registers the datasets)
from clip.model import CLIP
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from trainers.base import ClipTrainer


def bare_trainer(cfg: CfgNode, clip_model: CLIP, classnames: Sequence[str], dataset: str = "Dataset") -> ClipTrainer:
    """The trainer of cfg.TRAINER.NAME, with its model and optimizer, in training mode.

    Args:
        dataset: the registered name of the data set that the classes are said to be of, whose template it has; any
            other name has the default template.
    """
    method = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)
    known = dataset in DATASET_REGISTRY.registered_names()
    template = {"template": DATASET_REGISTRY.get(dataset).template} if known else {}
    of_data = type(dataset, (), {"classnames": list(classnames), **template})()

    class Bare(method):  # type: ignore[misc, valid-type]
        def check_cfg(self, cfg: CfgNode) -> None:
            pass

        def build_data_loader(self) -> None:
            self.dm = SimpleNamespace(dataset=of_data)
            self.num_classes = len(of_data.classnames)
            self.lab2cname = dict(enumerate(of_data.classnames))

    with patch("trainers.base.load_clip", lambda cfg: clip_model):
        trainer = Bare(cfg)
    trainer.set_model_mode("train")
    return trainer
