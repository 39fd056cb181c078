"""The configuration tree: defaults, and merging files and command-line options into it."""

from yacs.config import CfgNode

from dassl.config.defaults import default_tree, setting
from dassl.config.merge import config_name, flatten, merge_file, merge_options

__all__ = ["clean_cfg", "config_name", "flatten", "get_cfg_default", "merge_file", "merge_options", "setting"]


def get_cfg_default() -> CfgNode:
    """A new tree of all keys with their defaults."""
    return default_tree()


def clean_cfg(cfg: CfgNode, trainer: str) -> None:
    """Remove the nodes of all trainers except ``trainer`` from ``cfg.TRAINER``."""
    for key in list(cfg.TRAINER):
        if key not in ("NAME", trainer.upper()):
            cfg.TRAINER.pop(key)
