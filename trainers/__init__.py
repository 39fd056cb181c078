"""Prompt-learning methods, one module each. All modules in this folder are imported, which registers their trainers."""

import importlib
import pkgutil
import sys
import warnings
from types import ModuleType
from typing import Any

from yacs.config import CfgNode

from dassl.config.merge import flatten

__all__ = ["extend_cfg"]


def _import_modules() -> list[ModuleType]:
    modules = []
    for info in pkgutil.iter_modules(__path__):
        try:
            modules.append(importlib.import_module(f"{__name__}.{info.name}"))
        except Exception as error:
            raise ImportError(
                f"trainers/{info.name}.py could not be imported ({type(error).__name__}: {error}); every file in "
                "trainers/ is loaded at start: fix it or move it out of trainers/"
            ) from error
    return modules


# `python -m trainers.features` imports this module before its own, and needs no trainer
_MODULES = [] if sys.argv[:1] == ["-m"] and "trainers.features" in sys.orig_argv else _import_modules()


def extend_cfg(cfg: CfgNode) -> None:
    """Add the config nodes that the trainers declare in their own `extend_cfg(cfg)`.

    Several modules may declare parts of one node, in any order. Keys that a later declaration leaves out are kept;
    a changed default raises a warning.

    Raises:
        ValueError: a module needs a node that no module declares.
    """
    waiting = [module for module in _MODULES if hasattr(module, "extend_cfg")]
    leaves = dict(flatten(cfg))
    while waiting:
        failed = {module: error for module in waiting if (error := _declare(cfg, module, leaves)) is not None}
        if len(failed) == len(waiting):
            lines = [f"trainers/{module.__name__.rpartition('.')[2]}.py: {error}" for module, error in failed.items()]
            raise ValueError("extend_cfg needs config nodes that no module declares:\n  " + "\n  ".join(lines))
        waiting = list(failed)


def _declare(cfg: CfgNode, module: ModuleType, leaves: dict[str, Any]) -> AttributeError | None:
    """Run one module's `extend_cfg` and update `leaves`, the keys so far; return the error if a node is missing."""
    try:
        module.extend_cfg(cfg)
    except AttributeError as error:
        return error
    after = dict(flatten(cfg))
    for key, value in leaves.items():
        if key not in after:
            _restore(cfg, key.split("."), value)
        elif after[key] != value:
            name = module.__name__.rpartition(".")[2]
            warnings.warn(
                f"trainers/{name}.py changes the default of {key} from {value!r} to {after[key]!r}", stacklevel=3
            )
    leaves.update(after)
    return None


def _restore(node: CfgNode, path: list[str], value: object) -> None:
    for name in path[:-1]:
        node = node.setdefault(name, CfgNode())
    node.setdefault(path[-1], value)
