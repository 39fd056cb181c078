"""Methods that change another method: its prompts or its loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yacs.config import CfgNode

from dassl.engine import TRAINER_REGISTRY

from .base import ClipTrainer
from .checkpoint import as_words


class MethodOnBase(ClipTrainer):
    """A method on the one that the key BASE of its config node names; that one's node has its own settings, and PREC.

    A method gives `folders`, the folder of its checkpoints for each base.
    """

    folders: Mapping[str, str]

    @classmethod
    def base_of(cls, cfg: CfgNode) -> type[ClipTrainer]:
        return TRAINER_REGISTRY.get(cfg.TRAINER[cls.config_node].BASE)

    @classmethod
    def options_of(cls, cfg: CfgNode) -> CfgNode:
        """The settings of both nodes."""
        return CfgNode({**cls.base_of(cfg).options_of(cfg), **cfg.TRAINER[cls.config_node]})

    @classmethod
    def words(cls, cfg: CfgNode, options: Mapping[str, Any]) -> str:
        own = {key: value for key, value in options.items() if key in cfg.TRAINER[cls.config_node]}
        base = TRAINER_REGISTRY.get(options.get("BASE", cfg.TRAINER[cls.config_node].BASE))
        of_base = {key: value for key, value in options.items() if key not in own}
        return " ".join(filter(None, [as_words(cls.config_node, own), base.words(cfg, of_base)]))

    def build_model(self) -> None:
        self.registered_name = self.folders[self.cfg.TRAINER[self.config_node].BASE]
        self.not_loaded = (*self.not_loaded, *self.base_of(self.cfg).not_loaded)
        super().build_model()

    def belongs_to(self) -> dict[str, Any]:
        return super().belongs_to() | {"base": self.cfg.TRAINER[self.config_node].BASE}
