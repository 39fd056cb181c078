"""Running averages of the values that a training step reports."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["AverageMeter", "MetricMeter"]


class AverageMeter:
    """Last value and average of a series.

    Args:
        ema: exponential moving average (0.9 old + 0.1 new) instead of the mean of the series.
    """

    def __init__(self, ema: bool = False) -> None:
        self.ema = ema
        self.reset()

    def reset(self) -> None:
        self.val: float = 0
        self.avg: float = 0
        self.sum: float = 0
        self.count: int = 0

    def update(self, val: Any, n: int = 1) -> None:
        """Add ``val`` (a number, or a tensor with one element, which is read), the average over ``n`` samples."""
        value = val.item() if isinstance(val, torch.Tensor) else val
        self.val = value
        self.sum += value * n
        self.count += n
        if self.ema:
            self.avg = self.avg * 0.9 + value * 0.1
        else:
            self.avg = self.sum / self.count


class MetricMeter:
    """One :class:`AverageMeter` per name. Printed: ``loss 0.5000 (0.7500) acc 50.0000 (45.0000)``.

    >>> metrics = MetricMeter()
    >>> metrics.update({"loss": 0.5})
    """

    def __init__(self, delimiter: str = " ") -> None:
        self.meters: defaultdict[str, AverageMeter] = defaultdict(AverageMeter)
        self.delimiter = delimiter

    def update(self, input_dict: Mapping[str, Any] | None) -> None:
        """Add the values of one step; None (a step that reports nothing) is ignored."""
        if input_dict is None:
            return
        if not isinstance(input_dict, Mapping):
            raise TypeError(f"MetricMeter.update takes a dict of name to value, not {type(input_dict).__name__}")
        for name, value in input_dict.items():
            self.meters[name].update(value)

    def __str__(self) -> str:
        return self.delimiter.join(f"{name} {meter.val:.4f} ({meter.avg:.4f})" for name, meter in self.meters.items())
