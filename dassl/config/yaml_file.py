"""Reading one YAML file strictly: plain values only, each key once, bounded in size."""

import codecs
import reprlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["MOST_BYTES", "parse_yaml", "read_yaml"]

MOST_BYTES = 2**16  # of a file; the longest one in configs/ has 2 kB
MOST_VALUES = 2**18  # keys, values and characters after aliases (*name) are expanded
DEEPEST = 20  # levels of nesting
_EXPECTED = "expected keys such as 'OPTIM:' with their values"

_TAG = "tag:yaml.org,2002:"
_PLAIN = {f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map", "merge")}


def read_yaml(path: Path) -> Mapping[Any, Any]:
    """The mapping that a YAML file holds; see :func:`parse_yaml`.

    Raises:
        ValueError: as :func:`parse_yaml`, and if the file holds nothing.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        loaded = parse_yaml(file.read(MOST_BYTES + 1), str(path))
    if loaded is None:
        raise ValueError(f"{path} holds nothing, {_EXPECTED}")
    return loaded


def parse_yaml(data: bytes, source: str) -> Mapping[Any, Any] | None:
    """The mapping that a YAML document is; None for an empty one. Dates are strings.

    Raises:
        ValueError: too large or too deep, not UTF-8, not YAML, a key that is set twice, values that are not plain
            (``!!python/…``), or no mapping. The message names the source and the line.
    """
    text = _decode(data, source)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is not None:
            _check_size(root, {}, set())
            _check_tags(root, set())
            _check_keys(root)
        loaded = None if root is None else loader.construct_document(root)
    except (yaml.YAMLError, LookupError, ValueError) as error:
        raise ValueError(f"{source} is not valid YAML: {_reason(error, text)}") from error
    if loaded is not None and not isinstance(loaded, Mapping):
        raise ValueError(f"{source} holds {reprlib.repr(loaded)}, {_EXPECTED}")
    return loaded


def _decode(data: bytes, source: str) -> str:
    if len(data) > MOST_BYTES:
        raise ValueError(f"{source} is larger than {MOST_BYTES // 1024} KiB: is it a configuration file?")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)) or b"\0" in data:
        raise ValueError(f"{source} is not UTF-8 text (UTF-16 or binary): save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{source} is not UTF-8 text: line {line} has the byte 0x{data[error.start]:02X}. Save it as UTF-8"
        ) from error


class _Loader(yaml.SafeLoader):
    """Composes at most DEEPEST levels, and leaves dates and ``=`` as strings."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag in _PLAIN]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.level += 1
        if self.level > DEEPEST:
            raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.level -= 1
        return node


_TOO_DEEP = f"nested in more than {DEEPEST} levels"


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _check_size(node: yaml.Node, sizes: dict[int, tuple[int, int]], parents: set[int]) -> tuple[int, int]:
    """Size and depth of a node with all aliases expanded; each node is visited once."""
    if id(node) in parents:
        raise _error(node, "a value that contains itself")
    if id(node) not in sizes:
        below = [_check_size(child, sizes, parents | {id(node)}) for child in _children(node)]
        own = len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        size, depth = 1 + own + sum(size for size, _ in below), 1 + max((depth for _, depth in below), default=0)
        if size > MOST_VALUES:
            raise _error(node, f"aliases that expand to more than {MOST_VALUES:,} values and characters")
        if depth > DEEPEST:
            raise _error(node, _TOO_DEEP)
        sizes[id(node)] = size, depth
    return sizes[id(node)]


def _check_tags(node: yaml.Node, done: set[int]) -> None:
    if id(node) in done:
        return
    done.add(id(node))
    if node.tag not in _PLAIN:
        tag = node.tag.replace(_TAG, "!!")
        raise _error(node, f"the tag {tag[:80]} is not allowed: only numbers, strings, True, False, lists and keys")
    for child in _children(node):
        _check_tags(child, done)


def _check_keys(root: yaml.Node) -> None:
    lines: dict[str, list[int]] = defaultdict(list)
    for key, line in _keys(root, ""):
        lines[key].append(line)
    twice = [f"{key} is set twice, in lines {found[0]} and {found[1]}" for key, found in lines.items() if found[1:]]
    if twice:
        raise yaml.YAMLError("; ".join(twice[:10]) + ": remove one of them")


def _keys(node: yaml.Node, prefix: str) -> Iterator[tuple[str, int]]:
    """Every key as a dotted name with its line. A key may override one that ``<<`` merges in."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _keys(item, f"{prefix}{index}.")
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _error(key, "a key that is a list or a mapping")
            yield f"{prefix}{key.value}", key.start_mark.line + 1
            yield from _keys(value, f"{prefix}{key.value}.")


def _error(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _reason(error: Exception, text: str) -> str:
    """What is wrong and in which line, in one line."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        tabs = " (indent with spaces instead of tabs)" if "'\\t'" in reason else ""
        return f"{line}{reason}{tabs}"
    if isinstance(error, yaml.reader.ReaderError):
        number = text.count("\n", 0, error.position) + 1
        return f"line {number}: the character {chr(error.character)!r} is not allowed"
    if isinstance(error, LookupError):
        return f"a value does not suit its tag ({error})"
    return "a number that cannot be read (too many digits?)" if isinstance(error, ValueError) else str(error)
