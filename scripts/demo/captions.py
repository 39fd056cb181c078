"""Captions for the pretraining: what a picture shows, at one of three levels, in contexts of many kinds.

Prompt learning produces contexts that occur in no template: unknown words, placeholders, vectors that are not word
embeddings. The captions include such contexts, so that the text tower tolerates them.
"""

from dataclasses import dataclass
from random import Random

from clip.simple_tokenizer import SimpleTokenizer

from .packages import Emoji

UNKNOWN, SOFT = -1, -2  # used in place of a token id: the unknown word's vector, a random vector
TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of {}.",
    "a photo of one {}.",
    "a photo of my {}.",
    "a small photo of a {}.",
    "a big photo of a {}.",
    "a bright photo of a {}.",
    "a dark photo of a {}.",
    "a blurry photo of a {}.",
    "a bad photo of a {}.",
    "a good photo of the {}.",
    "a cropped photo of the {}.",
    "a close-up photo of a {}.",
    "a picture of a {}.",
    "an image of a {}.",
    "an icon of a {}.",
    "a drawing of a {}.",
    "a rendering of a {}.",
    "art of the {}.",
    "this is a {}.",
    "there is a {} here.",
    "itap of a {}.",
    "a {}.",
    "{}.",
    "{}",
    "a {} in a photo.",
    "a type of {}, a photo.",
    "a photo of a {}, a type of emoji.",
)
LEVELS = ("name", "kind", "group")
LEVEL_SHARES = (0.5, 0.35, 0.15)


@dataclass(frozen=True)
class Caption:
    """Token ids without start and end of text, and what they describe."""

    ids: list[int]
    level: int  # index into LEVELS
    key: int  # which name, kind or group


class Captioner:
    """Draws captions. Emoji, kinds and groups are numbered in order of first appearance.

    Args:
        emoji: the concepts, by number.
        rng: the only source of randomness.
    """

    def __init__(self, emoji: list[Emoji], rng: Random):
        self.emoji, self.rng = emoji, rng
        self.tokenizer = SimpleTokenizer()
        self.kinds = list(dict.fromkeys(e.kind for e in emoji))
        self.groups = list(dict.fromkeys(e.group for e in emoji))
        self.templates = [tuple(self._encode(part) for part in t.split("{}")) for t in TEMPLATES]
        self.names = [[self._encode(n) for n in e.names] for e in emoji]
        self.kind_ids = [self._encode(k) for k in self.kinds]
        self.group_ids = [self._encode(g) for g in self.groups]
        self.stop = self._encode(".")
        self.placeholder = self._encode("x")
        self.vocabulary = self._collect_vocabulary()

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def _collect_vocabulary(self) -> list[int]:
        """All token ids that a caption can contain, sorted."""
        texts = [ids for names in self.names for ids in names] + self.kind_ids + self.group_ids
        texts += [part for template in self.templates for part in template] + [self.placeholder]
        return sorted({i for ids in texts for i in ids})

    def kind_of(self) -> list[int]:
        """The number of each emoji's kind."""
        return [self.kinds.index(e.kind) for e in self.emoji]

    def group_of(self) -> list[int]:
        """The number of each emoji's group."""
        return [self.groups.index(e.group) for e in self.emoji]

    def draw(self, concepts: list[int]) -> list[Caption]:
        """One caption per emoji. Long contexts are drawn for a whole batch at a time, rarely, to save padding."""
        lengths = (8, 12, 16) if self.rng.random() < 0.1 else (1, 2, 3, 4, 4, 4, 6)
        return [self._draw_caption(c, self.rng.choice(lengths)) for c in concepts]

    def _draw_caption(self, concept: int, length: int) -> Caption:
        level = self.rng.choices(range(3), LEVEL_SHARES)[0]
        if level == 0:
            key, name = concept, self.rng.choice(self.names[concept])
        elif level == 1:
            key = self.kinds.index(self.emoji[concept].kind)
            name = self.kind_ids[key]
        else:
            key = self.groups.index(self.emoji[concept].group)
            name = self.group_ids[key]
        before, after = self._draw_context(length)
        return Caption(before + name + after, level, key)

    def _draw_context(self, length: int) -> tuple[list[int], list[int]]:
        """Token ids before and after the class name; `length` is the length of a context without a template."""
        kind = self.rng.choices(("template", "forgetful", "soft", "placeholder", "words"), (60, 10, 18, 7, 5))[0]
        before, after = self.rng.choice(self.templates)
        if kind == "template":
            return before, after
        if kind == "forgetful":
            return [UNKNOWN if self.rng.random() < 0.3 else i for i in before], after
        if kind == "soft":
            return self._soften(before, length), self.stop
        if kind == "placeholder":
            return self.placeholder * length, self.stop
        return self.rng.choices(self.vocabulary, k=length), self.stop

    def _soften(self, before: list[int], length: int) -> list[int]:
        """Random vectors alone, or in place of a template's first words, the rest of which stay (as in MaPLe)."""
        if before and self.rng.random() < 0.5:
            length = min(length, len(before))
            return [SOFT] * length + before[length:]
        return [SOFT] * length
