"""CLIP's transformer towers, with prompt tokens as data.

Letters: B images, P patches, M prompt tokens, N sequences, L tokens of a sequence, D width (Dv vision), E joint width.

Prompts reach a transformer in two ways: as an argument (`deep`: tokens that enter before given blocks), or as
parameters of the tower itself (`add_prompts`), under the names that published checkpoints use: `VPT` for the tokens at
a vision tower's input and `resblocks.<i>.VPT_shallow` for those that enter before block i. The argument `OWN` selects
the tower's own prompts, None no prompts at all.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .layout import DeepPrompts, DenseLayout, Layout, PromptTokens, entering_by_block
from .resnet import check_image_size

QUICK_GELU = 1.702
PROMPT_STD = 0.02  # learned prompt tokens start as N(0, 0.02)


class Own(enum.Enum):
    """The type of `OWN`: use the tower's own prompts, if it has any."""

    OWN = "own"


OWN = Own.OWN


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
    """LayerNorm computed in the precision of its weights (fp32) and returned in the precision of its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class _QuickGELU(torch.autograd.Function):
    """`QuickGELU` that keeps nothing but its input for the backward pass, and passes over memory less often."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x * QUICK_GELU).sigmoid_().mul_(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # With u = 1.702 x, QuickGELU is SiLU(u) / 1.702 and so has the derivative of SiLU at u
        return torch.ops.aten.silu_backward(grad, x * QUICK_GELU)


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), the activation OpenAI's weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            return _QuickGELU.apply(x)
        return x * torch.sigmoid(QUICK_GELU * x)


class Attention(nn.MultiheadAttention):
    """The projections of attention, under OpenAI's parameter names; the attention itself is the layout's."""

    def project(self, tokens: Tensor, queries: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v (N, L, D) of `tokens`; q (N, Q, D) of `queries` if they are given."""
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if queries is None:
            q, k, v = F.linear(tokens, weight, bias).chunk(3, dim=-1)
        else:
            D = tokens.shape[-1]
            q = F.linear(queries, weight[:D], bias[:D])
            k, v = F.linear(tokens, weight[D:], bias[D:]).chunk(2, dim=-1)
        return q, k, v

    def output(self, attended: Tensor) -> Tensor:
        """What attention adds to its tokens, of what the heads give, (N, L, D)."""
        return self.out_proj(attended)


class ResidualAttentionBlock(nn.Module):
    """Attention and MLP, each after a LayerNorm and added to its input.

    `attn`, `attn.out_proj` and `mlp` act on each token alone, so that a module put in their place is exact in any
    layout; only the layout mixes tokens. So does `beside`, a function whose result for the normalised input is added
    to the block's output; it belongs to whoever sets it.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.beside: Callable[[Tensor], Tensor] | None = None
        self.attn = Attention(width, heads)
        self.ln_1 = LayerNorm(width)
        layers = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", QuickGELU()), ("c_proj", nn.Linear(4 * width, width))]
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ln_2 = LayerNorm(width)

    def forward(self, x: Tensor, layout: Layout, pool: bool = False) -> Tensor:
        """All tokens of `x` (N, L, D), or with `pool` only those that the layout pools."""
        h = self.ln_1(x)
        if pool:
            tokens, x, h = h, layout.pool(x), layout.pool(h)
            q, k, v = self.attn.project(tokens, h)
            attended = layout.attend_pooled(q, k, v, self.attn.num_heads)
        else:
            q, k, v = self.attn.project(h)
            attended = layout.attend(q, k, v, self.attn.num_heads)
        x = x + self.attn.output(attended)
        x = x + self.mlp(self.ln_2(x))
        return x if self.beside is None else x + self.beside(h)


class Transformer(nn.Module):
    """A stack of blocks. With `causal` (the text tower), a token attends only to itself and earlier tokens.

    With `recompute`, a forward pass with gradients keeps the input of each block alone; the backward pass computes the
    block again, with the same random numbers. It takes less memory and a second forward pass.
    """

    def __init__(self, width: int, layers: int, heads: int, causal: bool = False):
        super().__init__()
        self.width, self.layers = width, layers
        self.recompute = False
        self.resblocks = nn.ModuleList(ResidualAttentionBlock(width, heads) for _ in range(layers))
        self.dense = DenseLayout(causal=causal, prompts_last=not causal)

    def add_prompts(self, n_ctx: int, depth: int) -> None:
        """Add learned tokens (n_ctx, D) to each of blocks 1 … depth-1, as `VPT_shallow`."""
        check_prompt_depth(depth, self.layers, lowest=0)
        check_prompt_length(n_ctx)
        for block in list(self.resblocks)[1:depth]:
            block.register_parameter("VPT_shallow", nn.Parameter(torch.randn(n_ctx, self.width) * PROMPT_STD))

    def own_prompts(self) -> dict[int, PromptTokens]:
        """The tokens that blocks hold themselves, by block index."""
        blocks = enumerate(self.resblocks)
        return {i: PromptTokens(b.get_parameter("VPT_shallow")) for i, b in blocks if hasattr(b, "VPT_shallow")}

    def encode(self, x: Tensor, layout: Layout, deep: DeepPrompts | Own | None = OWN, pool: bool = True) -> Tensor:
        """Run the blocks over `x` (N, L, D).

        Args:
            deep: prompt tokens that enter before given blocks; None for none, `OWN` for the blocks' own.
            pool: return only the tokens that the layout pools, which saves most of the last block's work.
        """
        entering = self.own_prompts() if isinstance(deep, Own) else entering_by_block(deep or {})
        for i, block in enumerate(self.resblocks):
            if i in entering:
                x, layout = layout.enter(x, entering[i])
            last = pool and i == self.layers - 1
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, layout, last, use_reentrant=False)
            else:
                x = block(x, layout, pool=last)
        return x

    def forward(self, x: Tensor | list[Any]) -> Tensor | list[Any]:
        """The calling convention of OpenAI's package: tokens first, (L, N, D), every token returned.

        A list `[x, deep_prompts, counter]`, as passed by prompt-learning code, returns a list.
        """
        x, prompts, *rest = x if isinstance(x, list) else (x, None)
        deep = OWN if prompts is None else prompts
        out = self.encode(x.transpose(0, 1), self.dense, deep, pool=False).transpose(0, 1)  # (L, N, D)
        return [out, prompts, *rest] if rest else out


