"""How the tokens of many sequences are laid out in one tensor, and how they attend to each other.

Letters: N sequences, L tokens of a sequence, M prompt tokens, D width, H heads, Dh = D // H.

A transformer (`clip.transformer.Transformer`) needs four things from a layout: `enter` puts prompt tokens in, `attend`
is attention among all tokens, `pool` picks the tokens that the tower's feature is read from, and `attend_pooled` is
attention with those tokens alone as queries, for the last block. `DenseLayout` is for sequences of one length;
`clip.packing.PackedPrompts` packs prompts of any length without padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


class PromptTokens(NamedTuple):
    """Tokens that enter a tower before a block."""

    tokens: Tensor  # (M, D), or (N, M, D): one set for each sequence (image or prompt)
    position: int | None = None  # of the first one; None: where the tower keeps its prompts
    insert: bool = False  # between the tokens that are there, instead of replacing M of them
    weight: float = 1.0  # share of these tokens; the rest is what the previous block left there


# What enters before a block, by the index of the block; or tokens (M, D) that replace the prompt tokens before block 1,
# 2, …, as published code passes them.
DeepPrompts = Mapping[int, PromptTokens] | Sequence[Tensor]


def entering_by_block(deep: DeepPrompts) -> Mapping[int, PromptTokens]:
    """`deep` by block, whichever of its two forms it has."""
    return deep if isinstance(deep, Mapping) else {i: PromptTokens(t) for i, t in enumerate(deep, start=1)}


class Layout(Protocol):
    """What a transformer asks of the tensor it transforms; see the module's docstring."""

    def enter(self, x: Tensor, prompt: PromptTokens) -> tuple[Tensor, Layout]: ...
    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor: ...
    def pool(self, x: Tensor) -> Tensor: ...
    def attend_pooled(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor: ...


def put_tokens(x: Tensor, tokens: Tensor, start: int, insert: bool = False, weight: float = 1.0) -> Tensor:
    """`x` (…, L, D) with `tokens` (…, M, D), broadcast to it, in place of M tokens from `start` on, or before them."""
    tokens = tokens.to(x.dtype).expand(*x.shape[:-2], *tokens.shape[-2:])
    end = start if insert else start + tokens.shape[-2]
    if weight != 1:
        tokens = weight * tokens + (1 - weight) * x[..., start:end, :]
    return torch.cat([x[..., :start, :], tokens, x[..., end:, :]], dim=-2)


def check_room(prompt: PromptTokens, start: int, length: int) -> None:
    """Raise a ValueError unless the tokens fit at `start` into a sequence of `length` tokens."""
    M = prompt.tokens.shape[-2]
    end = start if prompt.insert else start + M
    if not 1 <= start <= end <= length:
        kind = "inserted" if prompt.insert else "replaced"
        raise ValueError(f"{M} prompt tokens cannot be {kind} at position {start} of a sequence of {length} tokens")
    if prompt.insert and prompt.weight != 1:
        raise ValueError("inserted prompt tokens replace nothing, so that their weight must be 1")


class DenseLayout:
    """Sequences of equal length, (N, L, D): an image's patches, or a text padded to full length.

    Args:
        causal: each token attends only to itself and earlier tokens.
        prompts_last: the tower keeps its prompt tokens at the end (images) instead of after token 0 (texts).
        pooled: how many tokens are read out: the first ones, which are the class token and what entered after it.
    """

    def __init__(self, causal: bool, prompts_last: bool, pooled: int = 1):
        self.causal = causal
        self.prompts_last = prompts_last
        self.pooled = pooled

    def enter(self, x: Tensor, prompt: PromptTokens) -> tuple[Tensor, DenseLayout]:
        start = prompt.position
        if start is None:
            replaced = 0 if prompt.insert else prompt.tokens.shape[-2]
            start = x.shape[1] - replaced if self.prompts_last else 1
        check_room(prompt, start, x.shape[1])
        return put_tokens(x, prompt.tokens, start, prompt.insert, prompt.weight), self

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))  # (N, H, L, Dh)
        out = scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return out.transpose(1, 2).flatten(-2)  # (N, L, D)

    def pool(self, x: Tensor) -> Tensor:
        return x[:, : self.pooled]  # (N, Q, D), Q = pooled

    def attend_pooled(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))  # (N, H, Q | L, Dh)
        return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)  # (N, Q, D)
