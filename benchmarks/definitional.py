"""The reference for the fast path: every class separately, padded to the context length, with explicit attention.

This is the computation as defined in the papers and implemented in the published code. It shares the parameters of a
model of ours, but none of its code for prompts, attention or pooling. The tests use it as the oracle, `benchmarks.step`
and `benchmarks.cocoop` as the baseline.

Letters: B images, K classes, L context length, P patches, M prompt tokens, D width, H heads, E joint width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from clip.layout import DeepPrompts, PromptTokens
from clip.model import CLIP, require_vit
from clip.packing import PackedPrompts
from clip.text import TextEncoder
from clip.transformer import OWN, Own, QuickGELU, ResidualAttentionBlock, Transformer, VisionTransformer
from trainers.prompted_clip import FrozenTowersCLIP, unit

Model = TypeVar("Model", bound=nn.Module)


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


def feed_forward(mlp: nn.Sequential, x: Tensor) -> Tensor:
    """The block's MLP; QuickGELU as it is written, x · sigmoid(1.702 x)."""
    for layer in mlp:
        x = x * torch.sigmoid(1.702 * x) if isinstance(layer, QuickGELU) else layer(x)
    return x


def run_blocks(transformer: Transformer, x: Tensor, causal: bool, deep: DeepPrompts, start: int) -> Tensor:
    """All blocks over all tokens. Before given blocks some are overwritten, from `start` on unless told else.

    Tokens may also be inserted, which makes the sequences and the causal mask longer, or mixed with what is there.
    """
    entering = deep if isinstance(deep, Mapping) else {i: PromptTokens(t) for i, t in enumerate(deep, start=1)}
    for i, block in enumerate(transformer.resblocks):
        assert isinstance(block, ResidualAttentionBlock)
        if i in entering:
            tokens, position, insert, weight = entering[i]
            prompts = tokens.to(x.dtype).expand(x.shape[0], -1, -1)
            first = start if position is None else position
            first = first if first >= 0 else x.shape[1] + first
            last = first if insert else first + prompts.shape[1]
            if weight != 1:
                prompts = weight * prompts + (1 - weight) * x[:, first:last]
            x = torch.cat([x[:, :first], prompts, x[:, last:]], dim=1)
        L = x.shape[1]
        mask = torch.full((L, L), float("-inf"), device=x.device, dtype=x.dtype).triu(1) if causal else None
        x = x + attention(block.attn, block.ln_1(x), mask)
        x = x + feed_forward(block.mlp, block.ln_2(x))
    return x


def encode_text(tower: TextEncoder, prompts: Tensor, eot: Tensor, deep: DeepPrompts) -> Tensor:
    """Text features (K, E) of embedded prompts (K, L, D) whose EOT is at `eot` (K,)."""
    L = prompts.shape[1]
    x = (prompts + tower.positional_embedding[:L]).to(tower.text_projection.dtype)
    x = run_blocks(tower.transformer, x, True, deep, start=1)  # (K, L, D), longer by the inserted tokens
    return tower.ln_final(x)[torch.arange(len(x)), eot + x.shape[1] - L] @ tower.text_projection


def image_tokens(tower: VisionTransformer, image: Tensor, ctx: Tensor | None, deep: DeepPrompts) -> Tensor:
    """All tokens (B, L, D) after the last block, prompt tokens `ctx` (M, D) after the patches."""
    x = tower.conv1(image.to(tower.conv1.weight.dtype)).flatten(2).transpose(1, 2)  # (B, P, D)
    x = torch.cat([tower.class_embedding.to(x.dtype).expand(len(x), 1, -1), x], dim=1)
    x = x + tower.positional_embedding.to(x.dtype)
    if ctx is not None:
        x = torch.cat([x, ctx.to(x.dtype).expand(len(x), -1, -1)], dim=1)  # (B, 1 + P + M, D)
    return run_blocks(tower.transformer, tower.ln_pre(x), False, deep, start=-len(ctx) if ctx is not None else 0)


def encode_image(tower: VisionTransformer, image: Tensor, ctx: Tensor | None, deep: DeepPrompts) -> Tensor:
    """Image features (B, E), of the class token."""
    return tower.ln_post(image_tokens(tower, image, ctx, deep))[:, 0] @ tower.proj


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


# ---- any method, over towers that compute by definition ----------------------------------------------------------


def _own_prompts(transformer: Transformer) -> dict[int, PromptTokens]:
    """What the blocks hold themselves."""
    blocks = enumerate(transformer.resblocks)
    return {i: PromptTokens(block.get_parameter("VPT_shallow")) for i, block in blocks if hasattr(block, "VPT_shallow")}


class DefinitionalTextEncoder(TextEncoder):
    """The text tower, every prompt alone and padded to the context length."""

    def forward(self, embeddings: Tensor, layout: PackedPrompts, deep: DeepPrompts | Own | None = OWN) -> Tensor:
        if embeddings.dim() == 3:
            return torch.stack([self(table, layout, deep) for table in embeddings])
        prompts, eot = pad_prompts(layout.sequences, embeddings, len(self.positional_embedding))
        return encode_text(self, prompts, eot, _own_prompts(self.transformer) if isinstance(deep, Own) else deep or ())


class DefinitionalVisionTransformer(VisionTransformer):
    """The image tower with explicit attention, every token through every block."""

    def encode(
        self, image: Tensor, ctx: Tensor | Own | None = OWN, deep: DeepPrompts | Own | None = OWN, pooled: int = 1
    ) -> Tensor:
        ctx = self.VPT if isinstance(ctx, Own) else ctx
        entering = _own_prompts(self.transformer) if isinstance(deep, Own) else deep or ()
        return image_tokens(self, image, ctx, entering)[:, :pooled]


def _as(module: Model, kind: type[Model]) -> Model:
    """The same module, parameters and submodules shared, as an instance of another class."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    twin.__class__ = kind
    return twin


def learns_text(model: FrozenTowersCLIP) -> bool:
    """Whether the text features depend on something learned, so that every step computes them anew."""
    return any(tensor.requires_grad for tensor in model.text_tensors())


def by_definition(model: FrozenTowersCLIP) -> FrozenTowersCLIP:
    """A method's model whose towers compute by definition, and whose learned text is encoded again in every call.

    It shares all parameters with `model`.
    """

    def text_features(self: FrozenTowersCLIP) -> Tensor:
        if learns_text(self):
            return self.compute_text_features()
        return type(model).text_features(self)

    kind = type(f"Definitional{type(model).__name__}", (type(model),), {"text_features": text_features})
    twin = _as(model, kind)
    twin.text_encoder = _as(model.text_encoder, DefinitionalTextEncoder)
    twin.image_encoder = _as(model.image_encoder, DefinitionalVisionTransformer)
    return twin
