"""The text tower over packed prompts."""

from __future__ import annotations

from torch import Tensor, nn

from .layout import DeepPrompts
from .packing import PackedPrompts
from .transformer import OWN, Own, Transformer


class TextEncoder(nn.Module):
    """Text features of K packed prompts, through a CLIP's text modules (shared, not copied).

    The blocks compute tokens that prompts begin with together once, and nothing after EOT; the last block computes only
    the EOT tokens. The results equal those of computing every prompt separately at full length.
    """

    def __init__(
        self,
        transformer: Transformer,
        positional_embedding: nn.Parameter,
        ln_final: nn.LayerNorm,
        text_projection: nn.Parameter,
    ):
        super().__init__()
        self.transformer = transformer
        self.positional_embedding = positional_embedding
        self.ln_final = ln_final
        self.text_projection = text_projection

    def forward(self, embeddings: Tensor, layout: PackedPrompts, deep: DeepPrompts | Own | None = OWN) -> Tensor:
        """Text features (K, E), or (G, K, E) for G tables of embeddings; not normalised.

        Args:
            embeddings: (U, Dt) or (G, U, Dt), the table that `layout.token_index` points into.
            deep: prompt tokens that enter before given blocks; None for none, `OWN` for the tower's own.

        Raises:
            ValueError: a prompt is longer than the context length.
        """
        longest = max(map(len, layout.sequences))
        if longest > len(self.positional_embedding):
            raise ValueError(
                f"a prompt of {longest} tokens does not fit this CLIP's context length of "
                f"{len(self.positional_embedding)}: shorten the class names, or the words or tokens around them"
            )
        x = embeddings if embeddings.dim() == 3 else embeddings[None]
        x = x.index_select(1, layout.token_index) + self.positional_embedding[layout.positions]  # (G, S + R, Dt)
        x = x.to(self.text_projection.dtype)
        x = self.transformer.encode(x, layout, deep)  # (G, K, Dt)
        x = self.ln_final(x) @ self.text_projection  # (G, K, E)
        return x if embeddings.dim() == 3 else x[0]
