"""Zero-shot CLIP with hand-written prompts (Radford et al. 2021, section 3.1.4), as CoOp evaluates it."""

from __future__ import annotations

from typing import Any

from yacs.config import CfgNode

from clip.model import CLIP
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY

from .base import ClipTrainer
from .precision import PRECISIONS
from .prompted_clip import FixedTextCLIP
from .prompts import DEFAULT_TEMPLATE, IMAGENET_TEMPLATES_SELECT, fill


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.ZSCLIP = CfgNode()
    cfg.TRAINER.ZSCLIP.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp


declare_ranges("TRAINER.ZSCLIP", PREC=PRECISIONS)


@TRAINER_REGISTRY.register()
class ZeroshotCLIP(ClipTrainer):
    """The dataset's own template; nothing is learned."""

    config_node = "ZSCLIP"

    @classmethod
    def needs_epochs(cls) -> bool:
        return False

    @classmethod
    def templates(cls, dataset: Any) -> list[str]:
        return [getattr(dataset, "template", DEFAULT_TEMPLATE)]

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> FixedTextCLIP:
        templates = cls.templates(dataset)
        print(f"Prompts: {templates}")
        return FixedTextCLIP(clip_model, [fill(template, dataset.classnames) for template in templates])


@TRAINER_REGISTRY.register()
class ZeroshotCLIP2(ZeroshotCLIP):
    """The mean feature over seven ImageNet templates and, except for ImageNet itself, the dataset's own."""

    @classmethod
    def templates(cls, dataset: Any) -> list[str]:
        own = [] if type(dataset).__name__ == "ImageNet" else super().templates(dataset)
        return IMAGENET_TEMPLATES_SELECT + own
