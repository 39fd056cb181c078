"""Tensors in files: their checksums, and whether a tensor from a file can take the place of a model's."""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from dassl.utils.names import first_few
from dassl.utils.schema import describe

__all__ = ["CHECKSUMS", "check_checksums", "is_finite", "misfit", "tensor_checksums"]


def misfit(value: Any, own: torch.Tensor) -> str:
    """Why a value from a file cannot be copied into a model's tensor; empty if it can.

    A parameter takes dense, finite values. A buffer may hold infinite ones (the mask of an attention does).
    """
    if not isinstance(value, torch.Tensor):
        return f"has shape () in the file, {tuple(own.shape)} in the model: it is {describe(value)}, not a tensor"
    if not _is_dense(value):
        return f"is a tensor of layout {value.layout} ({value.dtype}, {value.device}) in the file, not a dense one"
    if value.shape != own.shape:
        return f"has shape {tuple(value.shape)} in the file, {tuple(own.shape)} in the model"
    if _kind(value) != _kind(own):
        return f"holds {value.dtype} in the file, {own.dtype} in the model"
    if not value.is_floating_point() and not value.is_complex():
        return ""
    fits = torch.finfo(value.dtype).max <= torch.finfo(own.dtype).max  # else a finite value may become infinite
    if is_finite(value if fits else value.to(own.dtype)):
        return ""
    if isinstance(own, torch.nn.Parameter):
        return "holds NaN or infinite values"
    return "holds NaN" if bool(value.isnan().any()) else ""


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no value is infinite or NaN; several times as fast as ``isfinite().all()`` where that is so."""
    if tensor.is_floating_point() and tensor.element_size() in (2, 4):
        if bool(torch.isfinite(tensor.detach().sum(dtype=torch.float32))):
            return True  # a sum of finite values may overflow, but one with other values is never finite
    elif tensor.element_size() == 1:
        tensor = tensor.float()
    return bool(torch.isfinite(tensor).all())


def _is_dense(value: Any) -> bool:
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_nested:
        return False
    return not value.is_quantized and not value.is_meta


def _kind(tensor: torch.Tensor) -> str:
    return "complex" if tensor.is_complex() else "float" if tensor.is_floating_point() else "integer"


# ---- checksums -------------------------------------------------------------------------------------------------


def tensor_checksums(content: Any) -> list[tuple[str, int]]:
    """The name and the CRC-32 of every dense tensor in nested containers, in their order.

    The CRC is that of the tensor's bytes, row by row; of those it stores if it repeats them (an expanded tensor).
    """
    return [(name, _crc(value)) for name, value in _entries(content, "", set()) if _is_dense(value)]


def check_checksums(content: Any, expected: Any, path: Path) -> None:
    """Compare the tensors of a loaded file with the :func:`tensor_checksums` that it was written with.

    What has become something other than a dense tensor is left to the checks of those who take it.

    Raises:
        ValueError: a tensor has changed or is missing; the message names it.
    """
    pairs = expected if isinstance(expected, (list, tuple)) else [expected]
    if not all(isinstance(pair, (list, tuple)) and list(map(type, pair)) == [str, int] for pair in pairs):
        raise ValueError(f"{path} is damaged: its list of checksums is none. {_ADVICE}")
    found = dict(_entries(content, "", set()))
    missing = [name for name, _ in pairs if name not in found]
    if missing:
        raise ValueError(f"{path} lacks tensors that it was written with: {first_few(missing)}. {_EDITED}")
    changed = [name for name, crc in pairs if _is_dense(found[name]) and _crc(found[name]) != crc]
    if changed:
        raise ValueError(
            f"{path} is damaged: the bytes of {len(changed)} of its {len(pairs)} tensors are not those that were"
            f" written: {first_few(changed)}. {_EDITED}"
        )


CHECKSUMS = "tensor_crc32"  # the entry of a file with the checksums of its tensors
_ADVICE = "Copy or make it again"
_EDITED = f"{_ADVICE}; if it was changed on purpose, remove its entry '{CHECKSUMS}'"


def _entries(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Each entry of nested containers with its name; a container that is there twice is entered once."""
    yield name, value
    if not isinstance(value, (Mapping, list, tuple)) or id(value) in seen:
        return
    seen.add(id(value))
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from _entries(item, f"{name}.{key}" if name else str(key), seen)


def _crc(tensor: torch.Tensor) -> int:
    tensor = tensor.detach()
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        data = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
    else:
        data = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
    return zlib.crc32(data.cpu().numpy().data)
