"""CoCoOp: conditional context optimization (Zhou et al., CVPR 2022, arXiv 2203.05557).

Letters: B images, U token embeddings, M prompt tokens, Dt text width, E joint width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from clip.model import CLIP
from dassl.config.checks import text
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY

from .base import ClipTrainer
from .conditional import ConditionalCLIP, ConditionalContext
from .precision import PRECISIONS
from .prompts import TEXT_CTX, context_length, context_options


class ConditionalPromptLearner(ConditionalContext):
    """A context that every image shifts: `ctx` plus `meta_net` of the image's feature (equation 3)."""

    def __init__(self, classnames: Sequence[str], clip_model: CLIP, n_ctx: int, ctx_init: str):
        super().__init__(classnames, clip_model, n_ctx, ctx_init)
        E, Dt = clip_model.text_projection.shape[1], clip_model.transformer.width
        layers = [("linear1", nn.Linear(E, E // 16)), ("relu", nn.ReLU()), ("linear2", nn.Linear(E // 16, Dt))]
        self.meta_net = nn.Sequential(OrderedDict(layers))

    def draw_as_published(self) -> list[nn.Parameter]:
        drawn = super().draw_as_published()
        for layer in self.meta_net:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        return [*drawn, *self.meta_net.parameters()]

    def embeddings_for(self, image_features: Tensor) -> Tensor:
        """(B, U + M, Dt): the tokens' embeddings, then each image's context."""
        ctx = self.ctx + self.meta_net(image_features)[:, None]  # (B, M, Dt)
        tokens = self.token_embeddings.expand(ctx.shape[0], -1, -1)  # (B, U, Dt)
        return torch.cat([tokens, ctx.to(tokens.dtype)], dim=1)


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.COCOOP = CfgNode()
    cfg.TRAINER.COCOOP.N_CTX = 16  # context tokens; CTX_INIT's word count where that is given
    cfg.TRAINER.COCOOP.CTX_INIT = ""  # words to start the context from; "" is random
    cfg.TRAINER.COCOOP.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp


declare_ranges("TRAINER.COCOOP", N_CTX=TEXT_CTX, CTX_INIT=text(), PREC=PRECISIONS)


@TRAINER_REGISTRY.register()
class CoCoOp(ClipTrainer):
    """Learned: the context and `meta_net`."""

    config_node = "COCOOP"

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> ConditionalCLIP:
        n_ctx = context_length(options.CTX_INIT, options.N_CTX)
        learner = ConditionalPromptLearner(dataset.classnames, clip_model, n_ctx, options.CTX_INIT)
        return ConditionalCLIP(clip_model, learner)

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        ctx, hidden = shapes.get("ctx", ()), shapes.get("meta_net.linear1.weight", ())
        if len(ctx) != 2 or len(hidden) != 2 or hidden[0] != hidden[1] // 16:
            return None
        return context_options(ctx[0], options)

    def checkpoint_root(self) -> nn.Module:
        return self.model.prompt_learner
