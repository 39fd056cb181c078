"""Causal prompts packed into one tensor: the prefix that all share, once, then each prompt's suffix without padding.

Letters: G groups, K prompts, S tokens of the shared prefix, R tokens of all suffixes together, n prompts in a bucket,
T tokens of the suffix of one of its prompts, M prompt tokens, D width, H heads, Dh = D // H.

Nothing after EOT matters under a causal mask, and tokens that are the same in every prompt have the same outputs, so
(G, S + R, D) holds all that the text features need. G > 1 holds the same prompts under G different contexts (one for
each image, say).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .layout import PromptTokens, check_room, put_tokens

# One more bucket costs about as much as this many padding tokens in the linear layers (kernel launches).
BUCKET_COST = 48


def index_tokens(sequences: Iterable[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """The distinct token ids of the sequences, ascending, and the sequences as indices into them."""
    sequences = list(sequences)
    vocabulary = sorted({token for sequence in sequences for token in sequence})
    index = {token: i for i, token in enumerate(vocabulary)}
    return vocabulary, [[index[token] for token in sequence] for sequence in sequences]


def choose_lengths(lengths: Sequence[int]) -> list[int]:
    """The padded length of each suffix (lengths sorted ascending): few buckets, little padding.

    Minimises the tokens of all buckets plus `BUCKET_COST` per bucket (dynamic programming over the distinct lengths).
    """
    distinct = [(length, len(list(group))) for length, group in groupby(lengths)]
    best: list[tuple[int, list[int]]] = [(0, [])]  # (cost, bucket of each distinct length) of the first i
    for i in range(1, len(distinct) + 1):
        options = []
        for j in range(i):  # lengths j … i-1 share a bucket
            tokens = distinct[i - 1][0] * sum(count for _, count in distinct[j:i])
            cost, buckets = best[j]
            options.append((cost + tokens + BUCKET_COST, buckets + [distinct[i - 1][0]] * (i - j)))
        best.append(min(options))
    return [padded for padded, (_, count) in zip(best[-1][1], distinct, strict=True) for _ in range(count)]


def shared_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all sequences have in common; each keeps at least its last token to itself."""
    limit = min(len(s) for s in sequences) - 1
    first = sequences[0]
    for i in range(limit):
        if any(s[i] != first[i] for s in sequences):
            return i
    return limit


class Bucket(NamedTuple):
    """Prompts whose suffixes are padded to one length, side by side in the packed tensor."""

    first: int  # the bucket's first prompt, in packed order
    prompts: int  # n
    length: int  # T

    @property
    def tokens(self) -> int:
        return self.prompts * self.length


# A prefix, and the suffixes of each bucket.
Split = tuple[Tensor, list[Tensor]]


