"""Reading what ``torch.save`` or ``torch.jit.save`` wrote, without executing anything in it.

The files are read as data: tensors, numbers, texts and plain containers. Objects of any other class, such as the
scheduler in published checkpoints, come as an inert :class:`Placeholder`; a TorchScript archive gives its tensors by
name, and its program is not even read. Everything that a file states is checked against the file: each name stands once
in an archive, no entry overlaps another, and the checksum of each one that is read, its size and the extent of each
tensor in its storage hold. A file that does not pass gives a ValueError, in time and memory bounded by its size.
"""

from __future__ import annotations

import io
import os
import struct
import sys
import zipfile
import zlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dassl.utils.file_kinds import START_LENGTH, describe
from dassl.utils.plain_pickle import MAX_DEPTH, Placeholder, PlainUnpickler, plain_key

__all__ = ["Placeholder", "is_torchscript", "load_plain", "read_plain"]

MAX_PICKLE = 64 << 20  # bytes; that of a checkpoint of 1,000 tensors has 0.2 MB
MAX_DIRECTORY = 16 << 20  # bytes of a zip's list of entries, which has about 60 for each one
MAX_RATIO = 10  # times its size that an archive unpacks to; torch does not compress, and weights hardly shrink
MAX_EXPANDED = 1 << 20  # elements of a tensor that has more of them than its storage
MAX_NAMES = 100_000  # of tensors in a TorchScript archive
CHUNK = 1 << 20  # bytes that are read and checked at once, while they are in the processor's cache

_ZIP_START = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before version 1.6
_TYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
_STORAGE_TYPES = {f"torch.{name}Storage": dtype for name, dtype in _TYPES.items()}
_STORAGE_TYPES["torch.storage.UntypedStorage"] = torch.uint8
_REBUILD = "torch._utils._rebuild_"


class _Storage(Placeholder):
    """The bytes of tensors, with the type that one of them gives them."""

    __slots__ = ("data", "dtype")

    def __init__(self, data: Tensor, dtype: torch.dtype) -> None:
        super().__init__("torch.storage.TypedStorage", ())
        self.data, self.dtype = data, dtype  # data: (bytes,), uint8


def load_plain(path: str | Path) -> Any:
    """Return the content of a file written by ``torch.save``, tensors on the CPU; nothing in it is executed.

    Raises:
        ValueError: not such a file, truncated, damaged, or a TorchScript archive (which is a program).
    """
    path = Path(path)
    if is_torchscript(path):
        raise ValueError(f"{path} is a TorchScript archive, which is a program, not a checkpoint of weights")
    try:
        return read_plain(path)
    except ValueError as error:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is not a readable checkpoint: {error}."
            " It may be truncated (download or copy it again) or not a file of torch.save"
        ) from error


def is_torchscript(path: str | Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    with open(path, "rb") as file:
        if file.read(4) != _ZIP_START:
            return False
        try:
            return _Archive(file).is_torchscript
        except ValueError:
            return False


def read_plain(path: str | Path) -> Any:
    """Like :func:`load_plain`; of a TorchScript archive, the tensors by name, as its ``state_dict()`` has them.

    Raises:
        ValueError: says only why the file cannot be read, as ``it is …``.
    """
    with open(path, "rb") as file:
        start, size = file.read(START_LENGTH), os.fstat(file.fileno()).st_size
        try:
            if start.startswith(_ZIP_START):
                return _read_archive(_Archive(file))
            if start.startswith(b"\x80"):
                return _read_legacy(file, size)
        except _NotOfTorch:
            pass
        except (ValueError, MemoryError, RuntimeError, OverflowError, struct.error) as error:
            raise ValueError(str(error).strip().split("\n")[0][:300] or type(error).__name__) from error
        raise ValueError(describe(start, size))


class _NotOfTorch(ValueError):
    """A pickle that torch.save did not write."""


class _Directory:
    """A file for :mod:`zipfile`, which reads an archive's directory at once, however large."""

    def __init__(self, file: Any) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"its directory has {size:,} bytes")
        return self._read(size)


