"""What the tests of the datasets share: configurations, pictures, and a look at the items."""

from pathlib import Path
from unittest import mock

from yacs.config import CfgNode

import datasets  # noqa: F401  (registers them)
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, build_dataset
from tests.dassl.data.pictures import make_cfg, save_picture


def pictures(folder: Path, names: list[str]) -> None:
    """A tiny picture for every name, which may hold folders."""
    for seed, name in enumerate(names):
        save_picture(folder / name, seed=seed, size=(8, 6))


def dataset_cfg(name: str, root: Path, num_shots: int = -1, seed: int = 1, classes: str = "all") -> CfgNode:
    return make_cfg(
        DATASET__NAME=name,
        DATASET__ROOT=str(root),
        DATASET__NUM_SHOTS=num_shots,
        DATASET__SUBSAMPLE_CLASSES=classes,
        SEED=seed,
    )


def build(name: str, root: Path, **options) -> DatasetBase:
    """A dataset of any number of classes: miniatures have few."""
    with mock.patch.object(DATASET_REGISTRY.get(name), "expected_classes", None, create=True):
        return build_dataset(dataset_cfg(name, root, **options))


def relative(items, root: Path) -> list[tuple[str, int, str]]:
    """(path below root, label, class name) of every item."""
    return [(Path(item.impath).relative_to(root).as_posix(), item.label, item.classname) for item in items]
