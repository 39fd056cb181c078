"""A trainer without images: its model, optimizer and checkpoints, for class names that are given."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from yacs.config import CfgNode

from clip.model import CLIP
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY

from .base import ClipTrainer


def dataset_without_images(name: str, classnames: Sequence[str], template: str = "") -> Any:
    """What a method's `build` may ask of a data set: its registered name, its classes and its template.

    Args:
        name: of the data set whose hand-written prompt the classes get. One that is not registered has none of its
            own.
        template: replaces that prompt, as DATASET.TEMPLATE does.
    """
    known = name in DATASET_REGISTRY.registered_names()
    own = getattr(DATASET_REGISTRY.get(name), "template", "") if known else ""
    dataset = type(name, (), {"template": own} if own else {})()
    dataset.classnames = list(classnames)
    if template:
        dataset.template = template
    return dataset


def trainer_without_data(cfg: CfgNode, dataset: Any, clip_model: CLIP | None = None) -> ClipTrainer:
    """The trainer of cfg.TRAINER.NAME, with its model and optimizer. It has no images to load.

    Args:
        dataset: from `dataset_without_images`.
        clip_model: the backbone; by default the one that `cfg` names.
    """
    method = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)

    class WithoutData(method):  # type: ignore[misc, valid-type]
        def check_cfg(self, cfg: CfgNode) -> None:
            """Nothing: there are no data to be read before an error of `build_model`."""

        def build_data_loader(self) -> None:
            self.dm = SimpleNamespace(dataset=dataset)
            self.train_loader_x = range(1)  # batches of an epoch, which schedules ask for
            self.num_classes = len(dataset.classnames)
            self.lab2cname = dict(enumerate(dataset.classnames))

        def load_clip(self) -> CLIP:
            return super().load_clip() if clip_model is None else clip_model

    WithoutData.__name__ = method.__name__  # messages and checkpoints have it
    return WithoutData(cfg)
