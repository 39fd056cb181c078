"""The words after an entry's own arguments: KEY VALUE, KEY=VALUE, and flags of train.py that the entry leaves open."""

import re
from collections.abc import Sequence

from dassl.utils.names import closest_hint

__all__ = ["split_options"]

_KEYS_OF_FLAGS = {
    "--backbone": "MODEL.BACKBONE.NAME",
    "--device": "DEVICE",
    "--head": "MODEL.HEAD.NAME",
    "--resume": "RESUME",
}
_SWITCHES = ("--no-train",)
_SET_BY_ENTRY = {
    "--root": "DATA=<folder> before the command",
    "--output-dir": "OUTPUT=<folder> before the command",
    "--seed": "the argument SEED",
    "--trainer": "the entry of another folder of scripts/",
    "--config-file": "CFG=<config> before the command",
    "--dataset-config-file": "the argument DATASET",
    "--load-epoch": "LOADEP=<epoch> before the command",
    "--model-dir": "the entry reproduce.sh, which tests weights from a folder",
    "--eval-only": "a test entry, such as base2new_test.sh",
    "--transforms": "the pair INPUT.TRANSFORMS \"['random_flip', ...]\"",
    "--source-domains": "the pair DATASET.SOURCE_DOMAINS \"['...']\"",
    "--target-domains": "the pair DATASET.TARGET_DOMAINS \"['...']\"",
}


def split_options(words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split the words that follow an entry's arguments.

    Returns:
        Pairs as KEY, VALUE, KEY, VALUE, … (the last value may be missing); flags without a value.

    Raises:
        ValueError: a number as a key, or a flag that the entry sets itself or that is unknown.
    """
    pairs: list[str] = []
    switches: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.partition("=")
        if word in _SWITCHES:
            switches.append(word)
            continue
        if word.startswith("--"):
            name = _key_of_flag(name)
        if equals:
            pairs += [name, value]
        else:
            pairs += [name, *left[:1]]
            del left[:1]
        if re.match(r"-?[0-9]|$", name):
            raise ValueError(f"'{' '.join(words)}': expected pairs KEY VALUE such as OPTIM.LR 0.002")
    return tuple(pairs), tuple(switches)


def _key_of_flag(flag: str) -> str:
    if flag in _SET_BY_ENTRY:
        raise ValueError(f"{flag} is set by {_SET_BY_ENTRY[flag]}")
    if flag not in _KEYS_OF_FLAGS:
        known = [*_KEYS_OF_FLAGS, *_SWITCHES, *_SET_BY_ENTRY]
        raise ValueError(f"no flag '{flag}'{closest_hint(flag, known)} There are {', '.join(known[:5])}, and KEY VALUE")
    return _KEYS_OF_FLAGS[flag]
