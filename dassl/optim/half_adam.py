"""Adam in half precision."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

__all__ = ["HalfAdam"]


class HalfAdam(torch.optim.Adam):
    """Adam of fp16 parameters with fp16 moments, whose values are kept in fp32 tensors.

    Every operation rounds to fp16, as ``torch.optim.Adam`` does on fp16 parameters. Small gradients then take larger
    steps: (1 - beta2) g * g is zero in fp16 for gradients below about 5e-3, and eps alone divides. The parameters are
    rounded when the optimizer is made.

    Raises:
        ValueError: ``eps`` is zero in fp16.
    """

    def __init__(self, params: Any, lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
        if not _rounded([torch.tensor(eps)])[0]:
            raise ValueError(f"eps is {eps:g}, which is 0 in fp16: expected at least 6e-8")
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        for group in self.param_groups:
            for parameter, value in zip(group["params"], _rounded(group["params"]), strict=True):
                parameter.data.copy_(value)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; the gradients are rounded to fp16."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            learned = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in learned:
                if not self.state[parameter]:
                    moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                    self.state[parameter].update(step=torch.zeros(()), **moments)
            states = [self.state[parameter] for parameter in learned]
            kept = [learned, *([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))]
            half = [_rounded(tensors) for tensors in kept]
            adam(
                params=half[0],
                grads=_rounded(parameter.grad for parameter in learned),
                exp_avgs=half[1],
                exp_avg_sqs=half[2],
                max_exp_avg_sqs=[],
                state_steps=[state["step"] for state in states],
                foreach=False,
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
            for tensors, rounded in zip(kept, half, strict=True):
                for tensor, value in zip(tensors, rounded, strict=True):
                    tensor.copy_(value)
        return loss


def _rounded(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [tensor.detach().to(torch.float16) for tensor in tensors]
