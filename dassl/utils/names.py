"""Names that users give: available or close to an available one; class names and the prompts around them."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = [
    "DEFAULT_TEMPLATE",
    "DEVICES",
    "bare",
    "check_availability",
    "closest_device",
    "closest_hint",
    "fill",
    "first_few",
    "get_most_similar_str_to_a_from_b",
    "is_device",
    "is_template",
    "readable",
    "tolist_if_not",
]

# The hand-written prompt for datasets that have none of their own.
DEFAULT_TEMPLATE = "a photo of a {}."
# The names that a device may have; N is the number of a GPU, from 0.
DEVICES = ("auto", "cpu", "cuda", "cuda:N", "mps")


def readable(classname: str) -> str:
    """The words of a class name: underscores are spaces."""
    return classname.replace("_", " ")


def is_template(text: str) -> bool:
    """Whether a text is a prompt with one place ``{}`` for the class name, and no other braces."""
    return text.count("{}") == text.count("{") == text.count("}") == 1


def is_device(name: str) -> bool:
    """Whether a name is one of `DEVICES`."""
    return re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?|mps", name) is not None


def closest_device(name: str) -> str:
    """The hint of :func:`closest_hint`; "gpu" and a number mean a GPU."""
    name = "cuda" if "gpu" in name.lower() else f"cuda:{name}" if re.fullmatch("[0-9]{1,3}", name) else name
    return closest_hint(name, [name] if is_device(name) else DEVICES)


def fill(template: str, classnames: Sequence[str]) -> list[str]:
    """The prompt of each class: its name in place of the template's `{}`."""
    return [template.format(readable(name)) for name in classnames]


def get_most_similar_str_to_a_from_b(a: str, b: Iterable[str]) -> str | None:
    """Return the string of ``b`` that is most similar to ``a``, None if ``b`` is empty."""
    return max(b, key=lambda text: difflib.SequenceMatcher(None, a, text).ratio(), default=None)


def bare(name: str) -> str:
    """A name in lower case, without punctuation: "Caltech-101" → "caltech101"."""
    return "".join(character for character in name.lower() if character.isalnum())


def closest_hint(name: str, available: Iterable[str]) -> str:
    """Return `` (did you mean X or Y?).`` with up to three similar names, else ``.``, to end an error's first sentence.

    Case is ignored. A name that is much less similar than the closest one is left out.
    """
    by_lower: dict[str, str] = {}
    for candidate in available:
        by_lower.setdefault(candidate.lower(), candidate)
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=3, cutoff=0.5)
    similar = [difflib.SequenceMatcher(None, text, str(name).lower()).ratio() for text in close]
    close = [text for text, ratio in zip(close, similar, strict=True) if ratio >= 0.7 * similar[0]]
    return f" (did you mean {' or '.join(by_lower[text] for text in close)}?)." if close else "."


def check_availability(requested: str, available: Iterable[str], key: str = "") -> None:
    """Check that ``requested``, the value of the option ``key``, is one of ``available``.

    Raises:
        ValueError: it is not; the message holds the closest names and all available ones.
    """
    available = list(available)
    if requested not in available:
        raise ValueError(
            f"{key + ' ' if key else ''}'{requested}' is not available{closest_hint(requested, available)}"
            f" It should be one of: {', '.join(sorted(available)) or 'nothing yet'}"
        )


def tolist_if_not(x: Any) -> list[Any]:
    """Return ``x`` if it is a list, else a list that holds only ``x``."""
    return x if isinstance(x, list) else [x]


def first_few(items: Iterable[object], count: int = 5) -> str:
    """Return the first items as text: ``3, 7, 9, … (12 in total)``."""
    listed = list(items)
    text = ", ".join(str(item) for item in listed[:count])
    return text if len(listed) <= count else f"{text}, … ({len(listed)} in total)"
