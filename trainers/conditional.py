"""A CLIP whose prompts depend on the image: B × K text features, computed in pieces that fit into memory.

Letters: B images, K classes, U tokens of a table of embeddings, Dt text width, E joint width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from clip.model import CLIP
from clip.packing import PackedPrompts

from .memory import available_bytes, tokens_that_fit
from .prompted_clip import FrozenTowersCLIP, unit, without_autocast
from .prompts import ContextLearner


class ConditionalContext(ContextLearner, ABC):
    """A prompt learner that each image has embeddings of its own from."""

    @abstractmethod
    def embeddings_for(self, image_features: Tensor) -> Tensor:
        """(B, U, Dt) tables of embeddings for normalised image features (B, E)."""


class ConditionalCLIP(FrozenTowersCLIP):
    """Logits where every image has its own text features.

    A piece is some images by some classes: as many images as fit, and part of the classes where one image's do not fit.
    When more than one piece needs a backward pass, each is computed again there instead of being kept.
    """

    capturable = False  # the pieces depend on how much memory is free

    def __init__(self, clip_model: CLIP, prompt_learner: ConditionalContext):
        super().__init__(clip_model)
        self.prompt_learner = prompt_learner
        self._parts: dict[int, list[PackedPrompts]] = {1: [prompt_learner.layout]}

    def layouts(self, parts: int) -> list[PackedPrompts]:
        """The classes in that many parts of equal count."""
        if parts not in self._parts:
            whole, sequences = self.prompt_learner.layout, self.prompt_learner.sequences
            count = math.ceil(len(sequences) / parts)
            self._parts[parts] = [
                PackedPrompts(sequences[i : i + count]).to(whole.eot.device) for i in range(0, len(sequences), count)
            ]
        return self._parts[parts]

    def piece_sizes(self, images: int, backward: bool) -> tuple[int, int, bool]:
        """Images in a piece, parts of the classes, and whether pieces are computed again in the backward pass."""
        text, tokens = self.text_encoder.transformer, self.prompt_learner.layout.num_tokens
        fit = tokens_that_fit(available_bytes(self.logit_scale.device), text.width, text.layers, backward)
        if images * tokens <= fit:
            return images, 1, False
        parts = math.ceil(tokens / fit)
        largest = max(layout.num_tokens for layout in self.layouts(parts))  # fewer classes share less
        return max(1, fit // tokens), math.ceil(parts * max(1, largest / fit)), backward

    def score(self, image_features: Tensor, layout: PackedPrompts) -> Tensor:
        """Logits (B, K) of normalised image features (B, E) over the classes of one layout."""
        text = unit(self.text_encoder(self.prompt_learner.embeddings_for(image_features), layout))  # (B, K, E)
        with without_autocast(text.device):
            return self.logit_scale.exp().float() * (text @ image_features[:, :, None]).squeeze(-1)

    def from_features(self, features: Tensor) -> Tensor:
        features = self.adapt_image(features)  # (B, E)
        images, parts, recompute = self.piece_sizes(len(features), torch.is_grad_enabled())
        logits = []
        for some in features.split(images):
            pieces = [
                checkpoint(self.score, some, layout, use_reentrant=False) if recompute else self.score(some, layout)
                for layout in self.layouts(parts)
            ]
            logits.append(torch.cat(pieces, dim=1))
        return torch.cat(logits)  # (B, K)
