"""Trainers by name."""

from typing import Any

from dassl.utils.registry import Registry

__all__ = ["TRAINER_REGISTRY", "build_trainer"]

TRAINER_REGISTRY = Registry("TRAINER")


def build_trainer(cfg: Any, name: str | None = None) -> Any:
    """The trainer called ``name``, or else ``cfg.TRAINER.NAME``, made from ``cfg``.

    Raises:
        UnknownNameError: no such trainer; the closest and all names are in the message.
    """
    name = name or cfg.TRAINER.NAME
    trainer = TRAINER_REGISTRY.get(name)
    if cfg.VERBOSE:
        print(f"Loading trainer: {name}")
    return trainer(cfg)
