"""Restoring optimizers, schedulers and other objects with a ``state_dict`` from a file, after checking it."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from dassl.utils.schema import check, describe, exactly, like, whole
from dassl.utils.tensors import misfit

__all__ = ["load_object_state"]

#: What torch's optimizers need for a parameter that they have stepped; all but ``step`` have the parameter's shape
_NEEDED: dict[type, tuple[str, ...]] = {
    torch.optim.RMSprop: ("step", "square_avg"),
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.RAdam: ("step", "exp_avg", "exp_avg_sq"),
}
_OTHER_SHAPES = (torch.optim.Adafactor, torch.optim.LBFGS)  # whose states have other shapes than the parameters


def load_object_state(target: Any, state: Any, source: str) -> None:
    """Call ``target.load_state_dict(state)`` for a state saved through :func:`plain_state`.

    The states of torch's optimizers and of the schedulers of torch and this project are checked entry by entry, for
    what ``load_state_dict`` accepts and a later step fails on.

    Args:
        source: the file and the entry that the state comes from.

    Raises:
        ValueError: the state does not fit ``target``.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"{source} is not valid: it is {describe(state)}, expected the state of {_name(target)}")
    current = target.state_dict()
    if isinstance(target, torch.optim.Optimizer):
        check(state, _optimizer_schema(target), source)
    elif isinstance(target, LRScheduler) and type(target).__module__.startswith(("torch.", "dassl.")):
        check(state, like(current), source)
    restored = {
        name: Counter(value) if isinstance(current.get(name), Counter) else value for name, value in state.items()
    }
    try:
        target.load_state_dict(restored)
    except Exception as error:  # the object may be a plug-in's, which fails in its own way
        raise ValueError(f"{source} does not fit {_name(target)}: {type(error).__name__}: {error}") from error


def _optimizer_schema(optimizer: torch.optim.Optimizer) -> Any:
    """What a state of this optimizer looks like: its groups, their settings, and tensors of its parameters' shapes."""
    from voluptuous import ALLOW_EXTRA, All, Length, Optional, Required, Schema

    known = type(optimizer).__module__.startswith("torch.optim")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def group_schema(group: Mapping[str, Any]) -> Any:
        settings = {name: like(value) for name, value in group.items() if name != "params"} if known else {}
        count = len(group["params"])
        numbers = All([whole(0, len(parameters) - 1)], Length(count, count, msg=f"expected {count} parameters"))
        return Schema(settings | {"params": numbers}, required=True, extra=ALLOW_EXTRA)

    entries = {Optional(number): _parameter_schema(optimizer, p) for number, p in enumerate(parameters)}
    groups = exactly([group_schema(group) for group in optimizer.param_groups])
    states = Schema(entries) if known else dict  # others may keep a state under names of their own
    return Schema({Required("state"): states, Required("param_groups"): groups}, extra=ALLOW_EXTRA)


def _parameter_schema(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> Any:
    """A validator of what an optimizer of torch holds for one parameter."""
    from voluptuous import Invalid

    needed = _NEEDED.get(type(optimizer), ())

    def validate(entries: Any) -> Any:
        if not isinstance(entries, Mapping):
            raise Invalid("expected the state of a parameter")
        if missing := [name for name in needed if name not in entries]:
            raise Invalid(f"'{missing[0]}' is missing")
        for name, value in entries.items():
            one = isinstance(value, (int, float)) or (isinstance(value, torch.Tensor) and value.numel() == 1)
            may_be_one = name not in needed or name == "step"
            if isinstance(optimizer, _OTHER_SHAPES) or value is None or (one and may_be_one):
                continue
            # Compared as a buffer: a second moment may have overflowed, which does not stop a run
            if problem := misfit(value, parameter.detach()):
                raise Invalid(f"'{name}' {problem}")
        return entries

    return validate


def _name(target: Any) -> str:
    return type(target).__name__
