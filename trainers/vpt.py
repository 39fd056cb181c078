"""VPT: deep visual prompts (Jia et al., ECCV 2022, arXiv 2203.12119) on CLIP, with a hand-written text prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yacs.config import CfgNode

from clip.model import CLIP, add_vision_prompts
from dassl.config.checks import text, whole
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY

from .base import ClipTrainer
from .checkpoint import tokens_and_depth
from .precision import PRECISIONS
from .prompted_clip import FixedTextCLIP
from .prompts import VISION_CTX, fixed_prompts


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.VPT = CfgNode()
    cfg.TRAINER.VPT.N_CTX_VISION = 2  # prompt tokens in the image tower
    cfg.TRAINER.VPT.CTX_INIT = "a photo of a"  # the fixed words before the class name
    cfg.TRAINER.VPT.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp
    cfg.TRAINER.VPT.PROMPT_DEPTH_VISION = 1  # layers with prompts of their own, 1 (input only) … number of layers


declare_ranges(
    "TRAINER.VPT", N_CTX_VISION=VISION_CTX, CTX_INIT=text(), PREC=PRECISIONS, PROMPT_DEPTH_VISION=whole(1, 100)
)


@TRAINER_REGISTRY.register()
class VPT(ClipTrainer):
    """Learned: the image tower's own `VPT` tokens and, before deeper blocks, `VPT_shallow`."""

    config_node = "VPT"

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> FixedTextCLIP:
        add_vision_prompts(clip_model, options.N_CTX_VISION, options.PROMPT_DEPTH_VISION)
        return FixedTextCLIP(clip_model, [fixed_prompts(options.CTX_INIT, dataset.classnames)])

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        vision = tokens_and_depth(shapes, "image")
        if not vision or tokens_and_depth(shapes, "text"):
            return None
        return {"N_CTX_VISION": vision[0], "PROMPT_DEPTH_VISION": vision[1]}
