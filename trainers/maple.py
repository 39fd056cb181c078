"""MaPLe: multi-modal prompt learning (Khattak et al., CVPR 2023, arXiv 2210.03117)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yacs.config import CfgNode

from clip.model import CLIP
from dassl.config.checks import text, whole
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY

from .base import ClipTrainer
from .coupled import MultiModalPromptLearner, coupled_options
from .precision import PRECISIONS
from .prompted_clip import PromptedCLIP
from .prompts import TEXT_CTX


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.MAPLE = CfgNode()
    cfg.TRAINER.MAPLE.N_CTX = 2  # prompt tokens in each tower
    cfg.TRAINER.MAPLE.CTX_INIT = "a photo of a"  # words whose first N_CTX tokens start the context; "" is random
    cfg.TRAINER.MAPLE.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp
    cfg.TRAINER.MAPLE.PROMPT_DEPTH = 9  # layers that get prompts of their own, 1 (input only) … number of layers


declare_ranges("TRAINER.MAPLE", N_CTX=TEXT_CTX, CTX_INIT=text(), PREC=PRECISIONS, PROMPT_DEPTH=whole(1, 100))


@TRAINER_REGISTRY.register()
class MaPLe(ClipTrainer):
    """Learned: ctx, proj, J-1 text prompts and their J-1 projections."""

    config_node = "MAPLE"
    registered_name = "MultiModalPromptLearner"

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> PromptedCLIP:
        learner = MultiModalPromptLearner(
            dataset.classnames, clip_model, options.N_CTX, options.CTX_INIT, options.PROMPT_DEPTH
        )
        return PromptedCLIP(clip_model, learner)

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        of_coprompt = "adapter_text.fc.0.weight" in shapes
        return None if of_coprompt else coupled_options(shapes)
