"""Reading and restoring what changes in a run: tensors of models and plain values.

A tensor that a state dict holds under several names (a module used in two places, tied weights) is saved once, under
the first of them.
"""

from collections import OrderedDict
from collections.abc import Collection, Container, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from dassl.utils.schema import describe
from dassl.utils.tensors import misfit

__all__ = [
    "Fingerprint",
    "address",
    "changed_tensors",
    "check_tensors",
    "fingerprint",
    "first_names",
    "frozen_fingerprints",
    "has_part",
    "load_tensors",
    "pack",
    "signature",
    "unpack",
]

Fingerprint = tuple[int, ...]
_ROW = 4096
_LISTED = 100  # problems in one message


@torch.no_grad()
def fingerprint(tensor: torch.Tensor) -> Fingerprint:
    """Integers that differ when the tensor's bytes do; computed on the tensor's device (MPS: on the CPU, since sums of
    its integers do not wrap around everywhere), in two passes over it.

    The weights of the sums are odd: multiplied by an even one, a flipped sign could vanish modulo 2^64.
    """
    flat = (tensor.cpu() if tensor.device.type == "mps" else tensor).detach().contiguous().reshape(-1)
    if flat.storage_offset() or flat.numel() == 0:
        flat = flat.clone()
    data = flat.view(torch.uint8)  # (bytes,)
    whole = len(data) // (8 * _ROW) * (8 * _ROW)
    rows = data[:whole].view(torch.int64).view(-1, _ROW)  # (R, row), sums wrap around
    rest = data[whole:].to(torch.int64)
    series = (rows.sum(0), rows.sum(1), rest)
    weighted = [(sums * (2 * torch.arange(len(sums), device=data.device) + 1)).sum() for sums in series]
    return (*tensor.shape, len(data), *torch.stack([*weighted, rest.sum()]).tolist())


def has_part(name: str, parts: Collection[str]) -> bool:
    """Whether the name of a tensor contains one of ``parts``, each one or more dotted words ("meta_net.linear1")."""
    return any(f".{part}." in f".{name}." for part in parts)


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
        ValueError: missing or unexpected names, or tensors that cannot be copied (:func:`misfit`); the first are
            listed.
    """
    own = model.state_dict(keep_vars=True)
    first = first_names(own)
    present = {first[name] for name in own if name in state or name in may_miss}
    problems = [f"missing {name} {_shape(own[name])}" for name in _distinct(own) if name not in present]
    for name, value in state.items():
        if name not in own:
            problems.append(f"unexpected {name if name.isprintable() else repr(name)} {_shape(value)}")
        elif isinstance(own[name], torch.Tensor) and (problem := misfit(value, own[name])):
            problems.append(f"{name} {problem}")
    if problems:
        more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        raise ValueError(
            f"{source} does not fit the model (another prompt depth, prompt length, backbone or trainer?):\n  "
            + "\n  ".join(problems[:_LISTED] + more)
        )


def load_tensors(model: nn.Module, state: Mapping[str, Any], may_miss: Container[str], source: str) -> None:
    """Load ``state`` after :func:`check_tensors`."""
    check_tensors(model, state, may_miss, source)
    model.load_state_dict(state, strict=False)


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) and not value.is_nested else ()


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

    Raises:
        ValueError, TypeError: ``packed`` is not what :func:`pack` returns.
    """

    def inner(item: Any) -> Any:
        return unpack(item, device, models)

    match packed:
        case None | bool() | int() | float() | str():
            return packed
        case {"model": str(key), "grad": bool(grad)} if key in models:
            tensor = models[key]
            return tensor if grad == tensor.requires_grad else tensor.detach()
        case {"tensor": torch.Tensor() as tensor, "accelerator": bool(accelerator), "grad": bool(grad)} if (
            tensor.is_floating_point() or tensor.is_complex() or not grad
        ):
            return tensor.to(device if accelerator else "cpu").requires_grad_(grad)
        case {"array": torch.Tensor() as tensor} if tensor.layout == torch.strided and tensor.dtype != torch.bfloat16:
            return tensor.numpy()[()]
        case {"mapping": list(pairs)} if all(isinstance(p, tuple) and len(p) == 2 for p in pairs):
            return {inner(key): inner(item) for key, item in pairs}
        case {"list": list(items)}:
            return [inner(item) for item in items]
        case {"tuple": list(items)}:
            return tuple(inner(item) for item in items)
    raise ValueError(f"expected a plain value, found {describe(packed)}")
