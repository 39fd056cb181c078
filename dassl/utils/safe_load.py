"""Reading a checkpoint without executing anything in it.

``torch.load(weights_only=True)`` reads files of tensors and plain values. The published checkpoints also hold other
objects (a scheduler), which it refuses; those are read by an unpickler that builds tensors and plain containers, and an
inert :class:`Placeholder` instead of an object of any other class.
"""

import pickle
import zipfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

__all__ = ["Placeholder", "is_torchscript", "load_plain"]


class Placeholder:
    """Replaces an object whose class is not imported. Accepts whatever a pickle does to it, and does nothing."""

    origin = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Placeholder":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return f"<{self.origin}, not read>"


def _numpy_scalar(dtype: Any, data: Any) -> Any:
    """A numpy scalar as a Python number; ``dtype`` is the placeholder of its numpy.dtype."""
    code = dtype.args[0] if isinstance(dtype, Placeholder) and dtype.args else None
    if code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
        return Placeholder()
    order = dtype.state[1] if isinstance(getattr(dtype, "state", None), tuple) else "<"
    return np.frombuffer(bytes(data), dtype=np.dtype(code).newbyteorder(order))[0].item()


def _latin1(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


def _constructors() -> dict[tuple[str, str], Any]:
    """What a checkpoint may call, as new functions, so that a pickle setting attributes on one has no other effect."""

    def wrap(function: Any) -> Any:
        return lambda *args: function(*args)

    def hookless(function: Any, hooks: int) -> Any:
        """Drop the backward hooks, argument number ``hooks``: they are code."""
        return lambda *args: function(*args[:hooks], OrderedDict())

    rebuild = torch._utils
    table = {
        ("collections", "OrderedDict"): wrap(OrderedDict),
        ("collections", "Counter"): wrap(Counter),
        ("collections", "defaultdict"): lambda *args: defaultdict(None),
        ("torch._utils", "_rebuild_tensor"): wrap(rebuild._rebuild_tensor),
        ("torch._utils", "_rebuild_tensor_v2"): hookless(rebuild._rebuild_tensor_v2, 5),
        ("torch._utils", "_rebuild_parameter"): hookless(rebuild._rebuild_parameter, 2),
        ("torch", "Size"): wrap(torch.Size),
        ("torch", "device"): wrap(torch.device),
        ("_codecs", "encode"): _latin1,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        table[module, "scalar"] = wrap(_numpy_scalar)
    for module in ("__builtin__", "builtins"):
        for plain in (set, frozenset, complex, bytearray):
            table[module, plain.__name__] = wrap(plain)
    return table


class _RestrictedUnpickler(pickle.Unpickler):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = _constructors()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._table:
            return self._table[module, name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return getattr(torch, name)
        if module in ("torch", "torch.storage") and name.endswith("Storage") and "." not in name:
            return getattr(torch, name, None) or getattr(torch.storage, name)
        return type("Placeholder", (Placeholder,), {"origin": f"{module}.{name}"})


def _load_restricted(file: Any, **kwargs: Any) -> Any:
    return _RestrictedUnpickler(file, **kwargs).load()


_RESTRICTED_PICKLE = SimpleNamespace(
    Unpickler=_RestrictedUnpickler, load=_load_restricted, __name__="restricted pickle"
)


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def load_plain(path: str | Path) -> Any:
    """Return the content of a file written by ``torch.save``, tensors on the CPU; nothing in it is executed.

    Raises:
        ValueError: not such a file, truncated, or a TorchScript archive (which is a program).
    """
    path = Path(path)
    if is_torchscript(path):
        raise ValueError(f"{path} is a TorchScript archive, which is a program, not a checkpoint of weights")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        pass  # holds classes other than tensors, or is no pickle at all: the restricted reader tells which
    except Exception as error:  # a malformed file can fail in any way
        raise _unreadable(path, error) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_RESTRICTED_PICKLE)
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ValueError(
        f"{path} ({path.stat().st_size} bytes) is not a readable checkpoint: {reason[:200]}."
        " It may be truncated (download or copy it again) or not a file of torch.save"
    )
