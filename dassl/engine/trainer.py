"""The trainer classes under the module path that plug-ins import them from."""

from typing import TYPE_CHECKING, Any

from dassl.engine.base import TrainerBase
from dassl.engine.loops import TrainerX, TrainerXU
from dassl.engine.simple import SimpleTrainer
from dassl.engine.simple_net import SimpleNet
from dassl.utils.meters import AverageMeter, MetricMeter

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = [
    "AverageMeter",
    "MetricMeter",
    "SimpleNet",
    "SimpleTrainer",
    "SummaryWriter",
    "TrainerBase",
    "TrainerX",
    "TrainerXU",
]


def __getattr__(name: str) -> Any:
    if name == "SummaryWriter":  # on first use: a run that only tests, or a machine without TensorBoard, needs none
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
