"""Text prompts with learned context tokens.

Letters: K classes, M prompt tokens, U token rows, C learned rows, Dt text width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import clip
from clip.layout import PromptLayout
from clip.model import CLIP
from clip.transformer import PROMPT_STD, check_prompt_length

POSITIONS = ("end", "middle", "front")


def readable(classname: str) -> str:
    """The words of a class name: underscores are spaces."""
    return classname.replace("_", " ")


def words_to_learn(ctx_init: str, n_ctx: int) -> str:
    """MaPLe's and IVLP's initial words: those given, or none (random) where more than four tokens are learned."""
    return ctx_init if n_ctx <= 4 else ""


def context_length(ctx_init: str, n_ctx: int) -> int:
    """CoOp's and CoCoOp's number of context tokens: the words given, or `n_ctx` where none are."""
    return len(readable(ctx_init).split()) or n_ctx


def fixed_prompts(words: str, classnames: Sequence[str]) -> list[str]:
    """The hand-written prompt of each class: "<words> <class name>."."""
    return [f"{readable(words)} {readable(name)}." for name in classnames]


def tokenize(texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text from SOS up to and including EOT, without padding."""
    return [ids[: ids.index(max(ids)) + 1] for ids in clip.tokenize(list(texts)).tolist()]


def place_context(tokens: Sequence[int], name_length: int, context: Sequence[int], position: str) -> list[int]:
    """The rows of one prompt `[SOS] M placeholders, name, rest` with `context` instead of the placeholders.

    Args:
        name_length: tokens of the class name.
        context: M row numbers.
        position: of the class name: at the `end`, in the `middle` of the context, or in `front` of it.
    """
    m = len(context)
    name, rest = list(tokens[1 + m : 1 + m + name_length]), list(tokens[1 + m + name_length :])
    before = {"end": m, "middle": m // 2, "front": 0}[position]
    return [tokens[0], *context[:before], *name, *context[before:], *rest]


class ContextLearner(nn.Module):
    """The prompts "<context> <class name>." of K classes, of whose context the first M tokens are learned.

    Args:
        classnames: K names.
        n_ctx: M.
        ctx_init: words that the context starts from; of these the first M tokens are learned and the others stay.
            Empty: M random tokens N(0, 0.02).
        csc: class-specific contexts, one for each class.
        position: of the class name among the context: end, middle or front.

    `ctx` is (M, Dt), or (K, M, Dt) with csc.
    """

    token_rows: Tensor  # (U, Dt) frozen embeddings of the tokens that occur

    def __init__(
        self,
        classnames: Sequence[str],
        clip_model: CLIP,
        n_ctx: int,
        ctx_init: str = "",
        csc: bool = False,
        position: str = "end",
    ):
        super().__init__()
        if position not in POSITIONS:
            raise ValueError(f"CLASS_TOKEN_POSITION is {position!r}, expected one of {', '.join(POSITIONS)}")
        check_prompt_length(n_ctx)
        words = readable(ctx_init) or " ".join(["X"] * n_ctx)
        names = [readable(name) for name in classnames]
        tokens = tokenize([f"{words} {name}." for name in names])
        init = tokenize([words])[0][1:-1]
        if n_ctx > len(init):
            raise ValueError(f"N_CTX is {n_ctx}, but CTX_INIT {ctx_init!r} has {len(init)} tokens: shorten or empty it")
        name_lengths = [len(ids) - 2 for ids in tokenize(names)]
        offsets = [k * n_ctx if csc else 0 for k in range(len(names))]
        self.sequences = [
            place_context(ids, length, [-1 - offset - j for j in range(n_ctx)], position)
            for ids, length, offset in zip(tokens, name_lengths, offsets, strict=True)
        ]
        self.layout = PromptLayout(self.sequences)
        self.register_buffer(
            "token_rows", clip_model.token_embedding(self.layout.vocabulary).detach(), persistent=False
        )
        if ctx_init:
            ctx = clip_model.token_embedding(torch.tensor(init[:n_ctx])).detach().float().clone()  # (M, Dt)
            ctx = ctx.repeat(len(names), 1, 1) if csc else ctx
        else:
            shape = (len(names), n_ctx) if csc else (n_ctx,)
            ctx = torch.randn(*shape, clip_model.token_embedding.embedding_dim) * PROMPT_STD
        self.ctx = nn.Parameter(ctx)

    def embeddings(self) -> Tensor:
        """(U + C, Dt): the prompts' token rows, then the learned ones."""
        return torch.cat([self.token_rows, self.ctx.flatten(0, -2).to(self.token_rows.dtype)])

    def text_prompts(self) -> tuple[Tensor, Sequence[Tensor] | None]:
        """Row embeddings, and the deep prompts (None: those that the tower owns, if any)."""
        return self.embeddings(), None

    def vision_prompts(self) -> tuple[Tensor | None, Sequence[Tensor] | None]:
        """Tokens (M, Dv) for the image tower's input and its deeper blocks; None: those that it owns, if any."""
        return None, None
