"""The text tower over packed prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from .layout import PromptLayout

if TYPE_CHECKING:
    from .model import CLIP


class TextEncoder(nn.Module):
    """Text features of K prompts that share a prefix. Holds the text modules of a `CLIP`, no copies.

    Only the prefix once and each prompt's own rows up to EOT pass through the blocks, and in the last block
    the EOT rows alone, with results equal to computing every prompt alone at full length.
    """

    def __init__(self, clip_model: CLIP):
        super().__init__()
        self.transformer = clip_model.transformer
        self.positional_embedding = clip_model.positional_embedding
        self.ln_final = clip_model.ln_final
        self.text_projection = clip_model.text_projection

    def forward(self, embeddings: Tensor, layout: PromptLayout, deep: Sequence[Tensor] | None = None) -> Tensor:
        """Text features (K, E), or (G, K, E) for G sets of learned rows; not normalised.

        Args:
            embeddings: (U + C, Dt) or (G, U + C, Dt): the rows of `layout.vocabulary`, then the learned ones.
            deep: tokens (M, Dt) that replace rows 1 … M before block 1, 2, …; None takes the tower's own.
        """
        x = embeddings if embeddings.dim() == 3 else embeddings[None]
        x = x.index_select(1, layout.rows) + self.positional_embedding[layout.positions]  # (G, S + R, Dt)
        x = x.to(self.text_projection.dtype)
        x = self.transformer.encode(x, layout, deep)  # (G, K, Dt)
        x = (self.ln_final(x) @ self.text_projection).index_select(1, layout.restore)  # (G, K, E)
        return x if embeddings.dim() == 3 else x[0]
