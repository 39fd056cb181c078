"""Learning rate schedules per epoch or per iteration: step, multi-step or cosine decay, after an optional warm-up.

The ``state_dict`` of every scheduler has plain values only, including that of the warm-up's successor.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR

from dassl.utils.names import check_availability

__all__ = ["AVAI_SCHEDS", "ConstantWarmupScheduler", "LinearWarmupScheduler", "build_lr_scheduler"]

AVAI_SCHEDS = ["single_step", "multi_step", "cosine"]


class _BaseWarmupScheduler(LRScheduler):
    """Warms up for ``warmup_epoch`` epochs, then continues with ``successor``, which starts at the base rate.

    Args:
        verbose: ignored; torch has removed it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        last_epoch: int = -1,
        verbose: bool = False,
    ) -> None:
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | torch.Tensor]:
        raise NotImplementedError

    def step(self, epoch: int | None = None) -> None:
        """Set the rates of the next epoch, or of ``epoch``, counted from the end of the warm-up."""
        if self.last_epoch >= self.warmup_epoch:
            self.successor.step(epoch)
            self._last_lr = self.successor.get_last_lr()
        else:
            super().step(epoch)

    def state_dict(self) -> dict[str, Any]:
        state = {name: value for name, value in self.__dict__.items() if name not in ("optimizer", "successor")}
        return {**state, "successor": self.successor.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self.successor.load_state_dict(state.pop("successor"))
        self.__dict__.update(state)


class ConstantWarmupScheduler(_BaseWarmupScheduler):
    """The rate is ``cons_lr`` during the warm-up."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        cons_lr: float,
        last_epoch: int = -1,
        verbose: bool = False,
    ) -> None:
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch, verbose)

    def get_lr(self) -> list[float | torch.Tensor]:
        if self.last_epoch >= self.warmup_epoch:
            return self.successor.get_last_lr()
        return [self.cons_lr for _ in self.base_lrs]


class LinearWarmupScheduler(_BaseWarmupScheduler):
    """The rate is ``min_lr`` in the first epoch, then ``epoch / warmup_epoch`` of the base rate."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        min_lr: float,
        last_epoch: int = -1,
        verbose: bool = False,
    ) -> None:
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch, verbose)

    def get_lr(self) -> list[float | torch.Tensor]:
        if self.last_epoch >= self.warmup_epoch:
            return self.successor.get_last_lr()
        if self.last_epoch == 0:
            return [self.min_lr for _ in self.base_lrs]
        return [lr * self.last_epoch / self.warmup_epoch for lr in self.base_lrs]


def build_lr_scheduler(optimizer: torch.optim.Optimizer, optim_cfg: Any, length: int | None = None) -> LRScheduler:
    """Build the scheduler of ``cfg.OPTIM``; call ``step()`` after every epoch, or as OPTIM.LR_STEP says.

    With WARMUP_RECOUNT, the decay counts epochs from the end of the warm-up. Without it, the epochs of the warm-up
    count, too, but the rate still starts at LR: a decay that falls within the warm-up does not happen. A warm-up that
    is not shorter than the training is printed, as the rate then never reaches LR.

    Args:
        length: how often ``step()`` is called in a training, by default MAX_EPOCH times; with LR_STEP iteration
            there is no default.

    Raises:
        ValueError: unknown scheduler or warm-up type, STEPSIZE has the wrong type for the scheduler, or LR_STEP is
            iteration without a length, with a warm-up or with another decay than cosine.
    """
    check_availability(optim_cfg.LR_SCHEDULER, AVAI_SCHEDS, "OPTIM.LR_SCHEDULER")
    if getattr(optim_cfg, "LR_STEP", "epoch") == "iteration":  # upstream's tree has no such key
        if length is None:
            raise ValueError("OPTIM.LR_STEP is iteration, but this trainer changes the rate per epoch: set it to epoch")
        if optim_cfg.LR_SCHEDULER != "cosine" or optim_cfg.WARMUP_EPOCH > 0:
            raise ValueError("OPTIM.LR_STEP iteration needs OPTIM.LR_SCHEDULER cosine and OPTIM.WARMUP_EPOCH 0")
    length = optim_cfg.MAX_EPOCH if length is None else length
    scheduler = _decay(optimizer, optim_cfg, length)
    if optim_cfg.WARMUP_EPOCH <= 0:
        return scheduler
    if length <= optim_cfg.WARMUP_EPOCH:
        print(
            f"Note: the warm-up (OPTIM.WARMUP_EPOCH {optim_cfg.WARMUP_EPOCH}) is not shorter than the training"
            f" (OPTIM.MAX_EPOCH {length}): the learning rate never reaches OPTIM.LR {optim_cfg.LR:g}"
        )
    if not optim_cfg.WARMUP_RECOUNT:
        scheduler.last_epoch = optim_cfg.WARMUP_EPOCH
    check_availability(optim_cfg.WARMUP_TYPE, ["constant", "linear"], "OPTIM.WARMUP_TYPE")
    if optim_cfg.WARMUP_TYPE == "constant":
        return ConstantWarmupScheduler(optimizer, scheduler, optim_cfg.WARMUP_EPOCH, optim_cfg.WARMUP_CONS_LR)
    return LinearWarmupScheduler(optimizer, scheduler, optim_cfg.WARMUP_EPOCH, optim_cfg.WARMUP_MIN_LR)


def _decay(optimizer: torch.optim.Optimizer, optim_cfg: Any, length: int) -> LRScheduler:
    stepsize = optim_cfg.STEPSIZE
    if optim_cfg.LR_SCHEDULER == "cosine":
        return CosineAnnealingLR(optimizer, length, eta_min=getattr(optim_cfg, "LR_MIN", 0.0))
    if optim_cfg.LR_SCHEDULER == "single_step":
        period = stepsize[-1] if isinstance(stepsize, Sequence) else stepsize
        if not isinstance(period, int):
            raise ValueError(f"OPTIM.STEPSIZE for single_step must be a whole number of epochs, not {stepsize!r}")
        return StepLR(optimizer, period if period > 0 else length, gamma=optim_cfg.GAMMA)
    if not isinstance(stepsize, Sequence):
        raise ValueError(f"OPTIM.STEPSIZE for multi_step must be a list of epochs, not {stepsize!r}")
    return MultiStepLR(optimizer, list(stepsize), gamma=optim_cfg.GAMMA)
