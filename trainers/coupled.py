"""Prompts of both towers, those of the images coupled to those of the texts: what MaPLe learns, and methods on it.

Letters: M prompt tokens, J prompt depth, Dt text width, Dv vision width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clip.draws import draw_tokens
from clip.layout import DeepPrompts
from clip.model import CLIP, require_vit
from clip.transformer import PROMPT_STD, check_prompt_depth

from .prompts import ContextLearner, initial_words


class MultiModalPromptLearner(ContextLearner):
    """Text prompts, and vision prompts coupled to them by linear maps (section 3.2).

    `ctx` (M, Dt) enters the text tower, `proj(ctx)` (M, Dv) the image tower. Before block i, 1 ≤ i ≤ J-1, both
    towers' prompt tokens are replaced: by `compound_prompts_text[i-1]` and its projection.
    """

    def __init__(self, classnames: Sequence[str], clip_model: CLIP, n_ctx: int, ctx_init: str, depth: int):
        super().__init__(classnames, clip_model, n_ctx, initial_words(ctx_init, n_ctx))
        text, vision = clip_model.transformer, require_vit(clip_model).transformer
        check_prompt_depth(depth, min(text.layers, vision.layers), lowest=1)
        Dt, Dv = text.width, vision.width
        self.proj = nn.Linear(Dt, Dv)
        self.compound_prompts_text = nn.ParameterList(
            nn.Parameter(torch.randn(n_ctx, Dt) * PROMPT_STD) for _ in range(depth - 1)
        )
        first = nn.Linear(Dt, Dv)  # all projections start as copies of one
        self.compound_prompt_projections = nn.ModuleList(nn.Linear(Dt, Dv) for _ in range(depth - 1))
        for projection in self.compound_prompt_projections:
            projection.load_state_dict(first.state_dict())

    def draw_as_published(self) -> list[nn.Parameter]:
        drawn = super().draw_as_published()
        self.proj.reset_parameters()
        for tokens in self.compound_prompts_text:
            draw_tokens(tokens)
        first = nn.Linear(self.proj.in_features, self.proj.out_features)
        for projection in self.compound_prompt_projections:
            projection.load_state_dict(first.state_dict())
        maps = [*self.proj.parameters(), *self.compound_prompt_projections.parameters()]
        return [*drawn, *maps, *self.compound_prompts_text]

    def text_prompts(self) -> tuple[Tensor, DeepPrompts]:
        return self.embeddings(), list(self.compound_prompts_text)

    def vision_prompts(self) -> tuple[Tensor, Sequence[Tensor]]:
        coupled = zip(self.compound_prompt_projections, self.compound_prompts_text, strict=True)
        return self.proj(self.ctx), [project(prompt) for project, prompt in coupled]


def coupled_options(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """The options that the learner's tensors of these shapes need; None for other tensors."""
    ctx = shapes.get("prompt_learner.ctx", ())
    if "prompt_learner.proj.weight" not in shapes or len(ctx) != 2:
        return None
    return {"N_CTX": ctx[0], "PROMPT_DEPTH": 1 + sum("compound_prompts_text." in name for name in shapes)}
