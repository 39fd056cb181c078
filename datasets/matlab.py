"""The reader of MATLAB files, version 5: annotations that consist of numbers, texts, cells and structures.

SciPy's reader ends the process with a segmentation fault on some damaged files, and reserves as much memory as a file
states. This one reads the few kinds of arrays that the datasets use (MathWorks, "MAT-File Level 5 File Format").
"""

import math
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets.text import read_bytes, shortened

MAX_BYTES = 64 * 2**20  # of a file, and of an unpacked variable: the largest annotation file has less than 1 MiB
DEEPEST = 16  # levels of cells and structures in one another
# Types of data elements: codes of struct for numbers, encodings for texts.
_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16-{}", 16: "utf-8", 17: "utf-16-{}", 18: "utf-32-{}"}
_MATRIX, _COMPRESSED = 14, 15
# Classes of arrays; from _FIRST_NUMBER to _LAST_NUMBER they contain numbers.
_CELL, _STRUCT, _CHAR, _FIRST_NUMBER, _LAST_NUMBER = 1, 2, 4, 6, 15


def read_integers(path: Path | str, variable: str) -> list[int]:
    """The numbers of a variable.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file or variable; the message names both.
    """
    return [_plain(value, int, f"{path}, {variable}({i})") for i, value in _entries(path, variable)]


def read_texts(path: Path | str, variable: str) -> list[str]:
    """The texts of a cell array; raises like ``read_integers``."""
    return [_plain(value, str, f"{path}, {variable}({i})") for i, value in _entries(path, variable)]


