"""Checking what a file holds against a schema of voluptuous, with one error that names the file and the entries.

voluptuous is imported on first use: it takes a third of the time in which a shell entry starts.
"""

import math
import reprlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

__all__ = ["check", "describe", "exactly", "like", "number", "whole"]

_SHOWN = 5  # problems listed in one message


def check(value: Any, schema: Any, source: str, advice: str = "") -> Any:
    """Return ``value`` as ``schema`` accepts it.

    Args:
        schema: what ``voluptuous.Schema`` takes, or a Schema.
        source: the file, or the entry of a file, that the value comes from.
        advice: what to do about a broken one; a sentence.

    Raises:
        ValueError: the value does not fit; lists the first problems, each with its entry and what was found.
    """
    from voluptuous import MultipleInvalid, Schema

    try:
        return Schema(schema)(value)
    except MultipleInvalid as error:
        problems = [_problem(value, found) for found in error.errors]
    except RecursionError:
        problems = ["is nested too deeply"]
    shown = "; ".join(problems[:_SHOWN]) + (f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else "")
    raise ValueError(f"{source} is not valid: {shown}" + (f". {advice}" if advice else "")) from None


def _problem(value: Any, error: Any) -> str:
    path = [getattr(part, "schema", part) for part in error.path]  # the name of an entry that is missing
    entry = ".".join(part if isinstance(part, str) and part.isprintable() else repr(part) for part in path)
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return f"{entry}: {error.msg}"
    return f"{entry or 'the content'}: {error.msg}, found {describe(value)}"


def describe(value: Any) -> str:
    """A short text for an error: the type of a value, and the start of what it holds."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return f"{type(value).__name__} {_short(value)}" if value is not None else "None"
    if hasattr(value, "dtype") and hasattr(value, "layout"):
        return f"a tensor of {value.dtype}"
    if type(value).__name__ == "Placeholder":  # an object of a class that is not read
        return str(value)
    return f"{type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (Mapping, Sequence, set)) else "")


def _short(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of thousands of digits
        return "of thousands of digits"


def number(value: Any) -> Any:
    """Validator: an integer or a float, infinite ones included, but not NaN."""
    from voluptuous import Invalid

    if isinstance(value, bool) or not isinstance(value, (int, float)) or (isinstance(value, float) and value != value):
        raise Invalid("expected a number")
    return value


def whole(low: int, high: float = math.inf) -> Callable[[Any], int]:
    """A validator of integers from ``low`` to ``high``."""

    def validate(value: Any) -> int:
        from voluptuous import Invalid

        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            limit = f" to {high}" if high < math.inf else " on"
            raise Invalid(f"expected a whole number from {low}{limit}")
        return value

    return validate


def like(example: Any) -> Any:
    """A schema of plain values with the structure of ``example``: types, lengths of lists, names.

    Where the example has None, anything fits; entries whose names start with an underscore may be missing.
    """
    from voluptuous import ALLOW_EXTRA, Optional, Required, Schema

    if isinstance(example, Mapping):
        return Schema({_key(key, Optional, Required): like(item) for key, item in example.items()}, extra=ALLOW_EXTRA)
    if isinstance(example, (list, tuple)):
        return exactly([like(item) for item in example])
    if isinstance(example, (bool, str)):
        return type(example)
    return number if isinstance(example, (int, float)) else object


def exactly(schemas: Sequence[Any]) -> Callable[[Any], Any]:
    """A validator of a list with an item for each of the schemas."""

    def validate(value: Any) -> Any:
        from voluptuous import Invalid, Schema

        if not isinstance(value, (list, tuple)) or len(value) != len(schemas):
            raise Invalid(f"expected a list of {len(schemas)}")
        for number, (schema, item) in enumerate(zip(schemas, value, strict=True)):
            try:
                Schema(schema)(item)
            except Invalid as error:
                error.prepend([number])
                raise
        return value

    return validate


def _key(key: Hashable, optional: Any, required: Any) -> Any:
    return optional(key) if isinstance(key, str) and key.startswith("_") else required(key)
