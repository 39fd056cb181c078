"""Causal prompts packed into one tensor: the prefix that all share, then chunks of prompts, without padding.

Letters: G groups, K prompts, S tokens of the shared prefix, n chunks, T tokens of a chunk, R = n T, Q prompts of the
chunk with the most, M prompt tokens, D width, H heads, Dh = D // H.

Nothing after EOT matters under a causal mask, and a token has the same outputs in all prompts that agree up to it, so
(G, S + R, D) holds all that the text features need. G > 1 holds the same prompts under G different contexts (one for
each image, say). `clip.chunks` finds which prompts share which tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention

from .chunks import Arrangement, arrange
from .layout import PromptTokens, check_room, put_tokens


def index_tokens(sequences: Iterable[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """The distinct token ids of the sequences, ascending, and the sequences as indices into them."""
    sequences = list(sequences)
    vocabulary = sorted({token for sequence in sequences for token in sequence})
    index = {token: i for i, token in enumerate(vocabulary)}
    return vocabulary, [[index[token] for token in sequence] for sequence in sequences]


class Packing(nn.Module):
    """Where the tokens of K prompts are in a packed tensor; the layout of the text tower's blocks."""

    sos: Tensor  # (K,) row of each prompt's first token
    eot: Tensor  # (K,) row of each prompt's EOT
    sees: Tensor  # (n, 1, T, S + T) the tokens of the prefix and of its chunk that a token attends to
    slots: Tensor  # (n Q,) the prompts of each chunk, the first of them again where it has fewer than Q
    slot: Tensor  # (K,) where each prompt is in `slots`
    eot_sees: Tensor  # (n, 1, Q, S + T) the tokens that the EOT in a slot attends to
    came_from: Tensor  # (R,) the row of each token in the packing that this one is `without_sharing`

    def __init__(self, arrangement: Arrangement):
        super().__init__()
        paths, S, T = self.paths, self.prefix_length, self.chunk_length = arrangement
        in_chunk: list[list[int]] = [[] for _ in range((max(path[-1] for path in paths) - S) // T + 1)]
        for k, path in enumerate(paths):
            in_chunk[(path[-1] - S) // T].append(k)
        n, Q = len(in_chunk), max(map(len, in_chunk))
        self.num_chunks, self.num_tokens = n, S + n * T
        self.shares = S > 0 or len({row for path in paths for row in path}) < sum(map(len, paths))
        self._longer: dict[int, Packing] = {}
        self._apart: Packing | None = None

        sees = torch.eye(T, dtype=torch.bool).repeat(n, 1)  # (R, T): itself, and the prompt's earlier tokens
        pairs = [
            (row - S) * T + (seen - S) % T for path in paths for i, row in enumerate(path[S:], S) for seen in path[S:i]
        ]
        sees.view(-1)[torch.tensor(pairs, dtype=torch.long)] = True
        sees = torch.cat([torch.ones(n * T, S, dtype=torch.bool), sees], dim=1)  # (R, S + T)
        slots = [(prompts + prompts[:1] * Q)[:Q] for prompts in in_chunk]
        slot = {k: chunk * Q + i for chunk, prompts in enumerate(in_chunk) for i, k in enumerate(prompts)}
        self._register("sos", (path[0] for path in paths))
        self._register("eot", (path[-1] for path in paths))
        self._register("slots", (k for prompts in slots for k in prompts))
        self._register("slot", (slot[k] for k in range(len(paths))))
        self.register_buffer("sees", sees.view(n, 1, T, S + T), persistent=False)
        self.register_buffer("eot_sees", sees[self.eot[self.slots] - S].view(n, 1, Q, S + T), persistent=False)

    def _register(self, name: str, indices: Iterable[int]) -> None:
        self.register_buffer(name, torch.tensor(list(indices), dtype=torch.long), persistent=False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Packing:
        self._longer, self._apart = {}, None
        return super()._apply(fn, recurse)

    def by_row(self, values: Iterable[Iterable[int]]) -> list[int]:
        """S + R values by row, given those of each prompt's tokens; 0 in the padding, which no prompt looks at."""
        rows = [0] * self.num_tokens
        for path, own in zip(self.paths, values, strict=True):
            for row, value in zip(path, own, strict=True):
                rows[row] = value
        return rows

    def with_longer_prefix(self, n: int) -> Packing:
        """This packing after `n` tokens were inserted into the prefix."""
        if n not in self._longer:
            S = self.prefix_length
            paths = [[*range(S + n), *(row + n for row in path[S:])] for path in self.paths]
            self._longer[n] = Packing(Arrangement(paths, S + n, self.chunk_length)).to(self.eot.device)
        return self._longer[n]

    def without_sharing(self) -> Packing:
        """The packing where each prompt has all its tokens to itself, with `came_from`."""
        if self._apart is None:
            self._apart = Packing(arrange(self.paths, share=False))
            self._apart._register("came_from", self._apart.by_row(self.paths))
            self._apart.to(self.eot.device)
        return self._apart

    def enter(self, x: Tensor, prompt: PromptTokens) -> tuple[Tensor, Packing]:
        """Prompt tokens follow SOS. Tokens (K, M, D) of each prompt's own end all sharing."""
        start = 1 if prompt.position is None else prompt.position
        M = prompt.tokens.shape[-2]
        if prompt.tokens.dim() == 2 and (start if prompt.insert else start + M) <= self.prefix_length:
            check_room(prompt, start, self.prefix_length)
            layout = self.with_longer_prefix(M) if prompt.insert else self
            return put_tokens(x, prompt.tokens, start, prompt.insert, prompt.weight), layout
        if prompt.insert:
            raise ValueError("tokens can be inserted into the prefix that all prompts share, not into each prompt")
        if self.shares:
            apart = self.without_sharing()
            return apart.enter(_take(x, apart.came_from), prompt)
        check_room(prompt, start, min(map(len, self.paths)) - 1)
        rows = (self.sos[:, None] + torch.arange(start, start + M, device=x.device)).flatten()  # (K M,)
        tokens = prompt.tokens.to(x.dtype).expand(len(self.paths), -1, -1).flatten(0, 1)  # (K M, D)
        tokens = tokens.expand(x.shape[0], -1, -1)
        if prompt.weight != 1:
            tokens = prompt.weight * tokens + (1 - prompt.weight) * _take(x, rows)
        return x.index_copy(1, rows, tokens), self

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        out = []
        if self.prefix_length:
            qkv = (t[:, : self.prefix_length].unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
            q0, k0, v0 = qkv  # (G, H, S, Dh)
            out.append(scaled_dot_product_attention(q0, k0, v0, is_causal=True).transpose(1, 2).flatten(-2))
        attended = self._attend_chunks(q[:, self.prefix_length :], k, v, heads, self.sees)
        return torch.cat([*out, attended], dim=1)  # (G, S + R, D)

    def pool(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.eot)  # (G, K, D)

    def attend_pooled(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        attended = self._attend_chunks(q.index_select(1, self.slots), k, v, heads, self.eot_sees)
        return attended.index_select(1, self.slot)  # (G, K, D)

    def _attend_chunks(self, q: Tensor, k: Tensor, v: Tensor, heads: int, sees: Tensor) -> Tensor:
        """Attention of equally many queries of each chunk, (G, n …, D), as `sees` (n, 1, …, S + T) says."""
        n = self.num_chunks
        queries = q.unflatten(-1, (heads, -1)).unflatten(1, (n, -1)).flatten(0, 1).transpose(1, 2)  # (G n, H, …, Dh)
        attended = scaled_dot_product_attention(
            queries,
            self._keys(k, heads),
            self._keys(v, heads),
            attn_mask=sees.expand(q.shape[0], *sees.shape).flatten(0, 1),
        )
        return attended.transpose(1, 2).flatten(-2).unflatten(0, (-1, n)).flatten(1, 2)  # (G, n …, D)

    def _keys(self, x: Tensor, heads: int) -> Tensor:
        """Keys or values (G n, H, S + T, Dh): the prefix, then each chunk's tokens."""
        n, T = self.num_chunks, self.chunk_length
        prefix, own = x.unflatten(-1, (heads, -1)).split([self.prefix_length, n * T], dim=1)
        keys = torch.cat([prefix[:, None].expand(-1, n, -1, -1, -1), own.unflatten(1, (n, T))], dim=2)
        return keys.flatten(0, 1).transpose(1, 2)


def _take(x: Tensor, rows: Tensor) -> Tensor:
    """(G, N, D): rows (N,) of x (G, L, D), some of them several times.

    Unlike that of `index_select`, the backward pass sums in the same order each time on a GPU, too.
    """
    return F.embedding(rows, x.transpose(0, 1).flatten(1)).unflatten(1, (x.shape[0], -1)).transpose(0, 1)


class PackedPrompts(Packing):
    """The packing of K prompts, and what each of its tokens is.

    Args:
        sequences: for each prompt its tokens up to and including EOT, as indices into a table of embeddings.
        share: compute tokens that prompts begin with together once; without, each prompt has them to itself.
    """

    token_index: Tensor  # (S + R,) index of each token into the table of embeddings
    positions: Tensor  # (S + R,) position of each token in its prompt

    def __init__(self, sequences: Sequence[Sequence[int]], share: bool = True):
        if not sequences:
            raise ValueError("found no prompt to pack, expected at least one class name")
        super().__init__(arrange(sequences, share))
        self.sequences = sequences
        self._register("token_index", self.by_row(sequences))
        self._register("positions", self.by_row(range(len(tokens)) for tokens in sequences))
