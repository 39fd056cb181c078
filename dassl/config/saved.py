"""Reading the configuration that a run has saved, which anything may have happened to since."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

import yaml

from dassl.config.merge import flatten

__all__ = ["MOST_BYTES", "saved_settings"]

MOST_BYTES = 2**17  # a configuration takes 5 kB; PyYAML takes seconds for this many
_MOST_KEYS = 10_000  # aliases make a short text stand for any number of keys


def saved_settings(text: str | bytes, source: str) -> dict[str, Any]:
    """The leaves of a YAML text as {"OPTIM.LR": value}; empty if the text is.

    Raises:
        ValueError: it is not valid YAML, holds something other than keys, or is far too long for a configuration.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"{source} is not a configuration: it is longer than {MOST_BYTES} bytes")
    try:
        content = yaml.safe_load(text)
    except Exception as error:  # PyYAML's constructors raise all kinds: KeyError for !!bool x, IndexError for !!int
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{source} is not valid YAML: {reason}") from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ValueError(f"{source} holds {type(content).__name__}, expected keys such as 'OPTIM:' with their values")
    try:
        leaves = list(islice(flatten(content), _MOST_KEYS + 1))
    except RecursionError:
        leaves = []
    if len(leaves) > _MOST_KEYS or (content and not leaves):
        raise ValueError(f"{source} is not a configuration: it has too many keys, or keys nested too deeply")
    return dict(leaves)
