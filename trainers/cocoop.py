"""CoCoOp: conditional context optimization (Zhou et al., CVPR 2022, arXiv 2203.05557).

Letters: B images, K classes, M prompt tokens, U token rows, Dt text width, E joint width.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from yacs.config import CfgNode

from clip.layout import PromptLayout
from clip.model import CLIP
from dassl.engine import TRAINER_REGISTRY

from .base import PromptTrainer
from .memory import available_bytes, rows_that_fit
from .prompted_clip import FrozenTowersCLIP, unit, without_autocast
from .prompts import ContextLearner, context_length


class ConditionalPromptLearner(ContextLearner):
    """A context that every image shifts: `ctx` plus `meta_net` of the image's feature (equation 3)."""

    def __init__(self, classnames: Sequence[str], clip_model: CLIP, n_ctx: int, ctx_init: str):
        super().__init__(classnames, clip_model, n_ctx, ctx_init)
        E, Dt = clip_model.text_projection.shape[1], clip_model.transformer.width
        layers = [("linear1", nn.Linear(E, E // 16)), ("relu", nn.ReLU()), ("linear2", nn.Linear(E // 16, Dt))]
        self.meta_net = nn.Sequential(OrderedDict(layers))

    def embeddings_for(self, image_features: Tensor) -> Tensor:
        """(B, U + M, Dt): token rows, then each image's context. Takes normalised image features (B, E)."""
        ctx = self.ctx + self.meta_net(image_features)[:, None]  # (B, M, Dt)
        return torch.cat([self.token_rows.expand(len(ctx), -1, -1), ctx.to(self.token_rows.dtype)], dim=1)


class ConditionalCLIP(FrozenTowersCLIP):
    """Logits where every image has its own text features, B × K of them, computed in pieces that fit into memory.

    A piece is some images by some classes: as many images as fit, and parts of the classes where one image's do not.
    When more than one piece needs a backward pass, each is computed again there instead of being kept.
    """

    def __init__(self, clip_model: CLIP, prompt_learner: ConditionalPromptLearner):
        super().__init__(clip_model)
        self.prompt_learner = prompt_learner
        self._parts: dict[int, list[PromptLayout]] = {1: [prompt_learner.layout]}

    def layouts(self, parts: int) -> list[PromptLayout]:
        """The classes in that many parts of equal count."""
        if parts not in self._parts:
            whole, sequences = self.prompt_learner.layout, self.prompt_learner.sequences
            count = math.ceil(len(sequences) / parts)
            self._parts[parts] = [
                PromptLayout(sequences[i : i + count], whole.vocabulary.tolist()).to(whole.vocabulary.device)
                for i in range(0, len(sequences), count)
            ]
        return self._parts[parts]

    def piece_sizes(self, images: int, backward: bool) -> tuple[int, int, bool]:
        """Images in a piece, parts of the classes, and whether pieces are computed again in the backward pass."""
        text, rows = self.text_encoder.transformer, self.prompt_learner.layout.num_rows
        fit = rows_that_fit(available_bytes(self.logit_scale.device), text.width, text.layers, backward)
        if images * rows <= fit:
            return images, 1, False
        return max(1, fit // rows), math.ceil(rows / fit), backward

    def score(self, image_features: Tensor, layout: PromptLayout) -> Tensor:
        """Logits (B, K) of normalised image features (B, E) over the classes of one layout."""
        text = unit(self.text_encoder(self.prompt_learner.embeddings_for(image_features), layout))  # (B, K, E)
        with without_autocast(text.device):
            return self.logit_scale.exp().float() * (text @ image_features[:, :, None]).squeeze(-1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.image_features(image)  # (B, E)
        images, parts, recompute = self.piece_sizes(len(features), torch.is_grad_enabled())
        logits = []
        for some in features.split(images):
            pieces = [
                checkpoint(self.score, some, layout, use_reentrant=False) if recompute else self.score(some, layout)
                for layout in self.layouts(parts)
            ]
            logits.append(torch.cat(pieces, dim=1))
        return torch.cat(logits)  # (B, K)


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.COCOOP = CfgNode()
    cfg.TRAINER.COCOOP.N_CTX = 16  # context tokens; CTX_INIT's word count where that is given
    cfg.TRAINER.COCOOP.CTX_INIT = ""  # words to start the context from; "" is random
    cfg.TRAINER.COCOOP.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp


@TRAINER_REGISTRY.register()
class CoCoOp(PromptTrainer):
    """Learned: the context and `meta_net`."""

    node = "COCOOP"

    def build_prompted_clip(self, options: CfgNode, classnames: list[str], clip_model: CLIP) -> ConditionalCLIP:
        n_ctx = context_length(options.CTX_INIT, options.N_CTX)
        learner = ConditionalPromptLearner(classnames, clip_model, n_ctx, options.CTX_INIT)
        return ConditionalCLIP(clip_model, learner)

    def registered_module(self) -> nn.Module:
        return self.model.prompt_learner
