"""The reference for the fast path: every class separately, padded to the context length, with explicit attention.

This is the computation as defined in the papers and implemented in the published code. It shares the parameters of a
model of ours, but none of its code for prompts, attention or pooling. The tests use it as the oracle, `benchmarks.step`
and `benchmarks.cocoop` as the baseline.

Letters: B images, K classes, L context length, P patches, M prompt tokens, D width, H heads, E joint width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clip.model import CLIP, require_vit
from clip.text import TextEncoder
from clip.transformer import ResidualAttentionBlock, Transformer, VisionTransformer
from trainers.prompted_clip import FrozenTowersCLIP, unit


def attention(attn: nn.MultiheadAttention, x: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q kᵀ / √Dh + mask) v of `x` (N, L, D), head by head, and the output projection."""
    N, L, D = x.shape
    heads = attn.num_heads
    q, k, v = (x @ attn.in_proj_weight.t() + attn.in_proj_bias).split(D, dim=-1)
    q, k, v = (t.reshape(N, L, heads, D // heads).transpose(1, 2) for t in (q, k, v))  # (N, H, L, Dh)
    scores = q @ k.transpose(-2, -1) / math.sqrt(D // heads)  # (N, H, L, L)
    if mask is not None:
        scores = scores + mask
    out = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(N, L, D)
    return attn.out_proj(out)


def run_blocks(transformer: Transformer, x: Tensor, mask: Tensor | None, deep: Sequence[Tensor], start: int) -> Tensor:
    """All blocks over all tokens; `deep[i-1]` overwrites the tokens from `start` on before block i."""
    for i, block in enumerate(transformer.resblocks):
        assert isinstance(block, ResidualAttentionBlock)
        if 0 < i <= len(deep):
            prompts = deep[i - 1].to(x.dtype).expand(x.shape[0], -1, -1)
            first = start if start >= 0 else x.shape[1] + start
            x = torch.cat([x[:, :first], prompts, x[:, first + prompts.shape[1] :]], dim=1)
        x = x + attention(block.attn, block.ln_1(x), mask)
        x = x + block.mlp(block.ln_2(x))
    return x


def encode_text(tower: TextEncoder, prompts: Tensor, eot: Tensor, deep: Sequence[Tensor]) -> Tensor:
    """Text features (K, E) of embedded prompts (K, L, D) whose EOT is at `eot` (K,)."""
    L = prompts.shape[1]
    mask = torch.full((L, L), float("-inf"), device=prompts.device).triu(1)
    x = (prompts + tower.positional_embedding[:L]).to(tower.text_projection.dtype)
    x = run_blocks(tower.transformer, x, mask.to(x.dtype), deep, start=1)
    return tower.ln_final(x)[torch.arange(len(x)), eot] @ tower.text_projection


def encode_image(tower: VisionTransformer, image: Tensor, ctx: Tensor | None, deep: Sequence[Tensor]) -> Tensor:
    """Image features (B, E), prompt tokens `ctx` (M, D) after the patches."""
    x = tower.conv1(image.to(tower.conv1.weight.dtype)).flatten(2).transpose(1, 2)  # (B, P, D)
    x = torch.cat([tower.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
    x = x + tower.positional_embedding.to(x.dtype)
    if ctx is not None:
        x = torch.cat([x, ctx.to(x.dtype).expand(len(x), -1, -1)], dim=1)  # (B, 1 + P + M, D)
    x = run_blocks(tower.transformer, tower.ln_pre(x), None, deep, start=-len(ctx) if ctx is not None else 0)
    return tower.ln_post(x)[:, 0] @ tower.proj


def pad_prompts(sequences: Sequence[Sequence[int]], embeddings: Tensor, context_length: int) -> tuple[Tensor, Tensor]:
    """Embedded prompts (K, L, D) and their EOT positions (K,).

    Args:
        sequences: tokens of each prompt as indices into `embeddings` (U, D).
    """
    ids = torch.tensor([[*s, *[0] * (context_length - len(s))] for s in sequences], device=embeddings.device)  # (K, L)
    return embeddings[ids], torch.tensor([len(s) - 1 for s in sequences])


class Definitional(nn.Module):
    """A model of ours, computed as it is defined. Subclasses give `forward`: images (B, 3, H, W) to logits (B, K)."""

    def __init__(self, model: FrozenTowersCLIP, clip_model: CLIP):
        super().__init__()
        self.model = model
        self.image_encoder = require_vit(clip_model)
        self.context_length = clip_model.context_length

    def text_features(
        self, sequences: Sequence[Sequence[int]], embeddings: Tensor, deep: Sequence[Tensor] = ()
    ) -> Tensor:
        """(K, E), normalised, of prompts whose tokens are indices into `embeddings` (U, D)."""
        prompts, eot = pad_prompts(sequences, embeddings, self.context_length)
        return unit(encode_text(self.model.text_encoder, prompts, eot, deep))

    def image_features(self, image: Tensor, ctx: Tensor | None = None, deep: Sequence[Tensor] = ()) -> Tensor:
        """(B, E), normalised, with the prompt tokens `ctx` (M, D)."""
        return unit(encode_image(self.image_encoder, image, ctx, deep))
