"""KgCoOp: knowledge-guided context optimization (Yao et al., CVPR 2023, arXiv 2303.13283)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from yacs.config import CfgNode

from clip.model import CLIP
from dassl.config.checks import flag, number, text
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.state import has_part

from .base import ClipTrainer
from .graphs import capturable
from .precision import PRECISIONS
from .prompts import TEXT_CTX, ContextLearner, context_length, context_options
from .teacher import KGCOOP_TEMPLATES, GuidedCLIP, template_of


def extend_cfg(cfg: CfgNode) -> None:
    """The published code reads its options from TRAINER.COOP."""
    cfg.TRAINER.KGCOOP = CfgNode()
    cfg.TRAINER.KGCOOP.N_CTX = 4  # context tokens; CTX_INIT's word count where that is given
    cfg.TRAINER.KGCOOP.CSC = False  # class-specific contexts instead of one for all classes
    cfg.TRAINER.KGCOOP.CTX_INIT = "a photo of a"  # words to start the context from; "" is random
    cfg.TRAINER.KGCOOP.W = 8.0  # weight of the distance to the hand-written prompts' features
    cfg.TRAINER.KGCOOP.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp


declare_ranges("TRAINER.KGCOOP", N_CTX=TEXT_CTX, CSC=flag(), CTX_INIT=text(), W=number(0), PREC=PRECISIONS)


@TRAINER_REGISTRY.register()
class KgCoOp(ClipTrainer):
    """Learned: the context, whose text features stay close to those of hand-written prompts (equation 5)."""

    config_node = "KGCOOP"
    idle = ("bias_vectors", "meta_net.linear1")  # in published checkpoints, but unused
    not_loaded = (*ClipTrainer.not_loaded, *idle)

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> GuidedCLIP:
        n_ctx = context_length(options.CTX_INIT, options.N_CTX)
        learner = ContextLearner(dataset.classnames, clip_model, n_ctx, options.CTX_INIT, options.CSC)
        return GuidedCLIP(clip_model, learner, dataset.classnames, template_of(dataset, KGCOOP_TEMPLATES))

    @capturable
    def losses(self, image: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits, distance = self.model.logits_and_distance(image)
        score = self.cfg.TRAINER.KGCOOP.W * distance
        return logits, {"ce": self.cross_entropy(logits, label), "score": score}

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        learned = {name for name in shapes if not has_part(name, cls.idle)}
        if learned != {"ctx"} or len(shapes["ctx"]) not in (2, 3):
            return None
        return context_options(shapes["ctx"][-2], options) | {"CSC": len(shapes["ctx"]) == 3}

    def checkpoint_root(self) -> nn.Module:
        return self.model.prompt_learner
