"""Reading weights: every common file format becomes plain CPU tensors, and no code in the file is executed."""

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from dassl.utils.safe_load import is_torchscript

# OpenAI's archives hold these three numbers as tensors; `attn_mask` is a constant that some exports keep
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a TorchScript archive, a saved state dict (or {"state_dict": …}) or safetensors.

    They are on the CPU, in the precision they are stored in.

    Raises:
        ValueError: the file is truncated or has another format.
    """
    try:
        tensors = _read_any(path)
    except Exception as error:  # a broken file can make the readers raise nearly any error
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"cannot read weights from {path} ({path.stat().st_size:,} bytes): {reason}. Expected a TorchScript "
            "archive, a state dict saved by torch.save, or safetensors. If it is truncated, delete it and download "
            "it again"
        ) from error
    others = [str(key) for key, value in tensors.items() if not isinstance(value, Tensor)]
    if others or not tensors:
        raise ValueError(
            f"{path} holds no state dict: expected named tensors, found "
            + (f"other values at {', '.join(others[:5])}" if others else "nothing")
        )
    tensors = {key.removeprefix("module."): value.detach() for key, value in tensors.items()}
    return {key: value for key, value in tensors.items() if key not in NOT_WEIGHTS}


def _read_any(path: Path) -> Mapping[str, Tensor]:
    with open(path, "rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # safetensors: eight bytes of header length, then JSON
        from safetensors.torch import load_file

        return load_file(path)
    if is_torchscript(path):
        _refuse_code_at_load(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(str(path), map_location="cpu").state_dict()
    content = torch.load(path, map_location="cpu", weights_only=True)
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping):
        raise TypeError(f"it holds a {type(content).__name__}")
    return content


def _refuse_code_at_load(path: Path) -> None:
    """Raise a ValueError if a TorchScript archive runs code while it is loaded."""
    with zipfile.ZipFile(path) as archive:
        code = [name for name in archive.namelist() if "/code/" in name and name.endswith(".py")]
        if any(b"def __setstate__" in archive.read(name) for name in code):
            raise ValueError("a TorchScript archive that runs code while loading, which CLIP's do not")
