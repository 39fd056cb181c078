"""What the steps of an epoch report: values stay on the device, and are read together every few steps."""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from dassl.utils.meters import AverageMeter, MetricMeter
from dassl.utils.progress import say

if TYPE_CHECKING:
    from dassl.engine.simple import SimpleTrainer

__all__ = ["EpochReport", "read_numbers"]

MOST_UNREAD = 100  # steps, where TRAIN.PRINT_FREQ is larger


def read_numbers(tensors: Sequence[torch.Tensor]) -> list[Any]:
    """The values of tensors of one element, read by one transfer for each device and type."""
    kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, tensor in enumerate(tensors):
        kinds.setdefault((tensor.device, tensor.dtype), []).append(i)
    numbers: list[Any] = [None] * len(tensors)
    for indices in kinds.values():
        of_kind = torch.cat([tensors[i].reshape(1) for i in indices])
        for i, number in zip(indices, of_kind.tolist(), strict=True):
            numbers[i] = number
    return numbers


class Step(NamedTuple):
    """A step whose values have not been read. Tensors are copies: what the step returned may change in the next one."""

    batch_idx: int
    lr: float
    values: dict[str, Any]


def _copy(name: str, value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    if value.numel() != 1:
        raise ValueError(
            f"forward_backward returns {name!r} of shape {tuple(value.shape)}, expected a number or a tensor of one"
            " element"
        )
    return value.detach().clone()


class EpochReport:
    """Averages, printed lines and TensorBoard's curves of an epoch, and the check that its losses are finite.

    Tensors that steps return are read every TRAIN.PRINT_FREQ steps, at least every 100, and by :meth:`read`. What
    happens to a step's values then is in the order of the steps. A step that returns numbers alone is read at once.

    Args:
        num_batches: of this epoch.
        first: number of its first step in the training, counted from 0.
    """

    def __init__(self, trainer: "SimpleTrainer", num_batches: int, first: int) -> None:
        self.trainer, self.num_batches, self.first = trainer, num_batches, first
        self.print_freq = trainer.cfg.TRAIN.PRINT_FREQ
        self.losses = MetricMeter()
        self.batch_time, self.data_time = AverageMeter(), AverageMeter()
        self._unread: list[Step] = []
        self._last_read = self._last_step = time.time()
        self._waited = 0.0  # for data, since the last read

    def start_step(self) -> None:
        """The step's batches are there."""
        self._waited += time.time() - self._last_step

    def end_step(self, lr: float, values: Mapping[str, Any] | None) -> None:
        """Take what ``forward_backward`` returned, and read what is due.

        Args:
            lr: the learning rate of the step.

        Raises:
            TypeError: ``values`` is neither a dict nor None.
            ValueError: a tensor has several elements.
            FloatingPointError: a loss that was read is NaN or infinite.
        """
        if values is not None and not isinstance(values, Mapping):
            raise TypeError(f"forward_backward returns a dict of name to value, or None, not {type(values).__name__}")
        kept = {name: _copy(name, value) for name, value in (values or {}).items()}
        at_once = not self._unread and not any(isinstance(value, torch.Tensor) for value in kept.values())
        self._unread.append(Step(self.trainer.batch_idx, lr, kept))
        if at_once or (self.trainer.batch_idx + 1) % self.print_freq == 0 or len(self._unread) == MOST_UNREAD:
            self.read()
        self._last_step = time.time()

    def read(self) -> None:
        """Read the steps since the last time, in one transfer."""
        steps, self._unread = self._unread, []
        if not steps:
            return
        tensors = [value for step in steps for value in step.values.values() if isinstance(value, torch.Tensor)]
        numbers = iter(read_numbers(tensors))
        now = time.time()  # after the transfer, which waits for the steps
        self.batch_time.update((now - self._last_read) / len(steps), len(steps))
        self.data_time.update(self._waited / len(steps), len(steps))
        self._last_read, self._waited = now, 0.0
        for step in steps:
            read = {name: next(numbers) if isinstance(v, torch.Tensor) else v for name, v in step.values.items()}
            self.trainer.check_losses(read, step.batch_idx, step.lr)
            self.losses.update(read)
            if (step.batch_idx + 1) % self.print_freq == 0 or self.num_batches < self.print_freq:
                self._print(step)
            n_iter = self.first + step.batch_idx
            for name, meter in self.losses.meters.items():
                self.trainer.write_scalar(f"train/{name}", meter.avg, n_iter)
            self.trainer.write_scalar("train/lr", step.lr, n_iter)

    def _print(self, step: Step) -> None:
        trainer, done, batch_time, data_time = self.trainer, step.batch_idx + 1, self.batch_time, self.data_time
        steps_left = self.num_batches - done + (trainer.max_epoch - trainer.epoch - 1) * self.num_batches
        eta = timedelta(seconds=int(batch_time.avg * steps_left))
        say(
            f"epoch [{trainer.epoch + 1}/{trainer.max_epoch}] batch [{done}/{self.num_batches}]"
            f" time {batch_time.val:.3f} ({batch_time.avg:.3f}) data {data_time.val:.3f} ({data_time.avg:.3f})"
            f" {self.losses} lr {step.lr:.4e} eta {eta}"
        )
