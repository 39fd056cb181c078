"""CLIP's transformer towers, with prompt tokens as data.

Letters: B images, P patches, M prompt tokens, L rows of a sequence, D width (Dv vision), E joint width.

Prompts reach a transformer in two ways: as an argument (deep prompts for the blocks after the first), or as
parameters of the tower itself (`add_prompts`), under the names that published checkpoints use: `VPT` for the
tokens at a vision tower's input and `resblocks.<i>.VPT_shallow` for those that enter before block i.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layout import DenseLayout, Layout
from .resnet import check_image_size

PROMPT_STD = 0.02  # learned prompt tokens start as N(0, 0.02)


def check_prompt_length(n_ctx: int) -> None:
    """Raise a ValueError unless there is a prompt token to learn."""
    if n_ctx < 1:
        raise ValueError(f"a prompt of {n_ctx} tokens, expected at least 1: set N_CTX, N_CTX_VISION or N_CTX_TEXT")


def check_prompt_depth(depth: int, layers: int, lowest: int) -> None:
    """Raise a ValueError unless prompts can enter at `depth` layers of a tower of `layers`."""
    if not lowest <= depth <= layers:
        raise ValueError(
            f"prompt depth {depth} does not fit a tower of {layers} layers: choose a depth from {lowest} to {layers}"
        )


class LayerNorm(nn.LayerNorm):
    """LayerNorm computed in fp32 whatever the input's precision, which it returns."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), the activation OpenAI's weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class ResidualAttentionBlock(nn.Module):
    """Attention and MLP, each after a LayerNorm and added to its input.

    `attn` holds the parameters under OpenAI's names; the attention itself is the layout's.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = LayerNorm(width)
        layers = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", QuickGELU()), ("c_proj", nn.Linear(4 * width, width))]
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ln_2 = LayerNorm(width)

    def forward(self, x: Tensor, layout: Layout, pool: bool = False) -> Tensor:
        """All rows of `x` (N, L, D), or with `pool` only those that the layout pools."""
        heads, weight, bias = self.attn.num_heads, self.attn.in_proj_weight, self.attn.in_proj_bias
        h = self.ln_1(x)
        if pool:
            D = x.shape[-1]
            q = F.linear(layout.pool(h), weight[:D], bias[:D])
            k, v = F.linear(h, weight[D:], bias[D:]).chunk(2, dim=-1)
            x, attended = layout.pool(x), layout.attend_pooled(q, k, v, heads)
        else:
            q, k, v = F.linear(h, weight, bias).chunk(3, dim=-1)
            attended = layout.attend(q, k, v, heads)
        x = x + self.attn.out_proj(attended)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks. `causal` is the text tower's: a row sees itself and earlier rows only."""

    def __init__(self, width: int, layers: int, heads: int, causal: bool = False):
        super().__init__()
        self.width, self.layers = width, layers
        self.resblocks = nn.ModuleList(ResidualAttentionBlock(width, heads) for _ in range(layers))
        self.dense = DenseLayout(causal=causal, prompts_last=not causal)

    def add_prompts(self, n_ctx: int, depth: int) -> None:
        """Give blocks 1 … depth-1 learned tokens (n_ctx, D) of their own, `VPT_shallow`."""
        check_prompt_depth(depth, self.layers, lowest=0)
        check_prompt_length(n_ctx)
        for block in list(self.resblocks)[1:depth]:
            block.register_parameter("VPT_shallow", nn.Parameter(torch.randn(n_ctx, self.width) * PROMPT_STD))

    def own_prompts(self) -> list[Tensor]:
        return [block.get_parameter("VPT_shallow") for block in self.resblocks if hasattr(block, "VPT_shallow")]

    def encode(self, x: Tensor, layout: Layout, prompts: Sequence[Tensor] | None = None, pool: bool = True) -> Tensor:
        """Run the blocks over `x` (N, L, D).

        Args:
            prompts: tokens (M, D) or (N, M, D) that replace the prompt rows before block 1, 2, …; None takes
                those the blocks own.
            pool: return only the rows that the layout pools, which saves most of the last block.
        """
        prompts = self.own_prompts() if prompts is None else prompts
        for i, block in enumerate(self.resblocks):
            if 0 < i <= len(prompts):
                x = layout.insert(x, prompts[i - 1])
            x = block(x, layout, pool=pool and i == self.layers - 1)
        return x

    def forward(self, x: Tensor | list[Any]) -> Tensor | list[Any]:
        """The calling convention of OpenAI's package: rows first, (L, N, D), every row returned.

        A list `[x, deep_prompts, counter]`, as prompt-learning code passes it, is answered with a list.
        """
        x, prompts, *rest = x if isinstance(x, list) else (x, None)
        out = self.encode(x.transpose(0, 1), self.dense, prompts, pool=False).transpose(0, 1)  # (L, N, D)
        return [out, prompts, *rest] if rest else out


class VisionTransformer(nn.Module):
    """CLIP's image tower: patches and a class token, whose last state is the image feature (B, E)."""

    VPT: nn.Parameter | None

    def __init__(self, input_resolution: int, patch_size: int, width: int, layers: int, heads: int, output_dim: int):
        super().__init__()
        self.input_resolution, self.output_dim = input_resolution, output_dim
        self.conv1 = nn.Conv2d(3, width, patch_size, patch_size, bias=False)
        scale = width**-0.5
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        patches = (input_resolution // patch_size) ** 2
        self.positional_embedding = nn.Parameter(scale * torch.randn(patches + 1, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, layers, heads)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, output_dim))
        self.register_parameter("VPT", None)

    def add_prompts(self, n_ctx: int, depth: int) -> None:
        """Give the tower learned tokens (n_ctx, Dv): `VPT` at the input, `VPT_shallow` before blocks 1 … depth-1."""
        check_prompt_depth(depth, self.transformer.layers, lowest=1)
        check_prompt_length(n_ctx)
        self.VPT = nn.Parameter(torch.randn(n_ctx, self.transformer.width) * PROMPT_STD)
        self.transformer.add_prompts(n_ctx, depth)

    def forward(self, image: Tensor, ctx: Tensor | None = None, deep: Sequence[Tensor] | None = None) -> Tensor:
        """Image features (B, E).

        Args:
            image: (B, 3, H, W) with H = W = `input_resolution`.
            ctx: prompt tokens (M, Dv) appended after the patches; None takes the tower's own `VPT`.
            deep: tokens that replace them before block 1, 2, …; None takes the tower's own.
        """
        check_image_size(image, self.input_resolution)
        x = self.conv1(image.to(self.conv1.weight.dtype)).flatten(2).transpose(1, 2)  # (B, P, Dv)
        cls = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([cls, x], dim=1) + self.positional_embedding.to(x.dtype)  # (B, 1 + P, Dv)
        ctx = self.VPT if ctx is None else ctx
        if ctx is not None:
            x = torch.cat([x, ctx.to(x.dtype).expand(x.shape[0], -1, -1)], dim=1)  # (B, 1 + P + M, Dv)
        x = self.transformer.encode(self.ln_pre(x), self.transformer.dense, deep)  # (B, 1, Dv)
        return self.ln_post(x[:, 0]) @ self.proj
