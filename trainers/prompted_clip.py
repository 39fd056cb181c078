"""A frozen CLIP with prompts: logits of images over the prompts' classes.

Letters: B images, K classes, E joint width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clip.layout import PromptLayout
from clip.model import CLIP
from clip.text import TextEncoder

from .prompts import ContextLearner, tokenize


def unit(x: Tensor) -> Tensor:
    """`x` in fp32 with every row (last dimension) of length one."""
    return F.normalize(x.float(), dim=-1)


def without_autocast(device: torch.device) -> torch.autocast:
    """The context for logits: a hundred times a cosine, they need all of fp32's digits."""
    return torch.autocast(device.type, enabled=False)


class FrozenTowersCLIP(nn.Module):
    """exp(logit_scale) · image feature · text featureᵀ, both normalised. Subclasses give `compute_text_features`.

    Text features are kept while nothing that they depend on changes: over an evaluation, or, where the text has
    nothing to learn, over training.
    """

    def __init__(self, clip_model: CLIP):
        super().__init__()
        self.image_encoder = clip_model.visual
        self.text_encoder = TextEncoder(clip_model)
        self.logit_scale = clip_model.logit_scale
        self._kept: tuple[Any, Tensor] | None = None

    def compute_text_features(self) -> Tensor:
        """(K, E), normalised."""
        raise NotImplementedError

    def text_parameters(self) -> list[nn.Parameter]:
        """The learned parameters that the text features depend on."""
        return [p for p in self.text_encoder.parameters() if p.requires_grad]

    def text_features(self) -> Tensor:
        """(K, E), normalised; computed once per state of the learned parameters."""
        learned = self.text_parameters()
        if learned and torch.is_grad_enabled():
            return self.compute_text_features()
        state = [(p.data_ptr(), p._version) for p in learned]
        if self._kept is None or self._kept[0] != state:
            with torch.no_grad():
                self._kept = (state, self.compute_text_features())
        return self._kept[1]

    def image_features(self, image: Tensor) -> Tensor:
        """(B, E), normalised."""
        return unit(self.image_encoder(image))

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K) in fp32 of images (B, 3, H, W)."""
        image_features, text_features = self.image_features(image), self.text_features()
        with without_autocast(image.device):
            return self.logit_scale.exp().float() * image_features @ text_features.t()

    def train(self, mode: bool = True) -> FrozenTowersCLIP:
        """The frozen towers stay in eval mode (a ResNet's running statistics are not touched)."""
        super().train(mode)
        self.image_encoder.eval()
        self.text_encoder.eval()
        self._kept = None
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> FrozenTowersCLIP:
        self._kept = None
        return super()._apply(fn, recurse)


class PromptedCLIP(FrozenTowersCLIP):
    """Text and image prompts from a prompt learner."""

    def __init__(self, clip_model: CLIP, prompt_learner: ContextLearner):
        super().__init__(clip_model)
        self.prompt_learner = prompt_learner

    def text_parameters(self) -> list[nn.Parameter]:
        return [*super().text_parameters(), *self.prompt_learner.parameters()]

    def compute_text_features(self) -> Tensor:
        embeddings, deep = self.prompt_learner.text_prompts()
        return unit(self.text_encoder(embeddings, self.prompt_learner.layout, deep))

    def image_features(self, image: Tensor) -> Tensor:
        ctx, deep = self.prompt_learner.vision_prompts()
        return unit(self.image_encoder(image) if ctx is None else self.image_encoder(image, ctx, deep))


class FixedTextCLIP(FrozenTowersCLIP):
    """Hand-written prompts. A class's feature is the mean of its normalised features, normalised again.

    Args:
        texts: for each template the prompts of the K classes.
    """

    def __init__(self, clip_model: CLIP, texts: Sequence[Sequence[str]]):
        super().__init__(clip_model)
        self.layouts = nn.ModuleList(PromptLayout(tokenize(of_template)) for of_template in texts)
        for i, layout in enumerate(self.layouts):
            rows = clip_model.token_embedding(layout.get_buffer("vocabulary")).detach()
            self.register_buffer(f"token_rows_{i}", rows, persistent=False)

    def compute_text_features(self) -> Tensor:
        rows = [self.get_buffer(f"token_rows_{i}") for i in range(len(self.layouts))]
        features = [unit(self.text_encoder(r, layout)) for r, layout in zip(rows, self.layouts, strict=True)]  # (K, E)
        return unit(torch.stack(features).mean(dim=0))