def read_structures(path: Path | str, variable: str, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """Fields of a structure array: {name: number or text} of each structure; raises like ``read_integers``.

    Args:
        path: the file.
        variable: name of the array.
        fields: names of fields, and what they contain: ``int`` or ``str``.
    """
    structures = []
    for i, record in _entries(path, variable, fields):
        known = record if isinstance(record, dict) else {}
        if absent := [name for name in fields if name not in known]:
            raise ValueError(f"{path}: {variable}({i}) has no field {', '.join(absent)}: download the original file")
        where = f"{path}, {variable}({i})"
        structures.append({name: _plain(known[name], kind, f"{where}.{name}") for name, kind in fields.items()})
    return structures


def _entries(path: Path | str, variable: str, fields: Collection[str] = ()) -> Iterator[tuple[int, Any]]:
    variables = read_variables(path, fields)
    if variable not in variables:
        names = ", ".join(variables) or "none"
        raise ValueError(f"{path} has no variable {variable} (it has: {names}): download the original file")
    value = variables[variable]
    if not isinstance(value, list):
        raise ValueError(f"{path}: {variable} is not an array of numbers, texts or structures: {shortened(value)}")
    return enumerate(value, start=1)


def _plain(value: Any, kind: type, where: str) -> Any:
    """The number or text of an array of one element."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, kind):
        raise ValueError(f"{where} must be {'a text' if kind is str else 'an integer'}, not {shortened(value)}")
    return value


def read_variables(path: Path | str, fields: Collection[str] | None = None) -> dict[str, Any]:
    """The variables of a file: a list of numbers, cells or {field: value} for an array, a text for characters.

    Arrays are flattened, columns first. Objects, functions and sparse arrays are None.

    Args:
        path: the file.
        fields: the fields of structures that are read; all by default.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a MATLAB file of version 5, or a damaged one.
    """
    content = read_bytes(path, MAX_BYTES)
    if content.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise ValueError(f"{path} is a MATLAB 7.3 (HDF5) file: save it with `save -v7`, or download the original file")
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None or not content.startswith(b"MATLAB 5.0"):
        raise ValueError(f"{path} ({len(content)} bytes) is not a MATLAB file of version 5: download it again")
    try:
        return dict(_Reader(order, fields).variables(memoryview(content)[128:]))
    except (ValueError, struct.error, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}): download it again") from error


class _Reader:
    """Reads arrays in one byte order ("<" or ">").

    Args:
        order: the byte order, as in ``struct``.
        fields: the fields of structures that are read; None for all.
    """

    def __init__(self, order: str, fields: Collection[str] | None):
        self.order = order
        self.fields = fields
        self.tag = struct.Struct(f"{order}II").unpack_from

    def variables(self, data: memoryview) -> Iterator[tuple[str, Any]]:
        """(name, value) of every variable."""
        for kind, content in self.elements(data):
            if kind == _COMPRESSED:
                unpacker = zlib.decompressobj()
                unpacked = unpacker.decompress(content, MAX_BYTES)
                if not unpacker.eof:
                    raise ValueError(f"a variable is cut off or has more than {MAX_BYTES // 2**20} MiB")
                kind, content = (self.elements(memoryview(unpacked)) or [(0, content)])[0]
            if kind != _MATRIX:
                raise ValueError(f"an element has the type {kind}, which is no array")
            yield self.array(content, 0)

    def elements(self, data: memoryview) -> list[tuple[int, memoryview]]:
        """(type, content) of the data elements one after the other."""
        found = []
        position, end = 0, len(data)
        while position < end:
            kind, size = self.tag(data, position)
            start = position + 8
            if kind >> 16:  # the small form: type, size and at most four bytes of content in eight bytes
                kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
                position += 8
            else:
                position = start + size + (0 if kind == _COMPRESSED else -size % 8)
            if start + size > end:
                raise ValueError("it is cut off")
            found.append((kind, data[start : start + size]))
        return found

    def array(self, data: memoryview, depth: int) -> tuple[str, Any]:
        """Name and value of an array."""
        if not len(data):
            return "", []
        if depth > DEEPEST:
            raise ValueError("cells and structures are nested too deeply")
        parts = self.elements(data)
        kind = struct.unpack_from(f"{self.order}I", parts[0][1])[0] & 0xFF
        if kind not in (_CELL, _STRUCT, _CHAR) and not _FIRST_NUMBER <= kind <= _LAST_NUMBER:
            return "", None
        if len(parts) < 3:
            raise ValueError("an array has no size or name")
        sizes = struct.unpack(f"{self.order}{len(parts[1][1]) // 4}i", parts[1][1])
        name, inner = str(parts[2][1], "latin-1"), parts[3:]
        count = math.prod(sizes)
        if not sizes or min(sizes) < 0 or count > len(data):
            raise ValueError(f"an array states the size {sizes}, but has {len(data)} bytes")
        if kind == _CHAR:
            return name, "".join(self.text(*part) for part in inner[:1])
        if kind == _CELL:
            self.check_count(inner, count)
            return name, [self.array(cell, depth + 1)[1] for _, cell in inner]
        if kind == _STRUCT:
            return name, self.structures(inner, count, depth)
        numbers = self.numbers(*inner[0]) if inner else []
        if len(numbers) != count:
            raise ValueError(f"an array states the size {sizes}, but has {len(numbers)} numbers")
        return name, numbers

    def structures(self, parts: list[tuple[int, memoryview]], count: int, depth: int) -> list[dict[str, Any]]:
        """{field: value} of each structure of an array."""
        if len(parts) < 2:
            raise ValueError("a structure has no field names")
        (width,) = struct.unpack_from(f"{self.order}i", parts[0][1])
        names = bytes(parts[1][1])
        if width < 1 or len(names) % width:
            raise ValueError(f"field names of {width} bytes do not fit {len(names)} bytes")
        fields = [names[i : i + width].split(b"\0")[0].decode("latin-1") for i in range(0, len(names), width)]
        self.check_count(parts[2:], count * len(fields))
        wanted = [(i, name) for i, name in enumerate(fields, 2) if self.fields is None or name in self.fields]
        starts = range(0, count * len(fields), len(fields) or 1)
        return [{name: self.array(parts[start + i][1], depth + 1)[1] for i, name in wanted} for start in starts]

    def numbers(self, kind: int, data: memoryview) -> list[Any]:
        if kind not in _NUMBERS:
            raise ValueError(f"numbers have the unknown type {kind}")
        code = _NUMBERS[kind]
        return list(struct.unpack(f"{self.order}{len(data) // struct.calcsize(f'={code}')}{code}", data))

    def text(self, kind: int, data: memoryview) -> str:
        if kind not in _TEXTS:
            raise ValueError(f"a text has the unknown type {kind}")
        return str(data, _TEXTS[kind].format("le" if self.order == "<" else "be"))

    @staticmethod
    def check_count(parts: list[tuple[int, memoryview]], count: int) -> None:
        """Raise a ValueError unless there are as many arrays as stated."""
        if len(parts) != count or any(kind != _MATRIX for kind, _ in parts):
            raise ValueError(f"an array states {count} elements, but has {len(parts)}")