class _Archive:
    """The entries of a zip archive as torch writes it: `<folder>/data.pkl` and a file per storage.

    Raises:
        ValueError: it has no such directory, a name twice, entries that overlap or unpack to too much, or other ones.
    """

    def __init__(self, file: Any) -> None:
        self.file = file
        try:
            with zipfile.ZipFile(_Directory(file)) as archive:  # type: ignore[arg-type]
                entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            UnicodeDecodeError,
            struct.error,
            IndexError,
            OSError,
        ) as error:
            raise ValueError(
                f"it is a zip archive whose directory, at its end, cannot be read ({error}): it was cut or damaged"
            ) from error
        self._entries = {entry.filename: entry for entry in entries}
        size = os.fstat(file.fileno()).st_size
        ends = [*(entry.header_offset for entry in entries[1:]), size]
        self._ends = {entry.filename: end for entry, end in zip(entries, ends, strict=True)}
        if len(self._entries) < len(entries):
            twice = Counter(entry.filename for entry in entries).most_common(1)[0][0]
            raise ValueError(f"the name {twice!r} stands more than once in the archive, which torch never writes")
        for entry, end in zip(entries, ends, strict=True):
            if entry.header_offset < 0 or entry.header_offset + 30 + entry.compress_size > end:
                raise ValueError(f"its entry {entry.filename!r} overlaps the next one, or is cut")
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > MAX_RATIO * size + MAX_PICKLE:
            raise ValueError(f"it is {size:,} bytes that state to unpack to {unpacked:,}, far more than weights do")
        pickles = [name for name in self._entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            names = ", ".join(name[:60] for name in list(self._entries)[:5]) + (", …" if len(entries) > 5 else "")
            raise ValueError(f"it is a zip archive of other files ({names or 'none'}), not one of torch.save")
        self._folder = pickles[0].removesuffix("data.pkl")
        self.is_torchscript = f"{self._folder}constants.pkl" in self._entries

    def size(self, name: str) -> int | None:
        """The bytes of an entry, None if there is none."""
        entry = self._entries.get(self._folder + name)
        return None if entry is None else entry.file_size

    def read(self, name: str, limit: int) -> bytes:
        """An entry of at most `limit` bytes."""
        size = self.size(name) or 0
        if size > limit:
            raise ValueError(f"its entry {name!r} has {size:,} bytes, expected at most {limit:,}")
        content = bytearray(size)
        self.read_into(name, content)
        return bytes(content)

    def read_into(self, name: str, buffer: Any) -> None:
        """Fill `buffer` with an entry of exactly that size."""
        entry = self._entries.get(self._folder + name)
        if entry is None:
            raise ValueError(f"its entry {name!r} is missing")
        if entry.file_size != len(buffer):
            raise ValueError(f"its entry {name!r} has {entry.file_size:,} bytes, its tensors state {len(buffer):,}")
        self._go_to(entry)
        if entry.compress_type == zipfile.ZIP_STORED:
            checksum = self._copy(entry, memoryview(buffer))
        elif entry.compress_type == zipfile.ZIP_DEFLATED:
            checksum = self._inflate(entry, memoryview(buffer))
        else:
            raise ValueError(f"its entry {name!r} is compressed in another way than deflate")
        if checksum != entry.CRC and entry.CRC:  # torch writes 0 where it is told to compute none
            raise ValueError(f"its entry {name!r} is damaged: its checksum does not hold")

    def _go_to(self, entry: zipfile.ZipInfo) -> None:
        """Move the file's position to an entry's bytes."""
        self.file.seek(entry.header_offset)
        header = struct.unpack("<4s5H3L2H", self.file.read(30))
        name = entry.orig_filename.encode("utf-8" if entry.flag_bits & 0x800 else "cp437")
        if header[0] != _ZIP_START or self.file.read(header[9]) != name:
            raise ValueError(f"its entry {entry.filename!r} does not begin where the archive's directory says")
        if entry.flag_bits & 1:
            raise ValueError(f"its entry {entry.filename!r} is encrypted")
        start = entry.header_offset + 30 + header[9] + header[10]
        if start + entry.compress_size > self._ends[entry.filename]:
            raise ValueError(f"its entry {entry.filename!r} overlaps the next one, or is cut")
        self.file.seek(start)

    def _copy(self, entry: zipfile.ZipInfo, view: memoryview) -> int:
        """Fill `view` with a stored entry; returns the checksum."""
        checksum = 0
        for start in range(0, len(view), CHUNK):
            part = view[start : start + CHUNK]
            if self.file.readinto(part) != len(part):
                raise ValueError(f"its entry {entry.filename!r} is cut")
            checksum = zlib.crc32(part, checksum)
        return checksum

    def _inflate(self, entry: zipfile.ZipInfo, view: memoryview) -> int:
        """Fill `view` with a deflated entry; returns the checksum."""
        unzip, checksum, position = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
        for start in range(0, entry.compress_size, CHUNK):
            packed = self.file.read(min(CHUNK, entry.compress_size - start))
            try:
                part = unzip.decompress(packed, len(view) - position + 1)
            except zlib.error as error:
                raise ValueError(f"its entry {entry.filename!r} is damaged ({error})") from error
            if position + len(part) > len(view):
                break
            view[position : position + len(part)] = part
            position, checksum = position + len(part), zlib.crc32(part, checksum)
        if position != len(view) or not unzip.eof:
            raise ValueError(f"its entry {entry.filename!r} does not have the size that the directory states")
        return checksum


def _read_archive(archive: _Archive) -> Any:
    order = archive.read("byteorder", 16) if archive.size("byteorder") is not None else b"little"
    if order not in (b"little", b"big"):
        raise ValueError(f"its byte order is {order!r}")
    storages: dict[str, Tensor] = {}

    def storage(persistent_id: Any) -> _Storage:
        dtype, key, size = _storage_id(persistent_id)
        if key not in storages:
            found = archive.size(f"data/{key}")
            if found is not None and found != size:  # before memory is taken
                raise ValueError(f"its entry 'data/{key}' has {found:,} bytes, its tensors state {size:,}")
            storages[key] = torch.empty(size if found is not None else 0, dtype=torch.uint8)
            archive.read_into(f"data/{key}", storages[key].numpy())
            if order.decode() != sys.byteorder:
                storages[key].untyped_storage().byteswap(dtype)
        elif len(storages[key]) != size:
            raise ValueError(f"the storage {key} has two sizes")
        return _Storage(storages[key], dtype)

    content = _unpickler(storage).load(io.BytesIO(archive.read("data.pkl", MAX_PICKLE)))
    return _module_tensors(content) if archive.is_torchscript else content


def _read_legacy(file: Any, size: int) -> Any:
    """What torch.save before version 1.6 wrote: three pickles about the file, the content, the keys of the storages,
    and each one's number of elements and bytes."""
    file.seek(0)
    stream = io.BytesIO(file.read(MAX_PICKLE))
    storages: dict[str, _Storage] = {}
    left = size

    def storage(persistent_id: Any) -> Any:
        nonlocal left
        if isinstance(persistent_id, tuple) and persistent_id[:1] == ("module",):
            return persistent_id[1]  # with the source of a module's class
        *head, view = persistent_id
        if view is not None:
            raise ValueError("it holds storages that are parts of others, as PyTorch 0.3 saved them")
        dtype, key, size = _storage_id(tuple(head))
        if key not in storages:
            left -= size
            if left < 0:
                raise ValueError(f"the storage {key} is larger than the rest of the file: it was cut")
            storages[key] = _Storage(torch.empty(size, dtype=torch.uint8), dtype)
        elif len(storages[key].data) != size:
            raise ValueError(f"the storage {key} has two sizes")
        return _Storage(storages[key].data, dtype)

    unpickler = _unpickler(storage)
    try:
        magic = unpickler.load(stream)
    except ValueError as error:
        raise _NotOfTorch from error
    if magic != _LEGACY_MAGIC:
        raise _NotOfTorch
    unpickler.load(stream)  # the version
    about = unpickler.load(stream)
    content = unpickler.load(stream)
    keys = unpickler.load(stream)
    if not isinstance(keys, list) or any(not isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise ValueError("the list of its storages does not fit its content")
    file.seek(stream.tell())
    for key in keys:
        data, dtype = storages[key].data, storages[key].dtype
        count = file.read(8)
        if len(count) < 8 or struct.unpack("<q", count)[0] * dtype.itemsize != len(data):
            raise ValueError(f"the storage {key} does not have the size that its tensors state: the file was cut")
        if file.readinto(data.numpy()) != len(data):
            raise ValueError(f"the storage {key} is cut")
        if isinstance(about, dict) and about.get("little_endian", True) != (sys.byteorder == "little"):
            data.untyped_storage().byteswap(dtype)
    return content


def _storage_id(persistent_id: Any) -> tuple[torch.dtype, str, int]:
    """Type, key and bytes of the storage that a persistent id names."""
    kind, name, key, _, count = persistent_id
    origin = name.origin if isinstance(name, Placeholder) else "none"
    if kind != "storage" or origin not in _STORAGE_TYPES or not isinstance(key, str) or not _is_count(count):
        raise ValueError(f"it holds a storage of the type {origin[:100]}, which is not read")
    dtype = _STORAGE_TYPES[origin]
    return dtype, key, count * dtype.itemsize


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**60


def _rebuild(storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any = False, *rest: Any) -> Tensor:
    """A tensor in its storage. `rest`: hooks, which are code and not read, and with `_rebuild_tensor_v3` the type."""
    if not isinstance(storage, _Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise TypeError("a tensor without storage, size or stride")
    dtype = next((item for item in rest if isinstance(item, torch.dtype)), storage.dtype)
    if not all(map(_is_count, (offset, *size, *stride))) or len(size) != len(stride) or len(size) > 64:
        raise ValueError("the size, stride or offset of a tensor is out of range")
    available = len(storage.data) // dtype.itemsize
    end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if 0 not in size else offset
    if end > available or prod(max(n, 1) for n in size) > max(available, MAX_EXPANDED):
        raise ValueError(
            f"a tensor of size {size}, stride {stride}, offset {offset} in a storage of {available} elements"
        )
    tensor = torch.empty(0, dtype=dtype)
    tensor.set_(storage.data.untyped_storage(), offset, size, stride)
    lazy = rest[-1] if rest and isinstance(rest[-1], dict) else {}
    if lazy.get("conj") is True and dtype.is_complex:
        tensor = tensor.conj()
    if lazy.get("neg") is True:
        tensor = torch._neg_view(tensor)
    return tensor.requires_grad_() if requires_grad is True and dtype.is_floating_point else tensor


def _rebuild_parameter(data: Any, requires_grad: Any, *rest: Any) -> torch.nn.Parameter:
    if not isinstance(data, Tensor):
        raise TypeError("a parameter without data")
    return torch.nn.Parameter(data.detach(), requires_grad is True and data.is_floating_point())


def _rebuild_subclass(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor with attributes, without them."""
    rebuild = _CONSTRUCTORS.get(getattr(function, "origin", ""))
    if rebuild not in (_rebuild, _rebuild_parameter):
        return Placeholder(getattr(kind, "origin", "torch.Tensor"), ())
    return rebuild(*arguments)


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    """A numpy scalar as a Python number; ``dtype`` is the placeholder of its numpy.dtype."""
    code = dtype.args[0] if isinstance(dtype, Placeholder) and dtype.args else None
    if code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
        return Placeholder("numpy.generic", ())
    order = dtype.state[1] if isinstance(dtype.state, tuple) and dtype.state[1:2] in ((">",), ("<",)) else "<"
    if not isinstance(data, bytes) or len(data) > 16:
        raise TypeError("a number of numpy without its bytes")
    return np.frombuffer(data, dtype=np.dtype(code).newbyteorder(order))[0].item()


def _bytearray(data: Any = b"", encoding: Any = None) -> bytearray:
    if isinstance(data, str):
        return bytearray(data.encode("latin1"))
    if isinstance(data, bytes):
        return bytearray(data)
    raise TypeError(f"a bytearray of a {type(data).__name__}")  # of a number: as many zeros as the file likes


def _counter(counts: Any = ()) -> Counter[Any]:
    return Counter({plain_key(key): value for key, value in dict(counts).items()})


def _ordered(items: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((plain_key(key), value) for key, value in (items.items() if isinstance(items, dict) else items))


def _set(items: Any = ()) -> set[Any]:
    return set(map(plain_key, items))


def _module_tensors(root: Any) -> dict[str, Tensor]:
    """The tensors of a TorchScript module, as its ``state_dict()`` names them."""
    found: dict[str, Tensor] = {}
    visited = 0

    def visit(module: Placeholder, prefix: str, depth: int) -> None:
        nonlocal visited
        if module.state is not None and not isinstance(module.state, dict):
            raise ValueError("it is a TorchScript archive that runs code while loading, which CLIP's do not")
        for name, value in (module.state or {}).items():
            visited += 1
            path = f"{prefix}{name}" if isinstance(name, str) else ""
            if not 0 < len(path) < 1000 or depth > MAX_DEPTH or visited > MAX_NAMES:
                raise ValueError("its modules are nested too deep, or have too many or too long names")
            if isinstance(value, Tensor):
                found[path] = value
            elif isinstance(value, Placeholder) and value.args is not None and value.origin.startswith("__torch__."):
                visit(value, f"{path}.", depth + 1)

    if not isinstance(root, Placeholder) or not root.origin.startswith("__torch__."):
        raise ValueError("it is a TorchScript archive without a module")
    visit(root, "", 0)
    return found


_CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.Counter": _counter,
    "collections.defaultdict": lambda *args: defaultdict(None),
    f"{_REBUILD}tensor": _rebuild,
    f"{_REBUILD}tensor_v2": _rebuild,
    f"{_REBUILD}tensor_v3": _rebuild,
    f"{_REBUILD}parameter": _rebuild_parameter,
    f"{_REBUILD}parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_subclass,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "_codecs.encode": lambda text, encoding: text.encode("latin1"),
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _CONSTRUCTORS[f"{_module}.scalar"] = _numpy_scalar
for _module in ("__builtin__", "builtins"):
    _CONSTRUCTORS[f"{_module}.set"] = _set
    _CONSTRUCTORS[f"{_module}.frozenset"] = lambda items=(): frozenset(_set(items))
    _CONSTRUCTORS[f"{_module}.complex"] = lambda real, imaginary: complex(float(real), float(imaginary))
    _CONSTRUCTORS[f"{_module}.bytearray"] = _bytearray


def _dtype(origin: str) -> torch.dtype | None:
    """The type that `torch.float32` and such name."""
    found = getattr(torch, origin.removeprefix("torch."), None) if origin.startswith("torch.") else None
    return found if isinstance(found, torch.dtype) else None


def _unpickler(storage: Callable[[Any], Any]) -> PlainUnpickler:
    return PlainUnpickler(_CONSTRUCTORS, _dtype, storage)