class Packing(nn.Module):
    """Where the tokens of K prompts are in a packed tensor; the layout of the text tower's blocks.

    Args:
        prefix_length: S.
        buckets: in packed order.
        ends: for each prompt, in packed order, the index of EOT in its suffix.
        order: packed order -> given order.
    """

    order: Tensor  # (K,)
    eot: Tensor  # (K,) packed index of each prompt's EOT, in packed order

    def __init__(self, prefix_length: int, buckets: Sequence[Bucket], ends: Sequence[int], order: Sequence[int]):
        super().__init__()
        self.prefix_length = prefix_length
        self.buckets, self.ends, self._order = list(buckets), list(ends), list(order)
        self._derived: dict[int, Packing] = {}
        eot = []
        start = prefix_length
        for i, bucket in enumerate(self.buckets):
            ends_here = torch.tensor(ends[bucket.first : bucket.first + bucket.prompts])  # (n,)
            width = prefix_length + bucket.length
            causal = torch.ones(bucket.length, width, dtype=torch.bool).tril(prefix_length)
            self.register_buffer(f"causal_{i}", causal, persistent=False)  # (T, S + T)
            seen = torch.arange(width) <= prefix_length + ends_here[:, None]
            self.register_buffer(f"seen_{i}", seen[:, None, None], persistent=False)  # (n, 1, 1, S + T)
            eot.append(start + torch.arange(bucket.prompts) * bucket.length + ends_here)
            start += bucket.tokens
        self.num_tokens = start
        self.register_buffer("eot", torch.cat(eot), persistent=False)
        self.register_buffer("order", torch.tensor(order, dtype=torch.long), persistent=False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Packing:
        self._derived = {}
        return super()._apply(fn, recurse)

    def with_longer_prefix(self, n: int) -> Packing:
        """This packing after `n` tokens were inserted into the prefix."""
        if n not in self._derived:
            grown = Packing(self.prefix_length + n, self.buckets, self.ends, self._order)
            self._derived[n] = grown.to(self.eot.device)
        return self._derived[n]

    def without_prefix(self) -> Packing:
        """This packing where each prompt has the prefix to itself."""
        if 0 not in self._derived:
            S = self.prefix_length
            buckets = [bucket._replace(length=S + bucket.length) for bucket in self.buckets]
            apart = Packing(0, buckets, [S + end for end in self.ends], self._order)
            self._derived[0] = apart.to(self.eot.device)
        return self._derived[0]

    def enter(self, x: Tensor, prompt: PromptTokens) -> tuple[Tensor, Packing]:
        """Prompt tokens follow SOS. Tokens (K, M, D) of each prompt's own end the sharing of the prefix."""
        start = 1 if prompt.position is None else prompt.position
        M = prompt.tokens.shape[-2]
        if prompt.tokens.dim() == 2 and (start if prompt.insert else start + M) <= self.prefix_length:
            check_room(prompt, start, self.prefix_length)
            layout = self.with_longer_prefix(M) if prompt.insert else self
            return put_tokens(x, prompt.tokens, start, prompt.insert, prompt.weight), layout
        if prompt.insert:
            raise ValueError("tokens can be inserted into the prefix that all prompts share, not into each prompt")
        if self.prefix_length:
            apart = [torch.cat([p, own], dim=2).flatten(1, 2) for p, own in self._with_own_prefix(x)]
            return self.without_prefix().enter(torch.cat(apart, dim=1), prompt)
        check_room(prompt, start, min(self.ends))
        tokens = prompt.tokens.expand(len(self.order), -1, -1)[self.order]  # (K, M, D), in packed order
        parts = [
            put_tokens(own, tokens[b.first : b.first + b.prompts], start, weight=prompt.weight).flatten(1, 2)
            for b, own in zip(self.buckets, self._split(x)[1], strict=True)
        ]
        return torch.cat(parts, dim=1), self

    def _split(self, x: Tensor) -> Split:
        """(G, S + R, …) as the prefix (G, S, …) and each bucket's suffixes (G, n, T, …)."""
        prefix, *own = x.split([self.prefix_length, *(b.tokens for b in self.buckets)], dim=1)
        return prefix, [t.unflatten(1, (b.prompts, b.length)) for t, b in zip(own, self.buckets, strict=True)]

    def _with_own_prefix(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each bucket the prefix (G, n, S, D), repeated, and the suffixes (G, n, T, D)."""
        prefix, suffixes = self._split(x)
        return [(prefix[:, None].expand(-1, own.shape[1], -1, -1), own) for own in suffixes]

    def _keys(self, x: Split, bucket: int) -> Tensor:
        """Keys or values of one bucket (G n, H, S + T, Dh): the prefix, then the prompt's suffix."""
        prefix, own = x[0][:, None].expand(-1, self.buckets[bucket].prompts, -1, -1, -1), x[1][bucket]
        return torch.cat([prefix, own], dim=2).flatten(0, 1).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        queries, keys, values = (self._split(x.unflatten(-1, (heads, -1))) for x in (q, k, v))
        out = []
        if self.prefix_length:
            q0, k0, v0 = (split[0].transpose(1, 2) for split in (queries, keys, values))  # (G, H, S, Dh)
            out.append(scaled_dot_product_attention(q0, k0, v0, is_causal=True).transpose(1, 2))
        for i, own in enumerate(queries[1]):
            attended = scaled_dot_product_attention(
                own.flatten(0, 1).transpose(1, 2),  # (G n, H, T, Dh)
                self._keys(keys, i),
                self._keys(values, i),
                attn_mask=self.get_buffer(f"causal_{i}"),
            )
            out.append(attended.transpose(1, 2).unflatten(0, own.shape[:2]).flatten(1, 2))  # (G, n T, H, Dh)
        return torch.cat(out, dim=1).flatten(-2)  # (G, S + R, D)

    def pool(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.eot)  # (G, K, D), in packed order

    def attend_pooled(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        keys, values = (self._split(x.unflatten(-1, (heads, -1))) for x in (k, v))
        queries = q.unflatten(-1, (heads, -1)).split([b.prompts for b in self.buckets], dim=1)  # each (G, n, H, Dh)
        out = []
        for i, own in enumerate(queries):
            attended = scaled_dot_product_attention(
                own.flatten(0, 1)[:, :, None],  # (G n, H, 1, Dh)
                self._keys(keys, i),
                self._keys(values, i),
                attn_mask=self.get_buffer(f"seen_{i}").repeat(q.shape[0], 1, 1, 1),
            )
            out.append(attended.reshape(q.shape[0], self.buckets[i].prompts, -1))
        return torch.cat(out, dim=1)  # (G, K, D), in packed order


class PackedPrompts(Packing):
    """The packing of K prompts, and what each of its tokens is.

    Args:
        sequences: for each prompt its tokens up to and including EOT, as indices into a table of embeddings.
        share: compute the tokens that all prompts begin with once; without, each prompt has them to itself.
    """

    token_index: Tensor  # (S + R,) index of each token into the table of embeddings
    positions: Tensor  # (S + R,) position of each token in its prompt
    restore: Tensor  # (K,) given order -> packed order

    def __init__(self, sequences: Sequence[Sequence[int]], share: bool = True):
        if not sequences:
            raise ValueError("found no prompt to pack, expected at least one class name")
        S = shared_prefix(sequences) if share else 0
        order = sorted(range(len(sequences)), key=lambda k: len(sequences[k]))
        suffixes = [list(sequences[k][S:]) for k in order]
        padded = choose_lengths([len(suffix) for suffix in suffixes])
        token_index, positions = list(sequences[0][:S]), list(range(S))
        for suffix, length in zip(suffixes, padded, strict=True):
            padding = length - len(suffix)  # of any token: nothing looks at it
            token_index += [*suffix, *[suffix[-1]] * padding]
            positions += [*range(S, S + len(suffix)), *[S + len(suffix) - 1] * padding]
        first = 0
        buckets = []
        for length, group in groupby(padded):
            buckets.append(Bucket(first, len(list(group)), length))
            first += buckets[-1].prompts
        super().__init__(S, buckets, [len(suffix) - 1 for suffix in suffixes], order)
        self.sequences = sequences
        restore = sorted(range(len(order)), key=order.__getitem__)
        for name, values in (("token_index", token_index), ("positions", positions), ("restore", restore)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.long), persistent=False)
