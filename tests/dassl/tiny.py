"""A trainer that runs for a second and has everything whose state a resume could lose."""

import copy
import random
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from dassl.config import get_cfg_default
from dassl.engine import TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer


class Points(Dataset):
    """Points of three classes; training points come with noise from Python's and numpy's generators."""

    def __init__(self, n: int, noisy: bool) -> None:
        generator = torch.Generator().manual_seed(n)
        self.label = torch.arange(n) % 3
        self.img = torch.randn(n, 6, generator=generator) + 2 * nn.functional.one_hot(self.label, 6)
        self.noisy = noisy

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: int) -> dict:
        img = self.img[index]
        if self.noisy:
            img = img + random.gauss(0, 0.1) + float(np.random.normal(0, 0.1))
        return {"img": img, "label": self.label[index], "domain": 0, "index": index, "impath": str(index)}


class Net(nn.Module):
    """A frozen backbone, a learned prompt before it and a head behind it; a teacher follows the head."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt = nn.Parameter(torch.zeros(6))
        self.backbone = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh()).requires_grad_(False)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(16, 3)
        self.teacher = copy.deepcopy(self.head).requires_grad_(False)
        self.register_buffer("token_prefix", torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.backbone(x + self.prompt)))


class TinyTrainer(TrainerX):
    """Has the attributes that plug-ins have: a counter, averaged weights, an unregistered module and optimizer."""

    def build_data_loader(self) -> None:
        self.train_loader_x = DataLoader(Points(24, True), batch_size=4, shuffle=True)
        self.train_loader_u = None
        evaluation = DataLoader(Points(30, False), batch_size=7, generator=torch.Generator())
        self.val_loader = self.test_loader = evaluation
        self.num_classes = 3
        self.num_source_domains = 0
        self.lab2cname = {0: "ant", 1: "bee", 2: "cat"}
        self.dm = None

    def build_model(self) -> None:
        rng = torch.get_rng_state()
        torch.manual_seed(11)  # pretrained weights do not depend on the run's seed
        self.model = Net()
        self.scale = nn.Linear(1, 1)
        torch.set_rng_state(rng)
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("net", self.model, self.optim, self.sched)
        self.scale_optim = torch.optim.Adam(self.scale.parameters(), lr=0.01)
        self.step_counter = 0
        self.average = None
        self.classnames = list(self.lab2cname.values())

    def forward_backward(self, batch: dict) -> dict:
        image, label = self.parse_batch_train(batch)
        logits = self.model(image)
        logits = logits * self.scale(torch.ones(1))
        loss = nn.functional.cross_entropy(logits, label)
        self.scale_optim.zero_grad()
        self.model_backward_and_update(loss)
        self.scale_optim.step()
        with torch.no_grad():
            for slow, fast in zip(self.model.teacher.parameters(), self.model.head.parameters(), strict=True):
                slow.data.mul_(0.9).add_(fast, alpha=0.1)
        self.step_counter += 1
        weight = np.float32(1 / self.step_counter)
        head = self.model.head.state_dict()
        before = self.average or head
        self.average = OrderedDict((k, before[k] * (1 - weight) + v * weight) for k, v in head.items())
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": 100.0 * (logits.argmax(1) == label).float().mean().item()}

    def parse_batch_train(self, batch: dict) -> tuple:
        return batch["img"].to(self.device), batch["label"].to(self.device)


class Stop(Exception):
    pass


def stop_after_epoch(trainer: TrainerX, number: int) -> None:
    """Have a run stopped by an exception as soon as its ``number``-th epoch is finished and its state saved."""
    before_epoch, after_train = trainer.before_epoch, trainer.after_train

    def stop_between_epochs() -> None:
        if trainer.epoch == number:
            raise Stop
        before_epoch()

    def stop_at_the_end() -> None:
        if trainer.epoch + 1 == number:
            raise Stop
        after_train()

    trainer.before_epoch, trainer.after_train = stop_between_epochs, stop_at_the_end


def tiny_cfg(output: str | Path, *options: object):
    """Four epochs of six batches, warm-up and cosine, seed 5."""
    cfg = get_cfg_default()
    cfg.OUTPUT_DIR = str(output)
    cfg.USE_CUDA = False
    cfg.SEED = 5
    cfg.VERBOSE = False
    cfg.OPTIM.NAME = "sgd"
    cfg.OPTIM.LR = 0.05
    cfg.OPTIM.LR_SCHEDULER = "cosine"
    cfg.OPTIM.MAX_EPOCH = 4
    cfg.OPTIM.WARMUP_EPOCH = 1
    cfg.OPTIM.WARMUP_TYPE = "constant"
    cfg.TRAINER.NAME = "TinyTrainer"
    cfg.merge_from_list(list(options))
    return cfg


def everything(trainer: TinyTrainer) -> dict[str, torch.Tensor]:
    """Everything that training changes, to compare bit by bit."""
    found = dict(trainer.model.state_dict())
    found |= {f"scale.{name}": value for name, value in trainer.scale.state_dict().items()}
    found |= {f"average.{name}": value for name, value in trainer.average.items()}
    for number, state in trainer.optim.state_dict()["state"].items():
        found[f"momentum.{number}"] = state["momentum_buffer"]
    found["numbers"] = torch.tensor(
        [trainer.step_counter, trainer.get_current_lr(), random.random(), np.random.rand(), torch.rand(1).item()],
        dtype=torch.float64,
    )
    return found
