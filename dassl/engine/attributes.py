"""MethodAttributes: what a method keeps on its trainer besides the models that it registers."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from dassl.engine.state import (
    Fingerprint,
    address,
    changed_tensors,
    frozen_fingerprints,
    load_tensors,
    pack,
    signature,
    unpack,
)
from dassl.utils.object_state import load_object_state
from dassl.utils.schema import describe

__all__ = ["MethodAttributes"]

_NOT_PLAIN = "not a plain value"
_REGISTERED = "registered: "


class MethodAttributes:
    """A trainer's attributes other than the engine's own and the registered models, optimizers and schedulers.

    Plain values (numbers, strings, tensors, arrays and containers of them) are saved when they differ from what they
    were before training; of modules, what :func:`changed_tensors` keeps, each tensor once; other objects with a state
    dict (an optimizer, a gradient scaler) always. A tensor that belongs to a model, as in ``self.ctx =
    self.model.ctx``, is saved as a reference to it.

    Args:
        engine: the names of the attributes that the engine itself sets.
    """

    def __init__(self, engine: Iterable[str]) -> None:
        self._engine = frozenset(engine)
        self._signatures: dict[str, Any] = {}
        self._frozen: dict[str, dict[str, Fingerprint]] = {}

    def mark(self, trainer: Any) -> None:
        """Remember the attributes as they are before training."""
        for name, value in self.of(trainer).items():
            if isinstance(value, nn.Module):
                self._frozen[name] = frozen_fingerprints(value)
            elif not _is_stateful(value):
                self._signatures[name] = _signature(value)

    def of(self, trainer: Any) -> dict[str, Any]:
        """The method's attributes by name, without those that training does not change."""
        registered = {id(part) for entry in trainer.registered_models() for part in entry[1:4] if part is not None}
        return {
            name: value
            for name, value in vars(trainer).items()
            if name not in self._engine
            and name not in trainer.unchanging
            and id(value) not in registered
            and value is not self
        }

    def save(self, trainer: Any) -> dict[str, Any]:
        """What has changed since :meth:`mark`, in the form that :meth:`restore` takes."""
        models = self._model_tensors(trainer)
        keys = {address(tensor): key for key, tensor in reversed(models.items())}  # the first of several
        done = {address(t) for key, t in models.items() if key.startswith(_REGISTERED)}
        saved: dict[str, Any] = {}
        for name, value in self.of(trainer).items():
            if isinstance(value, nn.Module):
                changed = changed_tensors(value, self._frozen.get(name, {}))
                new = {key: tensor for key, tensor in changed.items() if address(tensor) not in done}
                if new:
                    saved[name] = {"module": new}
                    done |= {address(tensor) for tensor in new.values()}
            elif _is_stateful(value):
                saved[name] = {"state": value.state_dict()}
            else:
                now = _signature(value)
                if now != _NOT_PLAIN and now != self._signatures.get(name, _NOT_PLAIN):
                    saved[name] = {"value": pack(value, keys)}
        return saved

    def restore(self, trainer: Any, saved: Mapping[str, Any], source: str) -> None:
        """Give the attributes the saved values.

        Raises:
            ValueError: an attribute with a state does not exist, or a module's tensors do not fit.
        """
        for name, entry in saved.items():
            of_attribute = f"{source}, attribute '{name}',"
            if "value" in entry:
                setattr(trainer, name, self._unpacked(trainer, entry["value"], of_attribute))
            elif not hasattr(trainer, name):
                raise ValueError(
                    f"{type(trainer).__name__} makes its attribute '{name}' only during training, so that its state"
                    f" cannot be restored: make it in build_model, or delete {source} to start from scratch"
                )
            elif "state" in entry:
                if not _is_stateful(target := getattr(trainer, name)):
                    raise ValueError(f"{of_attribute} is the state of an object, the trainer has {describe(target)}")
                load_object_state(target, entry["state"], of_attribute)
            else:
                if not isinstance(module := getattr(trainer, name), nn.Module):
                    raise ValueError(f"{of_attribute} is of a module, the trainer has {describe(module)}")
                load_tensors(module, entry["module"], module.state_dict(), of_attribute)

    def _unpacked(self, trainer: Any, packed: Any, source: str) -> Any:
        try:
            return unpack(packed, trainer.device, self._model_tensors(trainer))
        except (ValueError, TypeError, RuntimeError) as error:  # RecursionError is a RuntimeError
            raise ValueError(f"{source} is not valid: {error}") from error

    def _model_tensors(self, trainer: Any) -> dict[str, torch.Tensor]:
        """The tensors of registered models and of modules among the attributes, by names that a file can hold."""
        models = {f"{_REGISTERED}{entry.name}": entry.model for entry in trainer.registered_models()}
        models |= {name: value for name, value in self.of(trainer).items() if isinstance(value, nn.Module)}
        return {
            f"{name} {key}": tensor
            for name, model in models.items()
            for key, tensor in model.state_dict(keep_vars=True).items()
            if isinstance(tensor, torch.Tensor)
        }


def _is_stateful(value: Any) -> bool:
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


def _signature(value: Any) -> Any:
    try:
        return signature(value)
    except TypeError:
        return _NOT_PLAIN
