"""A trained run put to use. `load(RUN)` gives its classifier; `python -m inference --help` lists the commands."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inference.classifier import Classifier, Prediction, load

__all__ = ["Classifier", "Prediction", "load"]


def __getattr__(name: str) -> Any:
    """`inference.classifier` takes PyTorch, which takes seconds: it is imported when something of it is used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("inference.classifier"), name)
