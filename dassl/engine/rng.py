"""The state of the random generators of Python, NumPy and torch, as a file can hold it."""

import random
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch

from dassl.utils.schema import exactly, number, whole
from dassl.utils.tensors import misfit

__all__ = ["rng_schema", "rng_state", "set_rng_state"]


def rng_state() -> dict[str, Any]:
    """The state of the random generators of Python, NumPy and torch, as plain values and tensors."""
    name, keys, position, has_gauss, cached = cast(tuple, np.random.get_state(legacy=True))
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def rng_schema() -> Any:
    """The schema of a :func:`rng_state`. NumPy itself does not check that a position is within a generator's state."""
    from voluptuous import ALLOW_EXTRA, All, Invalid, Length, Schema
    from voluptuous import Any as OneOf

    def tensor_like(example: torch.Tensor) -> Any:
        def validate(value: Any) -> Any:
            if problem := misfit(value, example) or (value.dtype != example.dtype and f"holds {value.dtype}"):
                raise Invalid(f"the tensor {problem.replace('in the model', 'expected')}")
            return value

        return validate

    def python_words(value: object) -> object:
        if not isinstance(value, tuple):
            raise Invalid("expected a tuple")
        return Schema(All([whole(0, 2**32 - 1)], Length(625, 625)))(list(value))

    schema = {
        "python": exactly([3, python_words, OneOf(None, number)]),
        "numpy": exactly(
            ["MT19937", tensor_like(torch.zeros(624, dtype=torch.int64)), whole(0, 624), whole(0, 1), number]
        ),
        "torch": tensor_like(torch.get_rng_state()),
        "cuda": [tensor_like(torch.zeros(16, dtype=torch.uint8))],  # of torch.cuda.get_rng_state
    }
    return Schema(schema, required=True, extra=ALLOW_EXTRA)


def set_rng_state(state: Mapping[str, Any], source: str = "The state of the random generators") -> None:
    """Restore a :func:`rng_state` that fits :func:`rng_schema`; GPU generators only if the number of GPUs is the same.

    Raises:
        ValueError: a generator does not accept it; ``source`` is the file and the entry that it comes from.
    """
    try:
        random.setstate(state["python"])
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{source} is not valid: {error}") from error
