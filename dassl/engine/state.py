"""What of a run changes and has to be kept: tensors of models, generators, plain attributes of a trainer."""

import random
from collections import OrderedDict
from collections.abc import Container, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn

__all__ = [
    "Fingerprint",
    "changed_tensors",
    "check_tensors",
    "fingerprint",
    "frozen_fingerprints",
    "load_tensors",
    "pack",
    "rng_state",
    "set_rng_state",
    "signature",
    "unpack",
]

Fingerprint = tuple[int, ...]
_ROW = 4096


@torch.no_grad()
def fingerprint(tensor: torch.Tensor) -> Fingerprint:
    """Integers that differ when the tensor's bytes do; computed where the tensor is, in two passes over it."""
    flat = tensor.detach().contiguous().reshape(-1)
    if flat.storage_offset() or flat.numel() == 0:
        flat = flat.clone()
    data = flat.view(torch.uint8)  # (bytes,)
    whole = len(data) // (8 * _ROW) * (8 * _ROW)
    rows = data[:whole].view(torch.int64).view(-1, _ROW)  # (R, row), sums wrap around
    rest = data[whole:].to(torch.int64)
    series = (rows.sum(0), rows.sum(1), rest)
    weighted = [(sums * torch.arange(1, len(sums) + 1, device=data.device)).sum() for sums in series]
    return (*tensor.shape, len(data), *torch.stack([*weighted, rest.sum()]).tolist())


def frozen_fingerprints(model: nn.Module) -> dict[str, Fingerprint]:
    """The fingerprint of every parameter that is not trained."""
    return {name: fingerprint(p) for name, p in model.named_parameters() if not p.requires_grad}


def changed_tensors(model: nn.Module, frozen: Mapping[str, Fingerprint]) -> OrderedDict[str, Any]:
    """The state dict without the parameters that are frozen and still have the fingerprint they had in ``frozen``.

    So pretrained weights stay out, while a teacher that is frozen but follows its student comes along.
    """
    kept: OrderedDict[str, Any] = OrderedDict()
    for name, value in model.state_dict(keep_vars=True).items():
        is_frozen = isinstance(value, nn.Parameter) and not value.requires_grad
        if not (is_frozen and frozen.get(name) == fingerprint(value)):
            kept[name] = value.detach() if isinstance(value, torch.Tensor) else value
    return kept


def check_tensors(model: nn.Module, state: Mapping[str, Any], may_miss: Container[str], source: str) -> None:
    """Raise unless ``state`` fits the model; only names in ``may_miss`` may be absent from it.

    Raises:
        ValueError: missing or unexpected names, or shapes that differ; all of them are listed.
    """
    own = model.state_dict()
    problems = [f"missing {name} {_shape(own[name])}" for name in own if name not in state and name not in may_miss]
    for name, value in state.items():
        if name not in own:
            problems.append(f"unexpected {name} {_shape(value)}")
        elif _shape(value) != _shape(own[name]):
            problems.append(f"{name} has shape {_shape(value)} in the file, {_shape(own[name])} in the model")
    if problems:
        raise ValueError(
            f"{source} does not fit the model (another prompt depth, prompt length, backbone or trainer?):\n  "
            + "\n  ".join(problems)
        )


def load_tensors(model: nn.Module, state: Mapping[str, Any], may_miss: Container[str], source: str) -> None:
    """Load ``state`` after :func:`check_tensors`."""
    check_tensors(model, state, may_miss, source)
    model.load_state_dict(state, strict=False)


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def rng_state() -> dict[str, Any]:
    """The state of all generators, as plain values and tensors."""
    name, keys, position, has_gauss, cached = cast(tuple, np.random.get_state(legacy=True))
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put all generators back to a :func:`rng_state`; GPUs only if as many are there."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def signature(value: Any) -> Any:
    """Something comparable that changes when a plain value does; raises TypeError if it is not plain."""
    if value is None or isinstance(value, (bool, int, float, str, np.generic)):
        return repr(value)
    if isinstance(value, torch.Tensor):
        return fingerprint(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return (value.shape, value.tobytes())
    if isinstance(value, Mapping):
        return tuple((signature(key), signature(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(signature(item) for item in value)
    raise TypeError(f"{type(value).__name__} is not plain")


def pack(value: Any) -> Any:
    """A plain value in the form that a checkpoint holds it: tensors say where they lived, arrays that they are ones."""
    if isinstance(value, torch.Tensor):
        return {"tensor": value.detach(), "accelerator": value.device.type != "cpu", "grad": value.requires_grad}
    if isinstance(value, (np.generic, np.ndarray)):
        return {"array": torch.from_numpy(np.array(value))}
    if isinstance(value, Mapping):
        return {"mapping": [(pack(key), pack(item)) for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__ if type(value) in (list, tuple) else "tuple": [pack(item) for item in value]}
    return value


def unpack(packed: Any, device: torch.device) -> Any:
    """The value that :func:`pack` packed; tensors from an accelerator go to ``device``."""
    if not isinstance(packed, dict):
        return packed
    if "tensor" in packed:
        tensor = packed["tensor"].to(device if packed["accelerator"] else "cpu")
        return tensor.requires_grad_(packed["grad"])
    if "array" in packed:
        return packed["array"].numpy()[()]
    if "mapping" in packed:
        return {unpack(key, device): unpack(item, device) for key, item in packed["mapping"]}
    items = [unpack(item, device) for item in next(iter(packed.values()))]
    return tuple(items) if "tuple" in packed else items
