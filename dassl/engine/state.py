"""Reading and restoring what changes in a run: tensors of models, random generators, plain values.

A tensor that a state dict holds under several names (a module used in two places, tied weights) is saved once, under
the first of them.
"""

import random
from collections import OrderedDict
from collections.abc import Container, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn

__all__ = [
    "Fingerprint",
    "address",
    "changed_tensors",
    "check_tensors",
    "fingerprint",
    "first_names",
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
    """Integers that differ when the tensor's bytes do; computed on the tensor's device, in two passes over it."""
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


def first_names(state: Mapping[str, Any]) -> dict[str, str]:
    """For each name of a ``state_dict(keep_vars=True)`` the first name of the same tensor."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(value), name) if isinstance(value, torch.Tensor) else name
        for name, value in state.items()
    }


def frozen_fingerprints(model: nn.Module) -> dict[str, Fingerprint]:
    """The fingerprint of every frozen parameter, by its first name."""
    state = model.state_dict(keep_vars=True)
    return {name: fingerprint(state[name]) for name in _distinct(state) if _is_frozen(state[name])}


def changed_tensors(model: nn.Module, frozen: Mapping[str, Fingerprint]) -> OrderedDict[str, Any]:
    """The state dict, each tensor once, without the frozen parameters whose fingerprint is still that in ``frozen``.

    Pretrained weights are left out; a teacher that is frozen but follows its student is kept, and so are all buffers.
    """
    state = model.state_dict(keep_vars=True)
    kept: OrderedDict[str, Any] = OrderedDict()
    for name in _distinct(state):
        value = state[name]
        if not (_is_frozen(value) and frozen.get(name) == fingerprint(value)):
            kept[name] = value.detach() if isinstance(value, torch.Tensor) else value
    return kept


def _distinct(state: Mapping[str, Any]) -> list[str]:
    return [name for name, first in first_names(state).items() if name == first]


def _is_frozen(value: Any) -> bool:
    return isinstance(value, nn.Parameter) and not value.requires_grad


def check_tensors(model: nn.Module, state: Mapping[str, Any], may_miss: Container[str], source: str) -> None:
    """Raise unless ``state`` fits the model.

    Only names in ``may_miss`` may be absent from it. Of the names of one tensor, one is enough.

    Raises:
        ValueError: missing or unexpected names, or shapes that differ; all of them are listed.
    """
    own = model.state_dict(keep_vars=True)
    first = first_names(own)
    present = {first[name] for name in own if name in state or name in may_miss}
    problems = [f"missing {name} {_shape(own[name])}" for name in _distinct(own) if name not in present]
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
    """The state of the random generators of Python, NumPy and torch, as plain values and tensors."""
    name, keys, position, has_gauss, cached = cast(tuple, np.random.get_state(legacy=True))
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore a :func:`rng_state`; GPU generators only if the number of GPUs is the same."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def signature(value: Any) -> Any:
    """A comparable object that changes when a plain value does.

    Raises:
        TypeError: not a number, string, tensor or array, or a mapping, list or tuple of these.
    """
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


def address(value: Any) -> tuple[Any, ...]:
    """Equal for two names of one tensor, also where one of them is detached."""
    if not isinstance(value, torch.Tensor) or value.numel() == 0:
        return (id(value),)
    return (value.data_ptr(), value.dtype, value.shape, value.stride())


def pack(value: Any, models: Mapping[tuple[Any, ...], str]) -> Any:
    """A plain value as a checkpoint holds it: with the kind of device of a tensor, and arrays marked as such.

    Args:
        models: keys of tensors by their address; these are not saved, but referred to by key.
    """
    if isinstance(value, torch.Tensor):
        if address(value) in models:
            return {"model": models[address(value)], "grad": value.requires_grad}
        return {"tensor": value.detach(), "accelerator": value.device.type != "cpu", "grad": value.requires_grad}
    if isinstance(value, (np.generic, np.ndarray)):
        return {"array": torch.from_numpy(np.array(value))}
    if isinstance(value, Mapping):
        return {"mapping": [(pack(key, models), pack(item, models)) for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"tuple" if isinstance(value, tuple) else "list": [pack(item, models) for item in value]}
    return value


def unpack(packed: Any, device: torch.device, models: Mapping[str, torch.Tensor]) -> Any:
    """The inverse of :func:`pack`.

    Args:
        device: where tensors from an accelerator are put.
        models: the tensors that keys refer to.
    """
    if not isinstance(packed, dict):
        return packed
    if "model" in packed:
        tensor = models[packed["model"]]
        return tensor if packed["grad"] == tensor.requires_grad else tensor.detach()
    if "tensor" in packed:
        tensor = packed["tensor"].to(device if packed["accelerator"] else "cpu")
        return tensor.requires_grad_(packed["grad"])
    if "array" in packed:
        return packed["array"].numpy()[()]
    if "mapping" in packed:
        return {unpack(key, device, models): unpack(item, device, models) for key, item in packed["mapping"]}
    items = [unpack(item, device, models) for item in next(iter(packed.values()))]
    return tuple(items) if "tuple" in packed else items
