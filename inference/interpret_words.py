"""The words of CLIP's vocabulary that are nearest to learned text tokens.

Letters: K classes, M prompt tokens, V words of the vocabulary, U distinct token ids, Dt text width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clip.layout import entering_by_block
from clip.simple_tokenizer import SimpleTokenizer
from clip.transformer import Own
from trainers.conditional import ConditionalCLIP
from trainers.prompted_clip import FrozenTowersCLIP
from trainers.prompts import ContextLearner

METRICS = ("euclidean", "cosine")
MOST_CLASSES = 10  # whose own tokens are shown, where each class has some
SAMPLE = 500  # words that the distance between words is measured on


@dataclass(frozen=True)
class Tokens:
    """Learned tokens that enter the text tower together.

    Attributes:
        block: the block that they enter before; 0 is the input.
        classname: whose they are; "" for all classes.
        positions: of each token in its prompt, counted from 0 (SOS).
    """

    block: int
    classname: str
    positions: list[int]
    vectors: Tensor  # (M, Dt)


@dataclass(frozen=True)
class Near:
    """A word, and how far it is from a token."""

    word: str
    euclidean: float
    cosine: float


@torch.no_grad()
def learned_tokens(model: FrozenTowersCLIP, classnames: list[str]) -> list[Tokens]:
    """What the model puts into its text tower that is no word: at its input, then before deeper blocks."""
    learner = next((child for child in model.children() if isinstance(child, ContextLearner)), None)
    if learner is None:
        return []
    call = _call_of_text_tower(model, learner)
    found = list(_at_input(learner, classnames))
    deep = call[2] if len(call) > 2 else Own.OWN
    entering = model.text_encoder.transformer.own_prompts() if isinstance(deep, Own) else entering_by_block(deep or {})
    for block, prompt in sorted(entering.items()):
        start = 1 if prompt.position is None else prompt.position
        positions = list(range(start, start + prompt.tokens.shape[-2]))
        if prompt.tokens.dim() == 2:
            found.append(Tokens(block, "", positions, prompt.tokens.float()))
            continue
        rows = zip(classnames[:MOST_CLASSES], prompt.tokens, strict=False)
        found += [Tokens(block, name, positions, vectors.float()) for name, vectors in rows]
    return found


def _call_of_text_tower(model: FrozenTowersCLIP, learner: ContextLearner) -> tuple[Any, ...]:
    """The arguments that the model calls its text tower with."""
    if isinstance(model, ConditionalCLIP):  # each image shifts the context, which is shown as it is without
        embeddings, deep = learner.text_prompts()
        return embeddings, learner.layout, deep
    calls: list[tuple[Any, ...]] = []
    hook = model.text_encoder.register_forward_pre_hook(lambda module, given: calls.append(given))
    try:
        model.compute_text_features()
    finally:
        hook.remove()
    return calls[-1]


def _at_input(learner: ContextLearner, classnames: list[str]) -> Iterator[Tokens]:
    """The tokens of the table of embeddings that are not of the vocabulary, in their order in a prompt."""
    embeddings, U = learner.embeddings().float(), len(learner.token_embeddings)
    shared = learner.ctx.dim() == 2
    for name, sequence in zip(classnames[: 1 if shared else MOST_CLASSES], learner.sequences, strict=False):
        positions = [position for position, index in enumerate(sequence) if index >= U]
        yield Tokens(0, "" if shared else name, positions, embeddings[[sequence[position] for position in positions]])


def words_of_vocabulary() -> list[str]:
    """The V words by token id; a piece that other pieces follow ends with a hyphen."""
    decoder = SimpleTokenizer().decoder
    words = [decoder[i] for i in range(len(decoder))]
    return [word.removesuffix("</w>") if word.endswith(("</w>", "|>")) else f"{word}-" for word in words]


def nearest(vectors: Tensor, vocabulary: Tensor, words: list[str], count: int, metric: str) -> list[list[Near]]:
    """For each vector (M, Dt) the nearest rows of the vocabulary (V, Dt) with both distances, the nearest first.

    Args:
        metric: what is nearest: the smallest Euclidean distance (as CoOp's published script has it), or the largest
            cosine.
    """
    distances = torch.cdist(vectors, vocabulary, compute_mode="donot_use_mm_for_euclid_dist")  # (M, V)
    cosines = F.normalize(vectors, dim=-1) @ F.normalize(vocabulary, dim=-1).t()  # (M, V)
    order = distances.argsort(dim=1) if metric == "euclidean" else cosines.argsort(dim=1, descending=True)
    return [
        [Near(words[i], distances[m, i].item(), cosines[m, i].item()) for i in order[m, :count].tolist()]
        for m in range(len(vectors))
    ]


def distance_between_words(vocabulary: Tensor) -> float:
    """The median distance of a word to its nearest other one, over `SAMPLE` words: what "near" means here.

    Words that share one embedding, as those do that a small model was never trained on, count as the same.
    """
    sample = torch.linspace(0, len(vocabulary) - 1, min(SAMPLE, len(vocabulary))).long()
    distances = torch.cdist(vocabulary[sample], vocabulary)
    same = distances < 1e-2 * vocabulary.norm(dim=1).mean()
    return distances.masked_fill(same, torch.inf).min(dim=1).values.median().item()
