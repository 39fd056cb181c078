"""What the benchmarks measure with: models of random weights, and class names."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from clip.model import CLIP
from clip.simple_tokenizer import END_OF_WORD, SimpleTokenizer

ARCHITECTURES = {  # embed, image, vision layers, vision width, patch, text width, text heads, text layers
    "ViT-B/32": (512, 224, 12, 768, 32, 512, 8, 12),
    "ViT-B/16": (512, 224, 12, 768, 16, 512, 8, 12),
    "ViT-L/14": (768, 224, 24, 1024, 14, 768, 12, 12),
    "ViT-Micro/8": (128, 48, 4, 128, 8, 128, 2, 4),
}
CLASSNAMES = Path(__file__).resolve().parents[2] / "shared" / "published" / "imagenet_classnames.txt"
# How many of ImageNet's 1,000 class names have 1, 2, … tokens.
TOKEN_LENGTHS = (246, 508, 154, 50, 22, 10, 8, 0, 1, 0, 0, 1)


def random_clip(backbone: str) -> CLIP:
    """A CLIP with the backbone's shapes and random frozen weights."""
    embed, image, layers, width, patch, text_width, text_heads, text_layers = ARCHITECTURES[backbone]
    model = CLIP(embed, image, layers, width, patch, 77, 49408, text_width, text_heads, text_layers)
    return model.requires_grad_(False).eval()


def class_names(count: int) -> list[str]:
    """The first `count` class names of ImageNet, or else made-up names with the same token lengths, in mixed order."""
    if CLASSNAMES.is_file():
        names = [line.split(" ", 1)[1] for line in CLASSNAMES.read_text().splitlines()]
    else:
        names = made_up_names()
    return [names[i % len(names)] for i in range(count)]


def made_up_names() -> list[str]:
    """1,000 names of `TOKEN_LENGTHS`. Each word is a token that occurs once, so that names share no first tokens."""
    tokenizer = SimpleTokenizer()
    words = (token.removesuffix(END_OF_WORD) for token in tokenizer.encoder if re.fullmatch(r"[a-z]{3,}</w>", token))
    single = (word for word in words if len(tokenizer.encode(word)) == 1)
    lengths = [n for n, many in enumerate(TOKEN_LENGTHS, start=1) for _ in range(many)]
    return [" ".join(itertools.islice(single, lengths[i * 387 % len(lengths)])) for i in range(len(lengths))]
