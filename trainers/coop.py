"""CoOp: context optimization (Zhou et al., IJCV 2022, arXiv 2109.01134)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from yacs.config import CfgNode

from clip.model import CLIP
from dassl.config.checks import flag, one_of, text
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY

from .base import ClipTrainer
from .base import load_clip as load_clip_to_cpu  # noqa: F401  (published trainer files import it from here)
from .precision import PRECISIONS
from .prompted_clip import PromptedCLIP
from .prompts import POSITIONS, TEXT_CTX, ContextLearner, context_length, context_options


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.COOP = CfgNode()
    cfg.TRAINER.COOP.N_CTX = 16  # context tokens; CTX_INIT's word count where that is given
    cfg.TRAINER.COOP.CSC = False  # class-specific contexts instead of one for all classes
    cfg.TRAINER.COOP.CTX_INIT = ""  # words to start the context from; "" is random
    cfg.TRAINER.COOP.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp
    cfg.TRAINER.COOP.CLASS_TOKEN_POSITION = "end"  # end, middle or front


declare_ranges(
    "TRAINER.COOP",
    N_CTX=TEXT_CTX,
    CSC=flag(),
    CTX_INIT=text(),
    PREC=PRECISIONS,
    CLASS_TOKEN_POSITION=one_of(*POSITIONS),
)


@TRAINER_REGISTRY.register()
class CoOp(ClipTrainer):
    """Learned: the context, shared by all classes or one per class (equations 2 and 3)."""

    config_node = "COOP"

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> PromptedCLIP:
        n_ctx = context_length(options.CTX_INIT, options.N_CTX)
        learner = ContextLearner(
            dataset.classnames, clip_model, n_ctx, options.CTX_INIT, options.CSC, options.CLASS_TOKEN_POSITION
        )
        return PromptedCLIP(clip_model, learner)

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        if shapes.keys() != {"ctx"} or len(shapes["ctx"]) not in (2, 3):
            return None
        return context_options(shapes["ctx"][-2], options) | {"CSC": len(shapes["ctx"]) == 3}

    def checkpoint_root(self) -> nn.Module:
        return self.model.prompt_learner
