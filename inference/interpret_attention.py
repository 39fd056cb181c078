"""Where the image tower looks: the attention of the class token and of the prompt tokens over the picture.

Letters: B images, L tokens, P patches, H heads, D width, Dh = D // H.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clip.layout import DenseLayout, PromptTokens
from clip.transformer import VisionTransformer
from trainers.prompted_clip import FrozenTowersCLIP

CLASS, PROMPT = 0, -1  # in `RecordingLayout.kinds`; patches have 1 … P


@dataclass(frozen=True)
class Attention:
    """Attention of one block over the patches, mean over its heads; a row sums to at most one.

    The rest goes to the class token and the prompt tokens.
    """

    of_class: Tensor  # (B, side, side)
    of_prompts: Tensor | None  # (B, side, side), mean over the prompt tokens; None where there are none


class RecordingLayout(DenseLayout):
    """A layout that computes attention as softmax(q kᵀ / √Dh) v by itself, and keeps the weights over the patches.

    It follows which tokens are patches while prompt tokens are put among them.
    """

    def __init__(self, like: DenseLayout, patches: int):
        super().__init__(like.causal, like.prompts_last)
        vars(self).update(vars(like))
        self.patches = patches
        self.kinds: list[int] = []
        self.blocks: list[Attention] = []

    def enter(self, x: Tensor, prompt: PromptTokens) -> tuple[Tensor, DenseLayout]:
        kinds, M = self._kinds(x), prompt.tokens.shape[-2]
        start = prompt.position
        if start is None:
            start = len(kinds) - (0 if prompt.insert else M) if self.prompts_last else 1
        kinds[start : start if prompt.insert else start + M] = [PROMPT] * M
        return super().enter(x, prompt)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        return self._attend(q, k, v, heads)

    def attend_pooled(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        return self._attend(q, k, v, heads)  # the queries are the first tokens

    def _kinds(self, x: Tensor) -> list[int]:
        if not self.kinds:
            self.kinds = [CLASS, *range(1, self.patches + 1), *[PROMPT] * (x.shape[1] - 1 - self.patches)]
        return self.kinds

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        kinds = torch.tensor(self._kinds(k))  # (L,)
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))  # (B, H, L, Dh)
        weights = (q.float() @ k.float().transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)  # (B, H, Q, L)
        side = round(self.patches**0.5)
        grid = weights.mean(dim=1)[:, :, kinds > CLASS].unflatten(-1, (side, side)).cpu()  # (B, Q, side, side)
        queries = kinds[: q.shape[2]]
        prompts = grid[:, queries == PROMPT]
        of_prompts = prompts.mean(dim=1) if prompts.shape[1] else None
        self.blocks.append(Attention(grid[:, queries == CLASS].mean(dim=1), of_prompts))
        return (weights.to(v.dtype) @ v).transpose(1, 2).flatten(-2)  # (B, Q, D)


@torch.no_grad()
def attention_maps(model: FrozenTowersCLIP, images: Tensor) -> list[Attention]:
    """The attention of each block, for images (B, 3, H, W).

    Raises:
        ValueError: the image tower is a ResNet.
    """
    tower = model.image_encoder
    if not isinstance(tower, VisionTransformer):
        raise ValueError("a ResNet has no class token and no patches that attend to each other")
    transformer, patches = tower.transformer, (tower.input_resolution // tower.conv1.kernel_size[0]) ** 2
    own, used = transformer.encode, []

    def recorded(x: Tensor, layout: DenseLayout, *given: Any, **named: Any) -> Tensor:
        used.append(RecordingLayout(layout, patches))
        return own(x, used[-1], *given, **named)

    transformer.encode = recorded  # type: ignore[method-assign, assignment]
    try:
        model.encode_image(images)
    finally:
        del transformer.encode
    return used[-1].blocks
