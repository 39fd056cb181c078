"""How token rows of many sequences lie in one tensor, and how they attend to each other.

Letters: G groups, K prompts, L rows of one sequence, M prompt tokens, S shared prefix rows,
R own rows of all prompts together, n prompts in a bucket, T own rows of one of its prompts,
D width, H heads, Dh = D // H.

A transformer (`clip.model.Transformer`) needs four things from a layout: `insert` swaps prompt rows,
`attend` is attention among all rows, `pool` picks the rows that the tower's feature is read from, and
`attend_pooled` is attention with those rows alone as queries, for the last block.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

# One more bucket costs about as much as this many padding rows in the linear layers (kernel launches).
BUCKET_COST = 48


class Layout(Protocol):
    """What a transformer asks of the tensor it transforms; see the module's docstring."""

    def insert(self, x: Tensor, prompts: Tensor) -> Tensor: ...
    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor: ...
    def pool(self, x: Tensor) -> Tensor: ...
    def attend_pooled(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor: ...


def _replace_rows(x: Tensor, start: int, rows: Tensor) -> Tensor:
    """`x` (N, L, D) with the rows from `start` on replaced by `rows` (M, D) or (N, M, D)."""
    rows = rows.to(x.dtype).expand(x.shape[0], -1, -1)
    return torch.cat([x[:, :start], rows, x[:, start + rows.shape[1] :]], dim=1)


class DenseLayout:
    """Sequences of equal length, (N, L, D): an image's patches, or a text padded to full length.

    Args:
        causal: each row sees only itself and earlier rows.
        prompts_last: prompt tokens are the last rows (images) instead of those after row 0 (texts).
    """

    def __init__(self, causal: bool, prompts_last: bool):
        self.causal = causal
        self.prompts_last = prompts_last

    def insert(self, x: Tensor, prompts: Tensor) -> Tensor:
        start = x.shape[1] - prompts.shape[-2] if self.prompts_last else 1
        return _replace_rows(x, start, prompts)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))  # (N, H, L, Dh)
        out = scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return out.transpose(1, 2).flatten(-2)  # (N, L, D)

    def pool(self, x: Tensor) -> Tensor:
        return x[:, :1]  # (N, 1, D): the class token

    def attend_pooled(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))  # (N, H, 1 | L, Dh)
        return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)  # (N, 1, D)


# A prefix, and the own rows of each bucket.
Split = tuple[Tensor, list[Tensor]]


class Bucket(NamedTuple):
    """Prompts whose own rows are padded to one length, side by side in the packed tensor."""

    first: int  # the bucket's first prompt, in packed order
    prompts: int  # n
    start: int  # its first row in the packed tensor
    length: int  # T

    @property
    def rows(self) -> int:
        return self.prompts * self.length


def choose_lengths(lengths: Sequence[int]) -> list[int]:
    """The padded length of each prompt (own rows, sorted ascending): few buckets, little padding.

    Minimises the rows of all buckets plus `BUCKET_COST` a bucket (dynamic programming over the distinct
    lengths).
    """
    distinct = [(length, len(list(group))) for length, group in groupby(lengths)]
    best: list[tuple[int, list[int]]] = [(0, [])]  # (cost, bucket of each distinct length) of the first i
    for i in range(1, len(distinct) + 1):
        options = []
        for j in range(i):  # lengths j … i-1 share a bucket
            rows = distinct[i - 1][0] * sum(count for _, count in distinct[j:i])
            cost, buckets = best[j]
            options.append((cost + rows + BUCKET_COST, buckets + [distinct[i - 1][0]] * (i - j)))
        best.append(min(options))
    return [padded for padded, (_, count) in zip(best[-1][1], distinct, strict=True) for _ in range(count)]


