"""What the values of configuration keys are checked with: each function makes one validator for voluptuous.

A validator's message is what is expected, to be read after "KEY: VALUE, expected".
"""

import math
import os
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from voluptuous import Invalid

from dassl.utils.names import DEVICES, closest_device, is_device, is_template

Check = Callable[[Any], Any]

__all__ = [
    "Check",
    "device",
    "flag",
    "list_of",
    "megabytes",
    "number",
    "odd",
    "one_of",
    "rising_fractions",
    "switch",
    "template",
    "text",
    "whole",
]


def _check(expected: str, holds: Callable[[Any], bool]) -> Check:
    def check(value: Any) -> Any:
        if not holds(value):
            raise Invalid(expected)
        return value

    check.__doc__ = expected
    return check


def flag() -> Check:
    return _check("True or False", lambda value: isinstance(value, bool))


def switch(*others: str) -> Check:
    """on, off, or one of some other words."""
    words = f"{', '.join(['on', *others])} or off"
    return _check(f'{words} (in a YAML file "on" or "off")', lambda value: value in ("on", "off", *others))


def text() -> Check:
    return _check("text without NUL characters", lambda value: isinstance(value, str) and "\0" not in value)


def template() -> Check:
    """A prompt for the class names."""
    return _check(
        "a prompt with {} once, where the class name goes, and no other braces, or empty for the dataset's own",
        lambda value: isinstance(value, str) and (not value or (is_template(value) and value.isprintable())),
    )


def device() -> Check:
    """The name of a device. Whether the device is there, dassl/utils/device.py says."""
    expected = f"one of {', '.join(DEVICES)} (N is the number of a GPU, from 0)"

    def check(value: Any) -> Any:
        if not (isinstance(value, str) and is_device(value)):
            raise Invalid(expected + closest_device(str(value)[:100]).removesuffix("."))
        return value

    check.__doc__ = expected
    return check


def whole(low: int, high: int, or_else: dict[int, str] | None = None) -> Check:
    """An integer from ``low`` to ``high``, or one of ``or_else``, which gives the meaning of each."""
    others = or_else or {}
    expected = f"a whole number from {low} to {high:,}"
    expected += "".join(f", or {other} ({meaning})" for other, meaning in others.items())
    return _check(expected, lambda value: type(value) is int and (low <= value <= high or value in others))


def number(
    low: float | None = None, high: float | None = None, *, above: float | None = None, below: float | None = None
) -> Check:
    """A finite number from ``low`` to ``high``, or greater than ``above`` or less than ``below``."""
    bounds = {"from": low, "above": above, "and at most" if low is None else "to": high, "and below": below}
    expected = " ".join(
        ["a finite number", *(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)]
    )

    def holds(value: Any) -> bool:
        return (
            type(value) in (int, float)
            and math.isfinite(value)
            and (low is None or value >= low)
            and (high is None or value <= high)
            and (above is None or value > above)
            and (below is None or value < below)
        )

    return _check(expected, holds)


def one_of(*choices: str) -> Check:
    """One of some names; the message has the closest ones."""
    listed = ", ".join(choice or '""' for choice in choices)

    def check(value: Any) -> Any:
        if value not in choices:
            by_lower = {choice.lower(): choice for choice in choices}
            close = get_close_matches(str(value)[:100].lower(), by_lower, n=2, cutoff=0.5)
            hint = f" (did you mean {' or '.join(by_lower[name] for name in close)}?)" if close else ""
            raise Invalid(f"one of {listed}{hint}")
        return value

    check.__doc__ = f"one of {listed}"
    return check


def list_of(item: Check, count: int | None = None, least: int = 0, or_empty: bool = False) -> Check:
    """A list or tuple, each entry of which passes ``item``: of ``count`` entries, or of at least ``least``.

    Args:
        or_empty: one without entries passes, too.
    """
    length = f"{count} entries" if count is not None else f"at least {least} entries" if least else "entries"
    length += " or none" if or_empty else ""

    def check(value: Any) -> Any:
        expected = f"a list of {length}, each {item.__doc__}"
        if isinstance(value, (list, tuple)) and not value and or_empty:
            return value
        fits = isinstance(value, (list, tuple)) and (len(value) == count if count is not None else len(value) >= least)
        if not fits:
            raise Invalid(expected)
        for entry in value:
            try:
                item(entry)
            except Invalid as error:
                raise Invalid(f"a list of {length}, each {error.msg}") from error
        return value

    check.__doc__ = f"a list of {length}, each {item.__doc__}"
    return check


def rising_fractions() -> Check:
    def holds(value: Any) -> bool:
        numbers = isinstance(value, (list, tuple)) and len(value) == 2 and all(type(x) in (int, float) for x in value)
        return numbers and 0 < value[0] <= value[1] <= 1

    return _check("two numbers above 0 and up to 1, the smaller one first", holds)


def megabytes(usual: int) -> Check:
    """MiB of memory: from 0 to what the machine has, at least ``usual``."""
    high = max(usual, _memory_mib())
    expected = f"from 0 to {high:,} (MiB, the machine's memory)"
    check = _check(expected, lambda value: type(value) is int and 0 <= value <= high)
    check.__doc__ = "MiB from 0 to the machine's memory"
    return check


def odd(high: int) -> Check:
    expected = f"an odd number from 1 to {high:,}"
    return _check(expected, lambda value: type(value) is int and 1 <= value <= high and value % 2 == 1)


def _memory_mib() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, ValueError, OSError):  # Windows
        return 2**20