class VisionTransformer(nn.Module):
    """CLIP's image tower: patches and a class token, whose final state gives the image feature (B, E)."""

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
        """Add learned tokens (n_ctx, Dv): `VPT` at the input, `VPT_shallow` before blocks 1 … depth-1."""
        check_prompt_depth(depth, self.transformer.layers, lowest=1)
        check_prompt_length(n_ctx)
        self.VPT = nn.Parameter(torch.randn(n_ctx, self.transformer.width) * PROMPT_STD)
        self.transformer.add_prompts(n_ctx, depth)

    def forward(self, image: Tensor, ctx: Tensor | Own | None = OWN, deep: DeepPrompts | Own | None = OWN) -> Tensor:
        """Image features (B, E).

        Args:
            image: (B, 3, H, W) with H = W = `input_resolution`.
            ctx: prompt tokens (M, Dv) appended after the patches; None for none, `OWN` for the tower's `VPT`.
            deep: prompt tokens that enter before given blocks; None for none, `OWN` for the blocks' own.
        """
        return self.ln_post(self.encode(image, ctx, deep)[:, 0]) @ self.proj

    def encode(
        self, image: Tensor, ctx: Tensor | Own | None = OWN, deep: DeepPrompts | Own | None = OWN, pooled: int = 1
    ) -> Tensor:
        """What the first `pooled` tokens are after the last block (B, pooled, Dv), before `ln_post`.

        The first is the class token; after it come tokens that `deep` inserted at position 1.
        """
        check_image_size(image, self.input_resolution)
        x = self.conv1(image.to(self.conv1.weight.dtype)).flatten(2).transpose(1, 2)  # (B, P, Dv)
        cls = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([cls, x], dim=1) + self.positional_embedding.to(x.dtype)  # (B, 1 + P, Dv)
        ctx = self.VPT if isinstance(ctx, Own) else ctx
        if ctx is not None:
            x = torch.cat([x, ctx.to(x.dtype).expand(x.shape[0], -1, -1)], dim=1)  # (B, 1 + P + M, Dv)
        layout = DenseLayout(causal=False, prompts_last=True, pooled=pooled)
        return self.transformer.encode(self.ln_pre(x), layout, deep)  # (B, pooled, Dv)
