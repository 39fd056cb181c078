"""Prompts that share their beginnings: where their tokens are, and features and gradients against the definition."""

import random
from collections.abc import Sequence
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.definitional import encode_text, pad_prompts
from clip.chunks import Part, Tree, arrange, choose_chunks, common_length, fill, largest_sum
from clip.layout import PromptTokens
from clip.model import CLIP
from clip.packing import PackedPrompts, Packing
from tests.clip.test_oracle import CONTEXT, EOT, SOS, assert_close, assert_same, random_clip

CAT, DOG, BIG, OLD, STOP = range(1, 6)


def prompts(names: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[SOS, 61, *name, STOP, EOT] for name in names]


def thousand_names() -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(1, 8) for _ in range(draw.choice([1, 1, 2, 2, 2, 3, 4, 9]))] for _ in range(1000)]


TREES = {
    "one class": prompts([[CAT]]),
    "a name that another begins with": prompts([[BIG, CAT], [BIG], [BIG, CAT, DOG]]),
    "the same name several times": prompts([[CAT], [BIG, DOG], [CAT], [CAT]]),
    "a prompt that another begins with": [[SOS, CAT], [SOS, CAT, DOG], [SOS]],
    "nothing in common": [[7, CAT, EOT], [8, CAT, EOT], [9, EOT]],
    "no common prefix, but beginnings": [[7, BIG, CAT, EOT], [8, EOT], [7, BIG, DOG, EOT]],
    "a very long name": prompts([[BIG] * 73, [CAT], [BIG] * 40, [BIG] * 40 + [DOG]]),
    "a fork in a fork": prompts([[BIG, OLD, CAT], [BIG, OLD, DOG], [BIG, DOG], [DOG]]),
}


@pytest.fixture(scope="module")
def model() -> CLIP:
    return random_clip(0, 3, 1, 1, 12, patches=2)


def compare(model: CLIP, sequences: Sequence[Sequence[int]], layout: PackedPrompts, each: bool = False) -> None:
    """Features, and the gradients of the table and of a token that enters before block 1, after SOS."""
    torch.manual_seed(1)
    tower = model.text_encoder()
    table = model.token_embedding.weight.clone().requires_grad_()
    token = torch.randn(*([len(sequences)] if each else []), 1, 64).mul_(0.1).requires_grad_()
    fits = min(map(len, sequences)) > 2
    deep = {1: PromptTokens(token, 1)} if fits else {}
    found = tower(table, layout, deep)
    padded = pad_prompts(sequences, table, CONTEXT)
    expected = encode_text(tower, *padded, deep)
    assert_same(found, expected, [table, token] if fits else [table])


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("sequences", TREES.values(), ids=TREES)
def test_trees_equal_the_definition(model: CLIP, sequences: list[list[int]], share: bool) -> None:
    compare(model, sequences, PackedPrompts(sequences, share), each=len(sequences) > 1)
    compare(model, sequences, PackedPrompts(sequences, share))


def test_a_thousand_names_equal_the_definition() -> None:
    sequences = prompts(thousand_names())
    layout = PackedPrompts(sequences)
    assert layout.num_chunks > 3
    tower, table = (model := random_clip(0, 1, 1, 1, 12, patches=2)).text_encoder(), model.token_embedding.weight
    assert_close(tower(table, layout), encode_text(tower, *pad_prompts(sequences, table, 13), []))


def distinct_beginnings(sequences: Sequence[Sequence[int]]) -> int:
    """Tokens without EOT that are needed at least, and an EOT for each prompt."""
    return len({tuple(s[:i]) for s in sequences for i in range(1, len(s))}) + len(sequences)


