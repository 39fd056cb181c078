"""The random numbers that building CLIP draws in OpenAI's package, where they are overwritten by the loaded weights.

Published prompt-learning code builds its model that way after seeding, so that the initial prompts of a seed, the order
of its batches and its crops come after these numbers in the generator's sequence. Here they are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .model import CLIP
from .resnet import ModifiedResNet
from .transformer import PROMPT_STD, Transformer, VisionTransformer

_CHUNK = 1 << 18
_BLOCK_WEIGHTS = ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
_BLOCK_BIASES = ("attn.out_proj.bias", "mlp.c_fc.bias", "mlp.c_proj.bias")  # drawn with their layers


def draw_as_built(model: CLIP) -> list[nn.Parameter]:
    """Advance torch's generator as building `model` with random weights does, module by module.

    Prompt tokens that the towers hold are drawn at their places in this sequence; nothing else changes.

    Returns:
        Those tokens.
    """
    scratch = torch.empty(_CHUNK, dtype=torch.int32)
    tokens, skipped = [], 0
    for drawn in (*_visual(model.visual), *_text(model)):
        if isinstance(drawn, int):
            skipped += drawn
            continue
        _skip(skipped, scratch)
        draw_tokens(drawn)
        tokens.append(drawn)
        skipped = 0
    _skip(skipped, scratch)
    return tokens


def draw_tokens(tokens: nn.Parameter, dtype: torch.dtype = torch.float32) -> None:
    """Draw prompt tokens N(0, 0.02) anew; in half precision the generator gives other numbers."""
    tokens.data.copy_(nn.init.normal_(torch.empty(tokens.shape, dtype=dtype), std=PROMPT_STD))


def _skip(count: int, scratch: Tensor) -> None:
    """Discard `count` numbers of 32 bits, which is what one float32 takes."""
    for start in range(0, count, len(scratch)):
        scratch[: count - start].random_()


def _gaussian(tensor: Tensor) -> int:
    """Numbers that `normal_` draws: one per element, and the last 16 again where they are not a whole vector."""
    count = tensor.numel()
    if count < 16:
        raise ValueError(f"a CLIP with a tensor of {count} elements: their draws are not known")
    return count + (16 if count % 16 else 0)


def _uniform(module: nn.Module) -> int:
    """Numbers that a linear or convolution layer draws: one per weight and bias."""
    return sum(parameter.numel() for parameter in module.parameters())


def _blocks(tower: Transformer) -> Iterator[int | nn.Parameter]:
    for block in tower.resblocks:
        yield sum(block.get_parameter(name).numel() for name in (*_BLOCK_WEIGHTS, *_BLOCK_BIASES))
        if hasattr(block, "VPT_shallow"):
            yield block.get_parameter("VPT_shallow")


def _visual(tower: VisionTransformer | ModifiedResNet) -> Iterator[int | nn.Parameter]:
    if isinstance(tower, ModifiedResNet):
        yield from (_uniform(m) for m in tower.modules() if isinstance(m, nn.Conv2d | nn.Linear))
        yield _gaussian(tower.attnpool.positional_embedding)
        return
    yield _uniform(tower.conv1)
    if tower.VPT is not None:
        yield tower.VPT
    yield _gaussian(tower.class_embedding) + _gaussian(tower.positional_embedding)
    yield from _blocks(tower.transformer)
    yield _gaussian(tower.proj)


def _text(model: CLIP) -> Iterator[int | nn.Parameter]:
    yield from _blocks(model.transformer)
    yield 2 * _gaussian(model.token_embedding.weight) + _gaussian(model.positional_embedding)
    if isinstance(model.visual, ModifiedResNet):
        pool = model.visual.attnpool
        yield sum(_gaussian(layer.weight) for layer in (pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj))
    for block in model.transformer.resblocks:
        yield sum(_gaussian(block.get_parameter(name)) for name in _BLOCK_WEIGHTS)
    yield _gaussian(model.text_projection)
