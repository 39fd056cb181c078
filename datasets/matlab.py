"""The reader of MATLAB files, version 5: annotations that consist of numbers, texts and structures.

Files are checked before SciPy reads them: what a file says about its sizes decides how much memory SciPy takes.
"""

import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.text import read_bytes, shortened

if TYPE_CHECKING:
    import numpy as np

MAX_BYTES = 64 * 2**20  # of a file, and of its unpacked content: the largest annotation file has less than 1 MiB
DEEPEST = 16  # structures in structures
_MATRIX, _COMPRESSED = 14, 15  # types of data elements
_CELL, _STRUCT, _OBJECT, _SPARSE, _FUNCTION = 1, 2, 3, 5, 16  # classes of arrays; those from _FUNCTION on are code


def read_integers(path: Path | str, variable: str) -> list[int]:
    """The numbers of a variable.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file or variable; the message names both.
    """
    values = _read(path, variable).ravel().tolist()
    return [_plain(value, int, f"{path}, {variable}({number})") for number, value in enumerate(values, start=1)]


def read_texts(path: Path | str, variable: str) -> list[str]:
    """The texts of a cell array; raises like ``read_integers``."""
    cells = _read(path, variable).ravel()
    return [_plain(cell, str, f"{path}, {variable}{{{number}}}") for number, cell in enumerate(cells, start=1)]


def read_structures(path: Path | str, variable: str, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    """Fields of a structure array: {name: number or text} of each structure; raises like ``read_integers``.

    Args:
        path: the file.
        variable: name of the array.
        fields: names of fields, and what they contain: ``int`` or ``str``.
    """
    array = _read(path, variable)
    if absent := [name for name in fields if name not in (array.dtype.names or ())]:
        raise ValueError(f"{path}: {variable} has no field {', '.join(absent)}: download the original file")
    return [
        {name: _plain(record[name], kind, f"{path}, {variable}({number}).{name}") for name, kind in fields.items()}
        for number, record in enumerate(array.ravel(), start=1)
    ]


def _plain(value: Any, kind: type, where: str) -> Any:
    """The only number or text of an array."""
    import numpy as np

    array = np.asarray(value)
    if array.size == 1 and array.dtype.kind in ("U" if kind is str else "iuf"):
        item = array.item()
        if kind is str or float(item).is_integer():
            return kind(item)
    raise ValueError(f"{where} must be {'a text' if kind is str else 'an integer'}, not {shortened(value)}")


def _read(path: Path | str, variable: str) -> "np.ndarray":
    """A variable of a file, as SciPy reads it."""
    content = read_bytes(path, MAX_BYTES)
    if content.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise ValueError(f"{path} is a MATLAB 7.3 (HDF5) file: save it with `save -v7`, or download the original file")
    if len(content) < 128 or not content.startswith(b"MATLAB 5.0"):
        raise ValueError(f"{path} ({len(content)} bytes) is not a MATLAB file of version 5: download it again")
    from scipy.io import loadmat  # here, since importing it takes a third of a second

    try:
        order = {b"IM": "<", b"MI": ">"}[content[126:128]]
        _check_sizes(memoryview(content)[128:], order, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            variables = loadmat(io.BytesIO(content))
    except Exception as error:  # a damaged file can fail in any way
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}): download it again") from error
    if variable not in variables:
        names = ", ".join(name for name in variables if not name.startswith("__"))
        raise ValueError(f"{path} has no variable {variable} (it has: {names}): download the original file")
    return variables[variable]


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """(type, content) of the data elements one after the other."""
    position = 0
    while position < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, position)
        start = position + 8
        if kind >> 16:  # the small form: type, size and at most four bytes of content in eight bytes
            kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
            position += 8
        else:
            position = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > len(data):
            raise ValueError("it is cut off")
        yield kind, data[start : start + size]


def _check_sizes(data: memoryview, order: str, depth: int) -> None:
    """Raise a ValueError if an array states more elements than its bytes can hold, or contains code."""
    if depth > DEEPEST:
        raise ValueError("its structures are nested too deeply")
    for kind, content in _elements(data, order):
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            unpacked = unpacker.decompress(content, MAX_BYTES)
            if unpacker.unconsumed_tail or not unpacker.eof:
                raise ValueError(f"a variable is cut off or has more than {MAX_BYTES // 2**20} MiB")
            _check_sizes(memoryview(unpacked), order, depth + 1)
        elif kind == _MATRIX and len(content):
            _check_array(content, order, depth)


def _check_array(content: memoryview, order: str, depth: int) -> None:
    parts = list(_elements(content, order))
    if len(parts) < 3 or len(parts[0][1]) != 8:
        raise ValueError("an array has no header")
    kind = struct.unpack_from(f"{order}I", parts[0][1])[0] & 0xFF
    if kind in (_OBJECT, _SPARSE) or kind >= _FUNCTION:
        raise ValueError("it contains objects, functions or sparse arrays")
    sizes = struct.unpack(f"{order}{len(parts[1][1]) // 4}i", parts[1][1])
    smallest = 8 if kind in (_CELL, _STRUCT) else 1  # bytes of an element
    if min(sizes, default=-1) < 0 or math.prod(sizes) * smallest > len(content):
        raise ValueError(f"an array states the size {sizes}, but has {len(content)} bytes")
    for inner, data in parts[3:]:
        if inner == _MATRIX and len(data):
            if depth >= DEEPEST:
                raise ValueError("its structures are nested too deeply")
            _check_array(data, order, depth + 1)