def check_paths(layout: Packing, sequences: Sequence[Sequence[int]]) -> None:
    """What makes the computation exact: a row stands for the same beginning in all prompts that contain it."""
    beginnings: dict[int, tuple[int, ...]] = {}
    S, T = layout.prefix_length, layout.chunk_length
    for path, tokens in zip(layout.paths, sequences, strict=True):
        assert len(path) == len(tokens)
        assert path[:S] == list(range(S))
        assert len({(row - S) // T for row in path[S:]}) == 1
        for i, row in enumerate(path):
            assert beginnings.setdefault(row, tuple(tokens[: i + 1])) == tuple(tokens[: i + 1])
    assert len(set(layout.eot.tolist())) == len(sequences)
    used = {row: [] for row in range(S, layout.num_tokens)}
    for path in layout.paths:
        for i, row in enumerate(path[S:], S):
            used[row] = path[S:i]
    for row, before in used.items():  # a row sees the prefix, the rows before it on its path, and itself
        chunk, i = divmod(row - S, T)
        sees = [*range(S), *sorted([(other - S) % T + S for other in before] + [i + S])]
        assert layout.sees[chunk, 0, i].nonzero().flatten().tolist() == sees


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(st.lists(st.integers(1, 3), max_size=12), min_size=1, max_size=40),
    room=st.sampled_from([1, 20, 96]),
)
def test_random_trees_have_exact_paths(names: list[list[int]], room: int) -> None:
    sequences = prompts(names)
    with mock.patch("clip.chunks.SHORTEST", room), mock.patch("clip.chunks.LONGEST", room):
        layout = PackedPrompts(sequences)
    check_paths(layout, sequences)
    check_paths(layout.with_longer_prefix(2), [[SOS, 90, 91, *tokens[1:]] for tokens in sequences])
    assert len({row for path in layout.paths for row in path}) >= distinct_beginnings(sequences)
    for apart in (PackedPrompts(sequences, share=False), layout.without_sharing()):
        check_paths(apart, sequences)
        assert len({row for path in apart.paths for row in path}) == sum(map(len, sequences))
    if layout.num_chunks == 1:
        assert layout.num_tokens == distinct_beginnings(sequences)


def test_rows_by_hand() -> None:
    """SOS 61 BIG | OLD CAT . EOT | DOG . EOT | . EOT: a prefix of 3, and 9 more tokens of three prompts."""
    sequences = prompts([[BIG, OLD, CAT], [BIG], [BIG, OLD, DOG]])
    layout = PackedPrompts(sequences)
    assert (layout.prefix_length, layout.num_tokens) == (3, 12)
    assert common_length(sequences[0], sequences[2]) == 4
    shared = set(layout.paths[0]) & set(layout.paths[2])
    assert len(shared) == 4  # SOS 61 BIG OLD
    assert len(shared & set(layout.paths[1])) == 3
    assert layout.token_index[layout.paths[2]].tolist() == sequences[2]
    assert layout.positions[layout.paths[2]].tolist() == list(range(7))


def test_a_branch_larger_than_a_chunk_repeats_its_beginning() -> None:
    """6 endings of 2 tokens after 3 common ones: in chunks of 7, of which 3 are the beginning, 2 fit each time."""
    tree = Tree([5] * 6, [0, 3, 3, 3, 3, 3])
    assert [part.rows for part in tree.divide(7)] == [7, 7, 7]
    assert [part.rows for part in tree.divide(15)] == [15]
    assert [part.rows for part in choose_chunks(tree)] == [15]


def test_filling_by_hand() -> None:
    assert largest_sum({5: 1, 4: 2, 3: 1}, 12) == [5, 4, 3]
    assert largest_sum({7: 2, 3: 1}, 10) == [7, 3]
    assert largest_sum({6: 3}, 10) == [6]
    assert largest_sum({6: 1, 5: 1, 3: 2}, 12) == [6, 3, 3]  # taking 5 next would leave one row empty
    parts = [Part(rows, [k]) for k, rows in enumerate([6, 5, 3, 3, 4])]
    assert [(p.rows, sorted(p.prompts)) for p in fill(parts, 12)] == [(12, [0, 2, 3]), (9, [1, 4])]


def test_the_prompts_order_does_not_matter_and_rows_are_the_same_each_time() -> None:
    sequences = prompts(thousand_names()[:60])
    assert arrange(sequences) == arrange(sequences)
    assert PackedPrompts(sequences).num_tokens == PackedPrompts(sequences[::-1]).num_tokens


def test_gradients_have_the_same_bits_each_time(model: CLIP) -> None:
    sequences = prompts(thousand_names()[:60])
    token = torch.randn(60, 1, 64).requires_grad_()
    table = model.token_embedding.weight.clone().requires_grad_()

    def gradients() -> tuple[torch.Tensor, ...]:
        deep = {1: PromptTokens(token, 1)}
        out = model.text_encoder()(table, PackedPrompts(sequences), deep)
        return torch.autograd.grad(out.square().sum(), [table, token])

    assert all(torch.equal(a, b) for a, b in zip(gradients(), gradients(), strict=True))
