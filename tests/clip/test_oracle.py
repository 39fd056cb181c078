"""The packed text tower and the pooled vision tower against the definitional computation."""

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.definitional import encode_image, encode_text, pad_prompts
from clip.model import CLIP
from clip.packing import PackedPrompts
from clip.transformer import VisionTransformer

SOS, EOT, VOCABULARY, CONTEXT = 98, 99, 100, 77


def random_clip(seed: int, layers: int, text_heads: int, vision_heads: int, embed: int, patches: int) -> CLIP:
    torch.manual_seed(seed)
    model = CLIP(
        embed_dim=embed,
        image_resolution=8 * patches,
        vision_layers=layers,
        vision_width=64 * vision_heads,
        vision_patch_size=8,
        context_length=CONTEXT,
        vocab_size=VOCABULARY,
        transformer_width=64 * text_heads,
        transformer_heads=text_heads,
        transformer_layers=layers,
    )
    for parameter in model.parameters():  # biases and LayerNorms away from their initial values
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.requires_grad_(False)


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """1e-5 of the largest value: fp32 sums in another order."""
    scale = expected.abs().max().clamp_min(1e-3)
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=1e-5)


def assert_same(found: torch.Tensor, expected: torch.Tensor, learned: list[torch.Tensor]) -> None:
    """The values, and the gradients of what is learned."""
    assert_close(found, expected)
    weights = torch.randn_like(expected)
    ours = torch.autograd.grad((found * weights).sum(), learned)
    theirs = torch.autograd.grad((expected * weights).sum(), learned)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b)


def name_lists(tokens: st.SearchStrategy[int]) -> st.SearchStrategy[list[list[int]]]:
    return st.lists(st.lists(tokens, min_size=1, max_size=20), min_size=1, max_size=9)


# Of few different tokens, names have beginnings in common; of many, hardly any have
names = name_lists(st.integers(1, 60)) | name_lists(st.integers(1, 2))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    names=names,
    layers=st.integers(1, 4),
    depth=st.integers(1, 4),
    n_ctx=st.integers(1, 5),
    fixed=st.integers(0, 3),
    heads=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    embed=st.integers(3, 50),
    groups=st.integers(1, 3),
    room=st.sampled_from([1, 32, 96]),
)
def test_text_equals_definition(seed, names, layers, depth, n_ctx, fixed, heads, embed, groups, room):
    """Features and gradients, for G groups of contexts, depths 1 to all, names of 1 to 20 tokens, any chunk size."""
    model = random_clip(seed, layers, heads[0], heads[1], embed, patches=2)
    tower, width = model.text_encoder(), 64 * heads[0]
    context = range(VOCABULARY, VOCABULARY + n_ctx)
    sequences = [[SOS, *context, *[61] * fixed, *name, 62, EOT] for name in names]
    ctx = torch.randn(groups, n_ctx, width).mul_(0.1).requires_grad_()
    deep = [torch.randn(n_ctx, width).mul_(0.1).requires_grad_() for _ in range(min(depth, layers) - 1)]
    learned = [ctx, *deep]

    with mock.patch("clip.chunks.SHORTEST", room), mock.patch("clip.chunks.LONGEST", room):  # 1: the longest suffix
        layout = PackedPrompts(sequences)
    tables = torch.cat([model.token_embedding.weight.expand(groups, -1, -1), ctx], dim=1)  # (G, V + M, D)
    found = tower(tables, layout, deep)  # (G, K, E)
    expected = torch.stack([encode_text(tower, *pad_prompts(sequences, table, CONTEXT), deep) for table in tables])
    assert_same(found, expected, learned)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    layers=st.integers(1, 4),
    depth=st.integers(1, 4),
    n_ctx=st.integers(0, 5),
    heads=st.integers(1, 2),
    patches=st.integers(1, 4),
)
def test_vision_equals_definition(seed, layers, depth, n_ctx, heads, patches):
    model = random_clip(seed, layers, 1, heads, 20, patches)
    tower = model.visual
    assert isinstance(tower, VisionTransformer)
    image = torch.randn(3, 3, 8 * patches, 8 * patches)
    ctx = torch.randn(n_ctx, 64 * heads).mul_(0.1).requires_grad_() if n_ctx else None
    deep = [torch.randn(n_ctx, 64 * heads).requires_grad_() for _ in range(min(depth, layers) - 1)] if n_ctx else []
    found, expected = tower(image, ctx, deep), encode_image(tower, image, ctx, deep)
    assert_close(found, expected)
    if ctx is not None:
        learned = [ctx, *deep]
        for ours, theirs in zip(
            torch.autograd.grad(found.square().sum(), learned),
            torch.autograd.grad(expected.square().sum(), learned),
            strict=True,
        ):
            assert_close(ours, theirs)


def test_layout_without_a_shared_prefix_and_with_one_prompt():
    model = random_clip(0, 2, 1, 1, 16, 2)
    tower = model.text_encoder()
    for sequences in ([[SOS, 3, EOT]], [[1, 2, EOT], [5, EOT]], [[SOS, 3, EOT], [SOS, 3, EOT]]):
        layout = PackedPrompts(sequences)
        found = tower(model.token_embedding.weight, layout)
        padded = pad_prompts(sequences, model.token_embedding.weight, CONTEXT)
        assert_close(found, encode_text(tower, *padded, []))


def test_openai_calling_convention_returns_every_token():
    """`transformer(x)` with tokens first, and the list form of prompt-learning code, equal the definition."""
    model = random_clip(1, 3, 1, 1, 16, 2)
    tower = model.text_encoder()
    ids = torch.randint(1, 60, (4, CONTEXT))
    ids[:, 0], ids[:, 7], ids[:, 8:] = SOS, EOT, 0
    eot = torch.full((4,), 7)
    x = model.token_embedding(ids) + model.positional_embedding
    deep = [torch.randn(2, 64), torch.randn(2, 64)]
    for given_input, prompts in ((x.transpose(0, 1), []), ([x.transpose(0, 1), deep, 0], deep)):
        out = model.transformer(given_input)
        out = (out[0] if isinstance(out, list) else out).transpose(0, 1)
        found = model.ln_final(out)[torch.arange(4), eot] @ model.text_projection
        assert_close(found, encode_text(tower, model.token_embedding(ids), eot, prompts))
