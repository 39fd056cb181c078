"""Find a dataset by any of its names, and build it, capturing its output."""

import io
from contextlib import redirect_stdout
from pathlib import Path

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from dassl.utils.names import bare, closest_hint
from datasets.base import ClipDataset
from datasets.mirrors import folder_names
from datasets.own_data import OwnData


def registered() -> dict[str, type[DatasetBase]]:
    """Every registered dataset by its name."""
    return {name: DATASET_REGISTRY.get(name) for name in DATASET_REGISTRY.registered_names()}


def find_name(given: str) -> str:
    """The registered name of a dataset, given that or its folder's name: "OxfordPets", "oxford_pets", "dtd".

    Raises:
        ValueError: there is no such dataset; the message has the closest names.
    """
    names = {bare(name): name for name in registered()}
    for name, dataset in registered().items():
        if issubclass(dataset, ClipDataset):
            for folder in folder_names(dataset):
                names.setdefault(bare(folder), name)
    if bare(given) not in names:
        raise ValueError(
            f"no dataset is called {given!r}{closest_hint(given, registered())} Available: {', '.join(registered())}"
        )
    return names[bare(given)]


def is_own_data(dataset: type[DatasetBase]) -> bool:
    """Whether DATASET.ROOT is the dataset itself, not a folder of datasets."""
    return issubclass(dataset, OwnData)


def build(name: str, root: Path, shots: int = -1, seed: int = 1, classes: str = "all") -> tuple[DatasetBase, list[str]]:
    """Build a dataset; returns it and the lines that it printed.

    Args:
        name: a registered name.
        root: DATASET.ROOT.
        shots, seed, classes: DATASET.NUM_SHOTS, SEED and DATASET.SUBSAMPLE_CLASSES.

    Raises:
        FileNotFoundError, ValueError: the dataset is missing or wrong.
    """
    cfg = get_cfg_default()
    cfg.DATASET.NAME, cfg.DATASET.ROOT = name, str(root)
    cfg.DATASET.NUM_SHOTS, cfg.DATASET.SUBSAMPLE_CLASSES, cfg.SEED = shots, classes, seed
    printed = io.StringIO()
    with redirect_stdout(printed):
        dataset = DATASET_REGISTRY.get(name)(cfg)
    return dataset, printed.getvalue().splitlines()
