"""Prompt-learning methods, one module each. Every module in this folder is imported, so that it registers itself."""

import importlib
import pkgutil

from yacs.config import CfgNode

__all__ = ["extend_cfg"]


def _import_modules() -> list:
    modules = []
    for info in pkgutil.iter_modules(__path__):
        try:
            modules.append(importlib.import_module(f"{__name__}.{info.name}"))
        except Exception as error:
            raise ImportError(
                f"trainers/{info.name}.py could not be imported ({type(error).__name__}: {error}); every file in "
                "trainers/ is loaded at start: mend it or move it elsewhere"
            ) from error
    return modules


_MODULES = _import_modules()


def extend_cfg(cfg: CfgNode) -> None:
    """Add the config nodes that the trainers declare in their own `extend_cfg(cfg)`."""
    for module in _MODULES:
        if hasattr(module, "extend_cfg"):
            module.extend_cfg(cfg)
