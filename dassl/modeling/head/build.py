"""Heads between backbone and classifier, by name."""

from typing import Any

from dassl.utils.registry import Registry

__all__ = ["HEAD_REGISTRY", "build_head"]

HEAD_REGISTRY = Registry("HEAD")


def build_head(name: str, verbose: bool = True, **kwargs: Any) -> Any:
    """Build the head registered as ``name`` with ``kwargs``."""
    make = HEAD_REGISTRY.get(name)
    if verbose:
        print(f"Head: {name}")
    return make(**kwargs)
