"""The trainer classes under the module path that plug-ins import them from."""

from torch.utils.tensorboard import SummaryWriter

from dassl.engine.base import TrainerBase
from dassl.engine.loops import TrainerX, TrainerXU
from dassl.engine.simple import SimpleTrainer
from dassl.engine.simple_net import SimpleNet
from dassl.utils.meters import AverageMeter, MetricMeter

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
