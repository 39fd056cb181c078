"""Tokens that enter a tower before any block: replaced, inserted, mixed, one set for all or one per sequence."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.definitional import attention, encode_text, image_tokens, pad_prompts
from clip.layout import DenseLayout, PromptTokens
from clip.model import CLIP
from clip.packing import PackedPrompts
from clip.transformer import Transformer, VisionTransformer
from tests.clip.test_oracle import CONTEXT, EOT, SOS, assert_close, assert_same, names, random_clip


def run_alone(transformer: Transformer, x: Tensor, k: int, entering: dict[int, PromptTokens], causal: bool) -> Tensor:
    """All blocks over one sequence (1, L, D), the k-th, token by token as the fields of PromptTokens say."""
    for i, block in enumerate(transformer.resblocks):
        if i in entering:
            tokens, position, insert, weight = entering[i]
            own = list((tokens[k] if tokens.dim() == 3 else tokens).unbind())
            here = list(x[0].unbind())
            if insert:
                here[position:position] = own
            else:
                for j, token in enumerate(own):
                    here[position + j] = weight * token + (1 - weight) * here[position + j]
            x = torch.stack(here)[None]
        mask = torch.full((x.shape[1],) * 2, float("-inf")).triu(1) if causal else None
        x = x + attention(block.attn, block.ln_1(x), mask)
        x = x + block.mlp(block.ln_2(x))
    return x


def texts_alone(model: CLIP, sequences: list[list[int]], table: Tensor, entering: dict[int, PromptTokens]) -> Tensor:
    features = []
    for k, sequence in enumerate(sequences):
        x = table[sequence][None] + model.positional_embedding[: len(sequence)]
        x = run_alone(model.transformer, x, k, entering, causal=True)
        features.append(model.ln_final(x)[0, -1] @ model.text_projection)  # EOT stays the last token
    return torch.stack(features)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    names=names,
    layers=st.integers(2, 4),
    n_ctx=st.integers(1, 4),
    kinds=st.lists(st.sampled_from(["replace", "insert", "each", "mix", "each mix"]), min_size=1, max_size=4),
    first=st.integers(0, 2),
)
def test_text_equals_every_prompt_alone(seed, names, layers, n_ctx, kinds, first):
    """Features and gradients; an insertion comes before tokens of each prompt's own, which end the shared prefix."""
    model = random_clip(seed, layers, 1, 1, 12, patches=2)
    sequences = [[SOS, *range(61, 61 + n_ctx), *name, 70, EOT] for name in names]
    entering, each = {}, False
    for block, kind in zip(range(first, layers), kinds, strict=False):
        if kind == "insert" and each:
            continue
        shape = (len(names), n_ctx, 64) if "each" in kind else (n_ctx, 64)
        each = each or "each" in kind
        tokens = torch.randn(shape).mul_(0.1).requires_grad_()
        entering[block] = PromptTokens(tokens, 1, kind == "insert", 0.3 if "mix" in kind else 1.0)
    learned = [prompt.tokens for prompt in entering.values()]
    table = model.token_embedding.weight
    found = model.text_encoder()(table, PackedPrompts(sequences), entering)
    expected = texts_alone(model, sequences, table, entering)
    if learned:
        assert_same(found, expected, learned)
    else:
        assert_close(found, expected)


@pytest.mark.parametrize("insert", [False, True])
@pytest.mark.parametrize("per_image", [False, True])
def test_vision_equals_every_image_alone(insert: bool, per_image: bool):
    """The feature of the class token, and what that and the two tokens after it are in the end."""
    model = random_clip(3, 3, 1, 1, 12, patches=2)
    tower = model.visual
    assert isinstance(tower, VisionTransformer)
    image = torch.randn(2, 3, 16, 16)
    tokens = torch.randn(2, 2, 64) if per_image else torch.randn(2, 64)
    entering = {1: PromptTokens(tokens, 1, insert), 2: PromptTokens(torch.randn(2, 64), 1, weight=0.6)}
    alone = []
    for k in range(2):
        x = tower.conv1(image[k : k + 1]).flatten(2).transpose(1, 2)  # (1, P, D)
        x = torch.cat([tower.class_embedding[None, None], x], dim=1) + tower.positional_embedding
        alone.append(run_alone(tower.transformer, tower.ln_pre(x), k, entering, causal=False)[0])
    expected = torch.stack(alone)  # (2, L, D)
    assert_close(tower(image, None, entering), tower.ln_post(expected[:, 0]) @ tower.proj)
    assert_close(tower.encode(image, None, entering, pooled=3), expected[:, :3])
    assert_close(image_tokens(tower, image, None, entering), expected)


def test_the_definition_of_texts_equals_every_prompt_alone():
    """Padded to the context length, which insertions make longer."""
    model = random_clip(0, 4, 1, 1, 12, patches=2)
    sequences = [[SOS, 61, *name, 70, EOT] for name in ([3], [4, 5, 6], [7, 8])]
    entering = {1: PromptTokens(torch.randn(2, 64), 1, insert=True), 3: PromptTokens(torch.randn(2, 64), 1, weight=0.7)}
    table = model.token_embedding.weight
    found = encode_text(model.text_encoder(), *pad_prompts(sequences, table, CONTEXT), entering)
    assert_close(found, texts_alone(model, sequences, table, entering))


def test_tokens_that_do_not_fit_are_named():
    model = random_clip(0, 2, 1, 1, 12, patches=2)
    layout = PackedPrompts([[SOS, 61, 3, EOT], [SOS, 61, 4, 5, EOT]])
    table, tower = model.token_embedding.weight, model.text_encoder()
    with pytest.raises(ValueError, match="4 prompt tokens cannot be replaced at position 1 of a sequence of 3 tokens"):
        tower(table, layout, {1: PromptTokens(torch.randn(4, 64))})
    with pytest.raises(ValueError, match="inserted into the prefix that all prompts share"):
        tower(table, layout, {1: PromptTokens(torch.randn(2, 1, 64), insert=True)})
    with pytest.raises(ValueError, match="inserted prompt tokens replace nothing"):
        tower(table, layout, {1: PromptTokens(torch.randn(1, 64), insert=True, weight=0.5)})
    with pytest.raises(ValueError, match="9 prompt tokens cannot be replaced at position -4"):
        DenseLayout(causal=False, prompts_last=True).enter(torch.zeros(1, 5, 64), PromptTokens(torch.randn(9, 64)))


def test_a_layout_that_moves_takes_its_derived_layouts_along():
    layout = PackedPrompts([[SOS, 61, 3, EOT], [SOS, 61, 4, 5, EOT]])
    assert layout.with_longer_prefix(2) is layout.with_longer_prefix(2)
    assert layout.to("meta").with_longer_prefix(2).eot.device.type == "meta"
