"""Tensors in files: their checksums, and whether a tensor from a file can take the place of a model's."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from dassl.utils.schema import describe

__all__ = ["check_checksums", "check_index", "is_finite", "misfit", "tensor_checksums"]


def misfit(value: Any, own: torch.Tensor) -> str:
    """Why a value from a file cannot be copied into a model's tensor; empty if it can.

    A parameter takes dense, finite values. A buffer may hold infinite ones (the mask of an attention does).
    """
    if not isinstance(value, torch.Tensor):
        return f"is {describe(value)} in the file, a tensor of shape {tuple(own.shape)} in the model"
    if not _is_dense(value):
        return f"is a tensor of layout {value.layout} ({value.dtype}, {value.device}) in the file, not a dense one"
    if value.shape != own.shape:
        return f"has shape {tuple(value.shape)} in the file, {tuple(own.shape)} in the model"
    if _kind(value) != _kind(own):
        return f"holds {value.dtype} in the file, {own.dtype} in the model"
    if not value.is_floating_point() and not value.is_complex():
        return ""
    if is_finite(value.to(own.dtype)):
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


def _is_dense(tensor: torch.Tensor) -> bool:
    strided = tensor.layout == torch.strided and not tensor.is_nested
    return strided and not tensor.is_quantized and not tensor.is_meta


def _kind(tensor: torch.Tensor) -> str:
    return "complex" if tensor.is_complex() else "float" if tensor.is_floating_point() else "integer"


# ---- checksums -------------------------------------------------------------------------------------------------


def tensor_checksums(content: Any) -> list[tuple[str, int]]:
    """The name and the CRC-32 of every dense tensor in nested containers, in their order.

    The CRC is that of the tensor's bytes, row by row; of those it stores if it repeats them (an expanded tensor).
    """
    return [(name, _crc(tensor)) for name, tensor in _tensors(content, "", set())]


def check_checksums(content: Any, expected: Any, path: Path) -> None:
    """Compare the tensors of a loaded file with the :func:`tensor_checksums` that it was written with.

    Raises:
        ValueError: a tensor has changed, is missing or was added; the message names it.
    """
    found = tensor_checksums(content)
    if not isinstance(expected, (list, tuple)) or len(expected) != len(found):
        raise ValueError(f"{path} is damaged: its list of checksums is not that of its {len(found)} tensors. {_ADVICE}")
    changed = [name for (name, crc), pair in zip(found, expected, strict=True) if tuple(pair) != (name, crc)]
    if changed:
        raise ValueError(
            f"{path} is damaged: the bytes of {len(changed)} of its {len(found)} tensors are not those that were"
            f" written, first of '{changed[0]}'. {_ADVICE}"
        )


_ADVICE = "Copy or make it again"


def check_index(path: Path) -> None:
    """Check the part of a file of ``torch.save`` that names its tensors against the CRC-32 that PyTorch wrote with it.

    ``torch.load`` does not. The tensors themselves have :func:`tensor_checksums`, where this project wrote the file.

    Raises:
        ValueError: it has changed.
    """
    with open(path, "rb") as file:
        try:
            if zipfile.is_zipfile(file):
                _read_index(file)
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {error}. {_ADVICE}") from error


def _read_index(file: IO[bytes]) -> None:
    """Read the entry ``data.pkl`` to its end, where zipfile compares its CRC-32."""
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            written = entry.CRC != 0  # PyTorch writes 0 if it is told to compute none
            if entry.filename.endswith("/data.pkl") and entry.compress_type == zipfile.ZIP_STORED and written:
                with archive.open(entry) as index:
                    while index.read(2**20):
                        pass


def _tensors(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor in nested containers with its name; a container that is there twice is visited once."""
    if isinstance(value, torch.Tensor):
        if _is_dense(value):
            yield name, value
        return
    if not isinstance(value, (Mapping, list, tuple)) or id(value) in seen:
        return
    seen.add(id(value))
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        yield from _tensors(item, f"{name}.{key}" if name else str(key), seen)


def _crc(tensor: torch.Tensor) -> int:
    tensor = tensor.detach()
    if tensor.nbytes > tensor.untyped_storage().nbytes():
        data = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())
    else:
        data = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
    return zlib.crc32(data.cpu().numpy().data)
