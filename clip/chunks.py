"""Where the tokens of many prompts are when prompts that begin alike share their beginnings.

Letters: K prompts, S rows of the shared prefix, n chunks, T rows of a chunk.

A prompt's path is the row of each of its tokens: first the rows of the prefix that all prompts share, then rows of one
chunk. Two prompts of a chunk have those rows in common in which they and all tokens before agree. The last token (EOT)
is a row of its own for each prompt.

Sorted prompts are a tree: neighbours that agree on more tokens than their surroundings are a branch. A branch that fits
into a chunk is kept whole. A larger one is divided, and its beginning is repeated in each chunk that it reaches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

# Attention among the T tokens of a chunk, masked pairs included, costs T times this share of all other work on them:
# measured at width 512 on a CPU, rounded up.
ATTENTION_COST = 0.0005
SHORTEST, LONGEST = 32, 96  # chunks: smaller ones do not cost less, larger ones save no more


class Arrangement(NamedTuple):
    """Where the tokens of K prompts are."""

    paths: list[list[int]]  # for each prompt the rows of its tokens
    prefix: int  # S
    chunk: int  # T


class Part(NamedTuple):
    """Prompts that go into the same chunk, and how many rows they need in it."""

    rows: int
    prompts: list[int]


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens two prompts share; each keeps at least its last token to itself."""
    limit = min(len(a), len(b)) - 1
    return next((i for i in range(limit) if a[i] != b[i]), limit)


def fill(parts: Sequence[Part], room: int) -> list[Part]:
    """The parts together in groups of at most `room` rows: each has the largest part left, and what fits best to it."""
    left: dict[int, list[Part]] = {}  # by rows
    for part in parts:
        left.setdefault(part.rows, []).append(part)
    groups = []
    while left:
        rows = largest_sum({rows: len(some) for rows, some in left.items()}, room)
        taken = [left[r].pop() for r in rows]
        left = {r: some for r, some in left.items() if some}
        groups.append(Part(sum(rows), [k for part in taken for k in part.prompts]))
    return groups


def largest_sum(counts: Mapping[int, int], limit: int) -> list[int]:
    """Of numbers that are there so many times: the largest one, and others with which it comes closest to `limit`."""
    largest = max(counts)
    rest = {number: count - (number == largest) for number, count in sorted(counts.items())}
    target = limit - largest
    sums = [1]  # bit s of sums[i]: some of the i smallest numbers have the sum s
    for number, count in rest.items():
        reached = sums[-1]
        for _ in range(min(count, target // number)):
            reached |= reached << number
        sums.append(reached & ((2 << target) - 1))
    target, chosen = sums[-1].bit_length() - 1, [largest]
    for (number, count), smaller in zip(reversed(rest.items()), reversed(sums[:-1]), strict=True):
        times = min(count, target // number)
        while not smaller >> (target - times * number) & 1:
            times -= 1
        target -= times * number
        chosen += [number] * times
    return chosen


class Tree:
    """Sorted suffixes of prompts, as a tree of the tokens that they share.

    Args:
        lengths: tokens of each suffix.
        common: how many leading tokens each shares with the one before it; 0 for the first.
    """

    def __init__(self, lengths: Sequence[int], common: Sequence[int]):
        self.lengths, self.common = lengths, common
        own = [length - shared for length, shared in zip(lengths, common, strict=True)]
        self.rows_before = [0, *accumulate(own)]  # of the first i suffixes, with nothing twice

    def divide(self, room: int, first: int = 0, last: int | None = None, depth: int = 0) -> list[Part]:
        """Suffixes first … last - 1, which agree on `depth` tokens, in parts of at most `room` rows below these."""
        last = len(self.lengths) if last is None else last
        starts = [first, *(i for i in range(first + 1, last) if self.common[i] == depth), last]
        parts = []
        for a, b in pairwise(starts):
            rows = self.rows_before[b] - self.rows_before[a] + self.common[a] - depth
            if rows <= room:
                parts.append(Part(rows, list(range(a, b))))
            else:
                fork = min(self.common[a + 1 : b])
                repeated = fork - depth
                inside = self.divide(room - repeated, a, b, fork)
                parts += [Part(repeated + part.rows, part.prompts) for part in inside]
        return fill(parts, room)


def choose_chunks(tree: Tree) -> list[Part]:
    """The suffixes in chunks of the size at which the work on them is least."""
    rows, shortest = tree.rows_before[-1], max(SHORTEST, *tree.lengths)
    best, lowest = [], float("inf")
    step = min(1 + rows // 1000, 16)  # many prompts fill chunks of any size, and each try takes longer
    for room in range(shortest, max(shortest, LONGEST) + 1, step):
        if rows * (1 + room * ATTENTION_COST) >= lowest:
            break  # chunks of this size would not be better even if they repeated and padded nothing
        chunks = tree.divide(room)
        T = max(part.rows for part in chunks)
        cost = len(chunks) * T * (1 + T * ATTENTION_COST)
        if cost < lowest:
            best, lowest = chunks, cost
    return best


def arrange(sequences: Sequence[Sequence[int]], share: bool = True) -> Arrangement:
    """Rows for prompts of these tokens; with `share` false no two prompts have a row in common."""
    K = len(sequences)
    order = sorted(range(K), key=lambda k: tuple(sequences[k])) if share else list(range(K))
    ranked = [sequences[k] for k in order]
    common = [common_length(a, b) if share else 0 for a, b in pairwise(ranked)]
    S = min([len(s) - 1 for s in sequences] + common) if share else 0
    chunks = choose_chunks(Tree([len(s) - S for s in ranked], [0, *(c - S for c in common)]))
    T = max(part.rows for part in chunks)
    paths: list[list[int]] = [[] for _ in range(K)]
    for chunk, part in enumerate(chunks):
        row, path, before = S + chunk * T, list(range(S)), None
        for i in sorted(part.prompts):
            tokens = ranked[i]
            kept = S if before is None or not share else common_length(before, tokens)
            path = [*path[:kept], *range(row, row + len(tokens) - kept)]
            row, before = row + len(tokens) - kept, tokens
            paths[order[i]] = path
    return Arrangement(paths, S, T)
