"""RAdam (Liu et al., On the Variance of the Adaptive Learning Rate and Beyond, ICLR 2020)."""

from typing import Any

import torch

__all__ = ["RAdam"]


class RAdam(torch.optim.RAdam):
    """torch's RAdam with decoupled weight decay and upstream Dassl's argument order.

    Args:
        degenerated_to_sgd: must be True: momentum SGD while the variance is not yet tractable. Skipping these
            steps is not supported.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        degenerated_to_sgd: bool = True,
    ) -> None:
        if not degenerated_to_sgd:
            raise ValueError("RAdam supports only degenerated_to_sgd=True")
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, decoupled_weight_decay=True)
