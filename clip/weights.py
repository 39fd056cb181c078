"""Reading weights: every common file format becomes plain CPU tensors, and no code in the file is executed."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dassl.utils.names import first_few
from dassl.utils.safe_load import Placeholder, read_plain

from .transformers_layout import is_transformers_layout, to_openai

# OpenAI's archives hold these numbers as tensors, no other files do; some exports keep constants
NUMBERS = ("input_resolution", "context_length", "vocab_size")
NOT_WEIGHTS = re.compile(rf"{'|'.join(NUMBERS)}|(.+\.)?(attn_mask|position_ids)")
CUSTOM_TEXT = "text."  # of the text tower in open_clip's CustomTextCLIP
WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys that training scripts save weights under
PREFIXES = re.compile(r"(?:(?:module|model|clip_model|clip|_orig_mod)\.)+")  # of modules around the model
WEIGHT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_HEADER = 100_000_000  # bytes, as in safetensors
SHARING = 4  # times the file's size that its tensors may have together, where they share bytes


class Weights(NamedTuple):
    """What a file of weights holds."""

    tensors: dict[str, Tensor]  # under OpenAI's names
    of_openai: bool  # whether it has the three numbers that OpenAI's archives have


def read(path: Path) -> dict[str, Tensor]:
    """The tensors that `read_weights` returns."""
    return read_weights(path).tensors


def read_weights(path: Path) -> Weights:
    """Return the weights of a TorchScript archive, a state dict saved by `torch.save`, or safetensors.

    The state dict may be inside `WRAPPERS`, and its names may have `PREFIXES`. Names of Hugging Face transformers
    become OpenAI's. The tensors are on the CPU, in the precision they are stored in.

    Raises:
        ValueError: the file is truncated, damaged, or has another format or content, or a tensor is no weights: sparse,
            complex, of whole numbers, infinite or not a number.
    """
    size = path.stat().st_size
    try:
        tensors = _unwrap(_read_any(path, size))
    except ValueError as error:
        raise ValueError(
            f"cannot read weights from {path} ({size:,} bytes): {error}. Expected a TorchScript archive, a state dict "
            "saved by torch.save, or safetensors. If it is truncated, delete it and download it again"
        ) from error
    others = [str(key)[:100] for key, value in tensors.items() if not isinstance(value, Tensor) and not _sparse(value)]
    if others or not tensors:
        raise ValueError(
            f"{path} holds no state dict: expected named tensors, found "
            + (f"other values at {', '.join(others[:5])}" if others else "nothing")
        )
    named: dict[str, Any] = {}
    numbers = set()
    for key, value in tensors.items():
        name = PREFIXES.sub("", str(key), count=1) if PREFIXES.match(str(key)) else str(key)
        if name in named:
            raise ValueError(f"{path} holds {name!r} more than once, as {key!r} and without or with another prefix")
        if not NOT_WEIGHTS.fullmatch(name):
            named[name] = value
        elif name in NUMBERS:
            numbers.add(name)
    if f"{CUSTOM_TEXT}token_embedding.weight" in named:
        outside = {name.removeprefix(CUSTOM_TEXT): value for name, value in named.items()}
        named = outside if len(outside) == len(named) else named
    if "text_projection" not in named and any("prompt_learner." in name or name == "ctx" for name in named):
        raise ValueError(
            f"{path} is the checkpoint of a trainer, with what it learned: {first_few(named)}. Pass its run folder as "
            "--model-dir, and the CLIP that it was trained on as --backbone"
        )
    _check_weights(path, named, size)
    weights = {name: tensor.detach() for name, tensor in named.items()}
    try:
        return Weights(to_openai(weights) if is_transformers_layout(weights) else weights, len(numbers) == len(NUMBERS))
    except ValueError as error:
        raise ValueError(f"cannot read weights from {path} ({size:,} bytes): {error}") from error


def _read_any(path: Path, size: int) -> Any:
    with open(path, "rb") as file:
        start = file.read(9)
    header = int.from_bytes(start[:8], "little")
    if start[8:] == b"{" and header <= MAX_HEADER:  # safetensors: eight bytes of header length, then JSON
        return _read_safetensors(path, header, size)
    return read_plain(path)


def _read_safetensors(path: Path, header: int, size: int) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:
        if 8 + header > size:
            raise ValueError(f"it is safetensors that were cut: its header alone has {header:,} bytes") from error
        raise ValueError(
            f"it is safetensors that were cut or damaged ({' '.join(str(error).split())[:200]})"
        ) from error


def _unwrap(content: Any) -> Mapping[Any, Any]:
    """The state dict inside `WRAPPERS`, which may be inside each other."""
    where = "it"
    while True:
        if isinstance(content, Placeholder):
            raise ValueError(
                f"{where} holds an object of the class {content.origin}, which is not read: save the weights alone, "
                "with torch.save(model.state_dict(), path)"
            )
        if not isinstance(content, Mapping):
            raise ValueError(f"{where} holds a {type(content).__name__}")
        inside = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        inside = inside or [key for key in WRAPPERS if isinstance(content.get(key), Placeholder)]
        if not inside or any(isinstance(value, Tensor) for value in content.values()):
            return content
        if len(inside) > 1:
            raise ValueError(
                f"{where} holds weights at {' and at '.join(map(repr, inside))}: save the right ones alone"
            )
        where, content = f"its entry {inside[0]!r}", content[inside[0]]


def _sparse(value: Any) -> bool:
    return isinstance(value, Placeholder) and "sparse" in value.origin


def _kind(name: str, value: Any) -> str | None:
    """What kind of tensor it is, if no weights can be of this kind."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return "sparse"
    if value.dtype in WEIGHT_TYPES or (name.endswith(".num_batches_tracked") and value.dtype == torch.int64):
        return None
    return str(value.dtype).removeprefix("torch.")


def _check_weights(path: Path, named: Mapping[str, Any], size: int) -> None:
    kinds = {name: kind for name, value in named.items() if (kind := _kind(name, value))}
    if kinds:
        raise ValueError(
            f"{path} holds tensors that are no weights, which have the type float16, bfloat16, float32 or float64: "
            + first_few(f"{name} ({kind})" for name, kind in kinds.items())
        )
    taken = sum(value.numel() * value.itemsize for value in named.values())
    if taken > SHARING * size + (1 << 26):
        raise ValueError(
            f"{path} has {size:,} bytes, but its tensors state {taken:,}, far more than weights that are tied"
        )
    if broken := list(_not_finite(named)):
        raise ValueError(
            f"{path} holds weights that are infinite or not a number (NaN): {first_few(broken)}. A training that "
            "diverged saves such weights: take an earlier checkpoint of it"
        )


def _not_finite(named: Mapping[str, Tensor]) -> Iterator[str]:
    for name, tensor in named.items():
        if tensor.numel() and tensor.is_floating_point():
            low, high = tensor.detach().aminmax()  # NaN if there is one; faster than isfinite, which writes a mask
            limit = torch.finfo(torch.float32).max  # the precision that weights are read into
            if not -limit <= low.item() <= high.item() <= limit:
                yield name
