"""The state of the random generators of Python, NumPy and torch, as a file can hold it."""

import random
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch

from dassl.utils.schema import exactly, number, whole
from dassl.utils.tensors import misfit

__all__ = ["rng_schema", "rng_state", "set_rng_state"]


def rng_state(device: torch.device | None = None) -> dict[str, Any]:
    """The state of the random generators of Python, NumPy and torch, as plain values and tensors.

    Those of CUDA are all GPUs' if any of them was used, since a method may use several; `gpu` is the current one.

    Args:
        device: of the run; the generator of MPS is saved if that is an Apple GPU.
    """
    on_gpus = torch.cuda.is_initialized()
    name, keys, position, has_gauss, cached = cast(tuple, np.random.get_state(legacy=True))
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if on_gpus else [],
        "gpu": torch.cuda.current_device() if on_gpus else 0,
        "mps": torch.mps.get_rng_state() if device is not None and device.type == "mps" else None,
    }


def rng_schema() -> Any:
    """The schema of a :func:`rng_state`. NumPy itself does not check that a position is within a generator's state."""
    from voluptuous import ALLOW_EXTRA, All, Invalid, Length, Optional, Required, Schema
    from voluptuous import Any as OneOf

    def tensor_like(example: torch.Tensor) -> Any:
        def validate(value: Any) -> Any:
            if problem := misfit(value, example) or (value.dtype != example.dtype and f"holds {value.dtype}"):
                raise Invalid(f"the tensor {problem.replace('in the model', 'expected')}")
            return value

        return validate

    def bytes_or_none(value: object) -> object:
        if value is None or (isinstance(value, torch.Tensor) and value.dtype == torch.uint8 and value.dim() == 1):
            return value
        raise Invalid("expected a tensor of bytes or None")

    def python_words(value: object) -> object:
        if not isinstance(value, tuple):
            raise Invalid("expected a tuple")
        return Schema(All([whole(0, 2**32 - 1)], Length(625, 625)))(list(value))

    def number_of_gpu(state: dict[str, Any]) -> dict[str, Any]:
        if state.get("gpu", 0) >= max(len(state["cuda"]), 1):
            raise Invalid(f"expected a number below {max(len(state['cuda']), 1)}", ["gpu"])
        return state

    entries: dict[str, Any] = {
        "python": exactly([3, python_words, OneOf(None, number)]),
        "numpy": exactly(
            ["MT19937", tensor_like(torch.zeros(624, dtype=torch.int64)), whole(0, 624), whole(0, 1), number]
        ),
        "torch": tensor_like(torch.get_rng_state()),
        "cuda": [tensor_like(torch.zeros(16, dtype=torch.uint8))],  # of torch.cuda.get_rng_state
    }
    later: dict[Any, Any] = {  # which files of earlier versions do not have
        Optional("gpu"): whole(0),
        Optional("mps"): bytes_or_none,
    }
    schema = {Required(name): of_entry for name, of_entry in entries.items()} | later
    return Schema(All(Schema(schema, extra=ALLOW_EXTRA), number_of_gpu))


def set_rng_state(state: Mapping[str, Any], source: str = "The state of the random generators") -> None:
    """Restore a :func:`rng_state` that fits :func:`rng_schema`.

    The current GPU continues as the one that was current. The other GPUs do if there are as many.

    Raises:
        ValueError: a generator does not accept it; ``source`` is the file and the entry that it comes from.
    """
    try:
        random.setstate(state["python"])
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(state["torch"])
        if state["cuda"] and torch.cuda.is_initialized():
            if len(state["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all(state["cuda"])
            torch.cuda.set_rng_state(state["cuda"][state.get("gpu", 0)])
        if state.get("mps") is not None and torch.backends.mps.is_available():
            torch.mps.set_rng_state(state["mps"])
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{source} is not valid: {error}") from error
