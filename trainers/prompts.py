"""Text prompts: the words around a class name, fixed or learned.

Letters: K classes, M prompt tokens, U distinct token ids, C learned context vectors, Dt text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

import clip
from clip.draws import draw_tokens
from clip.layout import DeepPrompts
from clip.model import CLIP
from clip.packing import PackedPrompts, index_tokens
from clip.transformer import OWN, PROMPT_STD, Own, check_prompt_length
from dassl.config.checks import whole
from dassl.utils.names import DEFAULT_TEMPLATE, fill, first_few, readable

__all__ = [
    "DEFAULT_TEMPLATE",
    "IMAGENET_TEMPLATES_SELECT",
    "POSITIONS",
    "TEXT_CTX",
    "VISION_CTX",
    "ContextLearner",
    "context_length",
    "fill",
    "fixed_prompts",
    "initial_words",
    "place_context",
    "readable",
    "tokenize",
]

POSITIONS = ("end", "middle", "front")

# Context tokens: CLIP's text tower takes 77 tokens, of which SOS, EOT, the full stop and a class name take four.
TEXT_CTX = whole(1, 73)
VISION_CTX = whole(1, 1000)

# The seven templates that work best together on ImageNet, named in the notebook "Prompt Engineering for ImageNet"
# of OpenAI's CLIP repository.
IMAGENET_TEMPLATES_SELECT = [
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
]


def fixed_prompts(words: str, classnames: Sequence[str]) -> list[str]:
    """The prompt of each class: "<words> <class name>."."""
    return [f"{readable(words)} {readable(name)}." for name in classnames]


def initial_words(ctx_init: str, n_ctx: int) -> str:
    """MaPLe's and IVLP's initial words: `ctx_init`, or none (random) where more than four tokens are learned."""
    return ctx_init if n_ctx <= 4 else ""


def context_length(ctx_init: str, n_ctx: int) -> int:
    """CoOp's and CoCoOp's number of context tokens: the words of `ctx_init`, or `n_ctx` where it is empty."""
    return len(readable(ctx_init).split()) or n_ctx


def context_options(tokens: int, options: CfgNode) -> dict[str, Any]:
    """The values of `N_CTX` and `CTX_INIT` that differ from those in `options` for a context of so many tokens."""
    fits = context_length(options.CTX_INIT, options.N_CTX) == tokens
    return {} if fits else {"N_CTX": tokens, "CTX_INIT": ""}


def tokenize(texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text from SOS up to and including EOT, without padding.

    Raises:
        ValueError: texts are too long; the message has them and what to shorten.
    """
    try:
        return [ids[: ids.index(max(ids)) + 1] for ids in clip.tokenize(list(texts)).tolist()]
    except clip.TextTooLongError as error:
        long = [repr(text) for text in texts if _too_long(text)]
        raise ValueError(
            f"CLIP takes prompts of up to 77 tokens, these are longer: {first_few(long)}. Shorten the names of these "
            "classes, or the words (CTX_INIT) or tokens (N_CTX) in front of them"
        ) from error


def _too_long(text: str) -> bool:
    try:
        clip.tokenize(text)
    except clip.TextTooLongError:
        return True
    return False


def place_context(tokens: Sequence[int], name_length: int, context: Sequence[int], position: str) -> list[int]:
    """A prompt `[SOS] M placeholders, name, rest` with `context` instead of the placeholders.

    Args:
        name_length: tokens of the class name.
        context: M tokens.
        position: of the class name: at the `end`, in the `middle` of the context, or in `front` of it.
    """
    m = len(context)
    name, rest = list(tokens[1 + m : 1 + m + name_length]), list(tokens[1 + m + name_length :])
    before = {"end": m, "middle": m // 2, "front": 0}[position]
    return [tokens[0], *context[:before], *name, *context[before:], *rest]


class ContextLearner(nn.Module):
    """The prompts "<context> <class name>." of K classes, whose first M context tokens are learned.

    Args:
        classnames: K names.
        n_ctx: M.
        ctx_init: words that the context starts from; of these the first M tokens are learned and the others are fixed.
            Empty: M random tokens N(0, 0.02).
        csc: class-specific contexts, one for each class.
        position: of the class name among the context: end, middle or front.
        template: what follows the context, with {} in place of the class name; it starts the text unless `position` is
            end.

    `ctx` is (M, Dt), or (K, M, Dt) with csc. `sequences` holds each prompt as indices into `embeddings()`.
    """

    token_embeddings: Tensor  # (U, Dt) frozen embeddings of the tokens that occur

    def __init__(
        self,
        classnames: Sequence[str],
        clip_model: CLIP,
        n_ctx: int,
        ctx_init: str = "",
        csc: bool = False,
        position: str = "end",
        template: str = "{}.",
    ):
        super().__init__()
        if position not in POSITIONS:
            raise ValueError(f"CLASS_TOKEN_POSITION is {position!r}, expected one of {', '.join(POSITIONS)}")
        check_prompt_length(n_ctx)
        words = readable(ctx_init) or " ".join(["X"] * n_ctx)
        names = [readable(name) for name in classnames]
        init = tokenize([words])[0][1:-1]
        if n_ctx > len(init):
            raise ValueError(f"N_CTX is {n_ctx}, but CTX_INIT {ctx_init!r} has {len(init)} tokens: shorten or empty it")
        vocabulary, indices = index_tokens(tokenize([f"{words} {text}" for text in fill(template, names)]))
        self.sequences = []
        for k, (tokens, name) in enumerate(zip(indices, tokenize(names), strict=True)):
            first = len(vocabulary) + (k * n_ctx if csc else 0)
            context = range(first, first + n_ctx)
            self.sequences.append(place_context(tokens, len(name) - 2, context, position))
        self.layout = PackedPrompts(self.sequences)
        embedding = clip_model.token_embedding
        self.register_buffer("token_embeddings", embedding(torch.tensor(vocabulary)).detach(), persistent=False)
        if ctx_init:
            ctx = embedding(torch.tensor(init[:n_ctx])).detach().float().clone()  # (M, Dt)
            ctx = ctx.repeat(len(names), 1, 1) if csc else ctx
        else:
            shape = (len(names), n_ctx) if csc else (n_ctx,)
            ctx = torch.randn(*shape, embedding.embedding_dim) * PROMPT_STD
        self.ctx = nn.Parameter(ctx)
        self._from_words = bool(ctx_init)

    def draw_as_published(self) -> list[nn.Parameter]:
        """Draw the initial values anew, in the order of the published code.

        Returns:
            The parameters that have their published initial values now.
        """
        if not self._from_words:
            draw_tokens(self.ctx, self.token_embeddings.dtype)
        return [self.ctx]

    def embeddings(self) -> Tensor:
        """(U + C, Dt): the tokens' embeddings, then the learned context."""
        return torch.cat([self.token_embeddings, self.ctx.flatten(0, -2).to(self.token_embeddings.dtype)])

    def text_prompts(self) -> tuple[Tensor, DeepPrompts | Own | None]:
        """The table of embeddings, and what enters the text tower's blocks (`OWN`: what they hold themselves)."""
        return self.embeddings(), OWN

    def vision_prompts(self) -> tuple[Tensor | Own | None, DeepPrompts | Own | None]:
        """Tokens (M, Dv) for the image tower's input, and what enters its blocks (`OWN`: what it holds itself)."""
        return OWN, OWN
