"""CLIP's tokenizer: lower-cased byte-pair encoding with 49,408 tokens (Radford et al., 2021, section 2.4).

Token ids: 256 bytes, the same 256 bytes at the end of a word, one id for each merge in the order of
`bpe_simple_vocab_16e6.txt.gz`, start of text, end of text.
"""

import gzip
import html
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import ftfy
import regex

START_OF_TEXT = "<|startoftext|>"
END_OF_TEXT = "<|endoftext|>"
END_OF_WORD = "</w>"
VOCABULARY_SIZE = 49408
# 512 byte tokens and the two markers are not merges
NUM_MERGES = VOCABULARY_SIZE - 2 * 256 - 2

# A word is a marker, the ending of an English contraction, letters, one digit, or a run of other symbols
WORD = regex.compile(
    rf"{regex.escape(START_OF_TEXT)}|{regex.escape(END_OF_TEXT)}"
    r"|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


class Vocabulary(NamedTuple):
    """The content of a vocabulary file."""

    encoder: dict[str, int]
    decoder: dict[int, str]
    bpe_ranks: dict[tuple[str, str], int]


@lru_cache
def default_bpe() -> str:
    """Return the path of the vocabulary file in the package."""
    return str(Path(__file__).with_name("bpe_simple_vocab_16e6.txt.gz"))


@lru_cache
def bytes_to_unicode() -> dict[int, str]:
    """Map each byte to a visible character: its own if it has one, otherwise the next one from U+0100 on.

    The order of the entries is the order of the ids 0 to 255: visible bytes first.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = sorted(set(range(256)) - set(visible))
    characters = {byte: chr(byte) for byte in visible}
    characters.update({byte: chr(256 + rank) for rank, byte in enumerate(hidden)})
    return characters


@lru_cache
def read_vocabulary(bpe_path: str) -> Vocabulary:
    """Read a gzipped list of merges, one pair per line after a header line. Each file is read once."""
    with gzip.open(bpe_path, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : NUM_MERGES + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    characters = list(bytes_to_unicode().values())
    tokens = characters + [character + END_OF_WORD for character in characters]
    tokens += [first + second for first, second in merges]
    tokens += [START_OF_TEXT, END_OF_TEXT]
    return Vocabulary(
        encoder={token: i for i, token in enumerate(tokens)},
        decoder=dict(enumerate(tokens)),
        bpe_ranks={pair: rank for rank, pair in enumerate(merges)},
    )


def clean_text(text: str) -> str:
    """Repair wrongly decoded characters, unescape HTML entities (twice), collapse spaces, lowercase."""
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return regex.sub(r"\s+", " ", text).strip().lower()


@lru_cache(maxsize=1 << 16)
def encode_word(word: str, bpe_path: str) -> tuple[int, ...]:
    """Return the ids of a word given as visible characters: the pair learned first is merged first, everywhere."""
    encoder, _, ranks = read_vocabulary(bpe_path)
    if word in (START_OF_TEXT, END_OF_TEXT):
        return (encoder[word],)
    symbols = [*word[:-1], word[-1] + END_OF_WORD]
    while len(symbols) > 1:
        best = min(pairwise(symbols), key=lambda pair: ranks.get(pair, NUM_MERGES))
        if best not in ranks:
            break
        symbols = _merge(symbols, best)
    return tuple(encoder[symbol] for symbol in symbols)


def _merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    merged = []
    i = 0
    while i < len(symbols):
        if tuple(symbols[i : i + 2]) == pair:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(symbols[i])
            i += 1
    return merged


@lru_cache(maxsize=1 << 16)
def encode_text(text: str, bpe_path: str) -> tuple[int, ...]:
    """Return the ids of a text without start and end markers. Cached, since prompts and class names repeat."""
    characters = bytes_to_unicode()
    ids: list[int] = []
    for word in WORD.findall(clean_text(text)):
        ids += encode_word("".join(characters[byte] for byte in word.encode("utf-8")), bpe_path)
    return tuple(ids)


class SimpleTokenizer:
    """Text to token ids and back, with the members of OpenAI's class of this name.

    Creating one is cheap: the vocabulary is read on first use, once per process for all instances.

    Args:
        bpe_path: gzipped merges; CLIP's by default.
    """

    def __init__(self, bpe_path: str | None = None) -> None:
        self.bpe_path = bpe_path or default_bpe()
        self.byte_encoder = bytes_to_unicode()
        self.byte_decoder = {character: byte for byte, character in self.byte_encoder.items()}

    @property
    def encoder(self) -> dict[str, int]:
        """Token string to id."""
        return read_vocabulary(self.bpe_path).encoder

    @property
    def decoder(self) -> dict[int, str]:
        """Id to token string."""
        return read_vocabulary(self.bpe_path).decoder

    @property
    def bpe_ranks(self) -> dict[tuple[str, str], int]:
        """Pair of token strings to the rank of its merge; lower ranks are merged first."""
        return read_vocabulary(self.bpe_path).bpe_ranks

    def bpe(self, token: str) -> str:
        """Return the tokens of a word (given as visible characters), separated by spaces."""
        return " ".join(self.decoder[i] for i in encode_word(token, self.bpe_path))

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, without start and end of text."""
        return list(encode_text(text, self.bpe_path))

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of an iterable of ids; the end of a word becomes a space, invalid UTF-8 becomes U+FFFD."""
        text = "".join(self.decoder[int(token)] for token in tokens)
        data = bytes(self.byte_decoder[character] for character in text)
        return data.decode("utf-8", errors="replace").replace(END_OF_WORD, " ")
