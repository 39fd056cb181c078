"""Reading values from a JSON object that somebody else wrote, with their types and sizes checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

MAX_COUNT = 1 << 20  # of a width, a vocabulary or the like


class Anything(tuple[Any, ...]):
    """A collection that holds every value."""

    def __contains__(self, value: object) -> bool:
        return True


ANYTHING = Anything()


class JsonObject:
    """A JSON object, read entry by entry. An entry that is null counts as left out.

    Args:
        content: the object.
        name: of the object, for messages.
        where: what comes before the name in messages, such as the file.

    The errors of all methods are ValueErrors with the entry, what it is and what was expected.
    """

    def __init__(self, content: Mapping[str, Any], name: str, where: str = "") -> None:
        self.content, self.name, self.where = content, name, where

    def node(self, key: str) -> JsonObject:
        """The object at `key`, empty if it is left out."""
        found = self._get(key, {}, lambda value: isinstance(value, dict), "an object")
        return JsonObject(found, key, self.where)

    def flag(self, key: str) -> bool:
        return self._get(key, False, lambda value: isinstance(value, bool), "true or false")

    def text(self, key: str, default: str = "") -> str:
        return self._get(key, default, lambda value: isinstance(value, str), "a text")

    def count(self, key: str, default: int | None = None, most: int = MAX_COUNT) -> Any:
        """A whole number from 1 to `most`."""
        return self._get(key, default, lambda value: _is_count(value, most), f"a whole number from 1 to {most:,}")

    def counts(self, key: str, length: int, most: int = MAX_COUNT) -> tuple[int, ...]:
        """A list of `length` such numbers."""
        expected = f"a list of {length} whole numbers from 1 to {most:,}"
        return tuple(
            self._get(key, None, lambda value: _is_list(value, length, lambda x: _is_count(x, most)), expected)
        )

    def side(self, key: str, default: int | None = None) -> Any:
        """The side of a square, stated as one number or as two equal ones."""
        value = self.content.get(key)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            return JsonObject({key: value[0]}, self.name, self.where).count(key)
        return self.count(key, default)

    def number(self, key: str, default: float, above: float, below: float) -> float:
        expected = f"a number above {above:g} and below {below:g}"
        return float(self._get(key, default, lambda value: _is_number(value) and above < value < below, expected))

    def channels(self, key: str, above: float) -> tuple[float, ...] | None:
        """Three numbers above `above` and at most 1, one for each color; None if they are left out."""

        def fits(value: Any) -> bool:
            return _is_list(value, 3, lambda x: _is_number(x) and above < x <= 1)

        found = self._get(key, None, fits, f"three numbers above {above:g} and at most 1")
        return None if found is None else tuple(float(x) for x in found)

    def others(self, known: Mapping[str, tuple[Any, ...]]) -> Iterator[str]:
        """The entries that have none of the values in `known`, as texts. One that is off or empty is left out."""
        for key, value in self.content.items():
            off = value is None or value is False or value == 0 or value in ("", [], {})
            if not off and value not in known.get(key, ()):
                yield f"{self.name}.{key} {_shown(value)}" if self.name else f"{key} {_shown(value)}"

    def _get(self, key: str, default: Any, fits: Callable[[Any], bool], expected: str) -> Any:
        value = self.content.get(key)
        if value is None:
            return default
        if not fits(value):
            name = f"{self.name}.{key}" if self.name else key
            raise ValueError(f"{self.where}: {name} is {_shown(value)}, expected {expected}")
        return value


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_list(value: Any, length: int, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) == length and all(map(fits, value))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
