"""Counting what waits for a value on a GPU, without one."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

# Operators that wait on a GPU: a number, and results whose shape depends on values
WAITING = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "_unique2", "bincount", "equal"}


class Reads(TorchDispatchMode):
    """Counts what reads values in the block: operators, and methods of tensors that call none on a CPU.

    The optimizer's own count of steps is on the host on every device, and is left out.
    """

    def __enter__(self) -> Counter[str]:
        self.found: Counter[str] = Counter()
        self.counts = True
        self.hooks = [
            register_optimizer_step_pre_hook(lambda *_: setattr(self, "counts", False)),
            register_optimizer_step_post_hook(lambda *_: setattr(self, "counts", True)),
        ]
        self.patch = pytest.MonkeyPatch()
        for name in ("cpu", "numpy", "tolist", "__array__"):
            self.patch.setattr(torch.Tensor, name, self.counted(name, getattr(torch.Tensor, name)))
        super().__enter__()
        return self.found

    def counted(self, name: str, method: Callable) -> Callable:
        def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            self.found[name] += 1
            return method(tensor, *args, **kwargs)

        return call

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put_") and any(t is not None and t.dtype == torch.bool for t in args[1])
        if self.counts and (name in WAITING or by_mask):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.patch.undo()
        for hook in self.hooks:
            hook.remove()


def reads_of_last_step(trainer: Any) -> list[Counter[str]]:
    """Have the last step of every epoch counted; its counts are in the list that is returned.

    The first step computes what is kept for the later ones, unless it is the only one.
    """
    step, found = trainer.forward_backward, []

    def observed(batch: dict) -> dict:
        torch.manual_seed(1)  # CoPrompt draws a description in every step: the same one
        if trainer.batch_idx + 1 < trainer.num_batches:
            return step(batch)
        with Reads() as of_step:
            values = step(batch)
        found.append(of_step)
        return values

    trainer.forward_backward = observed
    return found
