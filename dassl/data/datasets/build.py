"""From ``cfg.DATASET.NAME`` to a dataset."""

from typing import TYPE_CHECKING

from yacs.config import CfgNode

from dassl.utils import Registry, check_availability

if TYPE_CHECKING:
    from .base_dataset import DatasetBase

DATASET_REGISTRY = Registry("DATASET")


def build_dataset(cfg: CfgNode) -> "DatasetBase":
    """Build the dataset that the configuration names.

    Raises:
        ValueError: no dataset has that name; the message holds the closest one.
    """
    check_availability(cfg.DATASET.NAME, DATASET_REGISTRY.registered_names(), "DATASET.NAME")
    if cfg.VERBOSE:
        print(f"Loading dataset: {cfg.DATASET.NAME}")
    return DATASET_REGISTRY.get(cfg.DATASET.NAME)(cfg)