def shared_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many leading rows all sequences have in common; each keeps at least its last row to itself."""
    limit = min(len(s) for s in sequences) - 1
    first = sequences[0]
    for i in range(limit):
        if any(s[i] != first[i] for s in sequences):
            return i
    return limit


class PromptLayout(nn.Module):
    """K causal prompts packed into one tensor (G, S + R, D): the prefix that all share, once, then each
    prompt's own rows up to its last row (EOT), without padding to the context length.

    Nothing after EOT matters under a causal mask, and rows that are the same in every prompt have the same
    outputs, so this holds all that the text features need. G > 1 holds the same prompts under G different
    sets of learned rows (one for each image, say).

    Args:
        sequences: for each prompt its rows up to and including EOT. A number >= 0 is a token id; a number
            `-1 - j` is learned row j.
        vocabulary: token ids of the rows that the embeddings will hold; by default those that occur.
    """

    vocabulary: Tensor  # (U,) token ids, ascending
    rows: Tensor  # (S + R,) index into [token rows (U) | learned rows]
    positions: Tensor  # (S + R,) position of each row in its prompt
    last: Tensor  # (K,) packed row of each prompt's EOT, in packed order
    restore: Tensor  # (K,) packed order -> given order

    def __init__(self, sequences: Sequence[Sequence[int]], vocabulary: Sequence[int] | None = None):
        super().__init__()
        if not sequences:
            raise ValueError("found no prompt to lay out, expected at least one class name")
        self.num_prompts = len(sequences)
        self.shared = shared_prefix(sequences)
        order = sorted(range(len(sequences)), key=lambda k: len(sequences[k]))
        own = [list(sequences[k][self.shared :]) for k in order]
        padded = choose_lengths([len(rows) for rows in own])

        ids = list(sequences[0][: self.shared])
        positions = list(range(self.shared))
        last: list[int] = []
        self.buckets: list[Bucket] = []
        for k, (rows, length) in enumerate(zip(own, padded, strict=True)):
            if not self.buckets or self.buckets[-1].length != length:
                self.buckets.append(Bucket(k, 0, len(ids), length))
            self.buckets[-1] = self.buckets[-1]._replace(prompts=self.buckets[-1].prompts + 1)
            last.append(len(ids) + len(rows) - 1)
            ids += rows + [rows[-1]] * (length - len(rows))  # padding: any row will do, none looks at it
            positions += [*range(self.shared, self.shared + len(rows))]
            positions += [positions[-1]] * (length - len(rows))

        if vocabulary is None:
            vocabulary = sorted({i for i in ids if i >= 0})
        index = {token: i for i, token in enumerate(vocabulary)}
        learned = len(vocabulary) - 1
        rows_index = [index[i] if i >= 0 else learned - i for i in ids]
        self._keep("vocabulary", vocabulary)
        self._keep("rows", rows_index)
        self._keep("positions", positions)
        self._keep("last", last)
        self._keep("restore", sorted(range(len(order)), key=order.__getitem__))
        for i, bucket in enumerate(self.buckets):
            width = self.shared + bucket.length
            causal = torch.ones(bucket.length, width, dtype=torch.bool).tril(self.shared)
            self.register_buffer(f"causal_{i}", causal, persistent=False)  # (T, S + T)
            in_bucket = torch.tensor(last[bucket.first : bucket.first + bucket.prompts]) - bucket.start
            ends = self.shared + in_bucket % bucket.length  # the EOT's place among the bucket's keys
            seen = torch.arange(width) <= ends[:, None]
            self.register_buffer(f"seen_{i}", seen[:, None, None], persistent=False)  # (n, 1, 1, S + T)

    def _keep(self, name: str, values: Sequence[int]) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=torch.long), persistent=False)

    @property
    def num_rows(self) -> int:
        """Rows that pass through the transformer for one group: S + R."""
        return self.rows.shape[0]

    def insert(self, x: Tensor, prompts: Tensor) -> Tensor:
        """Prompt tokens are rows 1 … M of the shared prefix."""
        if prompts.shape[-2] >= self.shared:
            raise ValueError(
                f"deep prompts of {prompts.shape[-2]} tokens need a prefix of SOS and as many tokens that all "
                f"prompts share, but these share {self.shared} rows"
            )
        return _replace_rows(x, 1, prompts)

    def _split(self, x: Tensor, heads: int) -> Split:
        """(G, S + R, D) as the prefix (G, S, H, Dh) and each bucket's rows (G, n, T, H, Dh)."""
        prefix, *own = x.unflatten(-1, (heads, -1)).split([self.shared, *(b.rows for b in self.buckets)], dim=1)
        return prefix, [t.unflatten(1, (b.prompts, b.length)) for t, b in zip(own, self.buckets, strict=True)]

    def _with_prefix(self, x: Split, bucket: int) -> Tensor:
        """Keys or values of one bucket (G n, H, S + T, Dh): the prefix, then the prompt's own rows."""
        prefix, own = x[0][:, None].expand(-1, self.buckets[bucket].prompts, -1, -1, -1), x[1][bucket]
        return torch.cat([prefix, own], dim=2).flatten(0, 1).transpose(1, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        queries, keys, values = (self._split(x, heads) for x in (q, k, v))
        out = []
        if self.shared:
            q0, k0, v0 = (split[0].transpose(1, 2) for split in (queries, keys, values))  # (G, H, S, Dh)
            out.append(scaled_dot_product_attention(q0, k0, v0, is_causal=True).transpose(1, 2))
        for i, own in enumerate(queries[1]):
            attended = scaled_dot_product_attention(
                own.flatten(0, 1).transpose(1, 2),  # (G n, H, T, Dh)
                self._with_prefix(keys, i),
                self._with_prefix(values, i),
                attn_mask=self.get_buffer(f"causal_{i}"),
            )
            out.append(attended.transpose(1, 2).unflatten(0, own.shape[:2]).flatten(1, 2))  # (G, n T, H, Dh)
        return torch.cat(out, dim=1).flatten(-2)  # (G, S + R, D)

    def pool(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.last)  # (G, K, D), in packed order

    def attend_pooled(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        keys, values = (self._split(x, heads) for x in (k, v))
        queries = q.unflatten(-1, (heads, -1)).split([b.prompts for b in self.buckets], dim=1)  # each (G, n, H, Dh)
        out = []
        for i, own in enumerate(queries):
            attended = scaled_dot_product_attention(
                own.flatten(0, 1)[:, :, None],  # (G n, H, 1, Dh)
                self._with_prefix(keys, i),
                self._with_prefix(values, i),
                attn_mask=self.get_buffer(f"seen_{i}").repeat(len(q), 1, 1, 1),
            )
            out.append(attended.reshape(len(q), self.buckets[i].prompts, -1))
        return torch.cat(out, dim=1)  # (G, K, D), in packed order
