"""TrainerX and TrainerXU: an epoch over labelled data, or over labelled and unlabelled data together."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch

from dassl.data.ahead import copied_ahead
from dassl.engine.simple import SimpleTrainer
from dassl.engine.steps import EpochReport
from dassl.utils.device import sent
from dassl.utils.progress import progress
from dassl.utils.tools import check_availability

__all__ = ["TrainerX", "TrainerXU"]


def run_steps(trainer: SimpleTrainer, batches: Iterable[tuple[Any, ...]], num_batches: int) -> None:
    """One epoch of training steps, with printed lines, TensorBoard curves and averages for the run's record.

    Args:
        batches: for every step a tuple of one batch from each loader.
        num_batches: of an epoch; the last one ends where ``trainer.max_steps`` are done.
    """
    if num_batches == 0:
        raise ValueError(
            f"The training data of {trainer.cfg.DATASET.NAME or 'the dataset'} make no batch: are there any images"
            " (DATASET.ROOT, DATASET.NUM_SHOTS, DATASET.SUBSAMPLE_CLASSES)?"
        )
    first = trainer.epoch * num_batches  # step of this epoch's first batch
    if trainer.max_steps:
        num_batches = min(num_batches, trainer.max_steps - first)
        batches = islice(batches, num_batches)
    trainer.set_model_mode("train")
    trainer.num_batches = num_batches
    record = trainer.run_record
    report = EpochReport(trainer, num_batches, first)
    bar = progress(copied_ahead(batches, trainer.device), f"epoch {trainer.epoch + 1}/{trainer.max_epoch}", num_batches)
    trainer.losses_checked_later = True
    try:
        for trainer.batch_idx, parts in enumerate(bar):
            report.start_step()
            record.lr = trainer.get_current_lr()
            values = trainer.forward_backward(*parts)
            record.steps += 1
            record.images += sum(len(batch["img"] if "img" in batch else batch["label"]) for batch in parts)
            report.end_step(record.lr, values)
        report.read()
    finally:
        trainer.losses_checked_later = False
    record.losses = {name: meter.avg for name, meter in report.losses.meters.items()}


def take_out_opposing(learned: Iterable[torch.Tensor], against: Iterable[torch.Tensor | None], lambda_: float) -> None:
    """Take out of the gradient a of each tensor what opposes b: lambda_ (a b') b' where a b' < 0, with b' = b / |b|."""
    for parameter, b in zip(learned, against, strict=True):
        a = parameter.grad
        if a is None or b is None:
            continue
        unit = b / torch.linalg.vector_norm(b).clamp_min(torch.finfo(b.dtype).tiny)  # 0 where b is 0
        a -= lambda_ * (a * unit).sum().clamp_max(0) * unit


class TrainerX(SimpleTrainer):
    """Trains on labelled data."""

    def run_epoch(self) -> None:
        run_steps(self, ((batch,) for batch in self.train_loader_x), len(self.train_loader_x))

    def parse_batch_train(self, batch: dict[str, Any]) -> Any:
        """Images, labels and domains on the device."""
        return tuple(sent(batch[key], self.device) for key in ("img", "label", "domain"))

    def prograd_backward_and_update(
        self, loss_a: torch.Tensor, loss_b: torch.Tensor, lambda_: float = 1, names: str | list[str] | None = None
    ) -> None:
        """One optimizer step on ``loss_a`` without what opposes ``loss_b`` (ProGrad, Zhu et al., ICCV 2023).

        With a and b the gradients of a learned tensor, and b' = b / |b|: the step takes a - lambda_ (a b') b' where
        a b' < 0, and a elsewhere. ``loss_b`` itself is not descended. Forks of Dassl have this method.
        """
        names = self.get_model_names(names)
        modules = [self._models[name] for name in names]
        learned = list(dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad))
        self.detect_anomaly(loss_b)
        against = torch.autograd.grad(loss_b, learned, retain_graph=True, allow_unused=True)
        self.model_zero_grad(names)
        self.model_backward(loss_a)
        take_out_opposing(learned, against, lambda_)
        self.model_update(names)


class TrainerXU(SimpleTrainer):
    """Trains on a labelled and an unlabelled batch per step; ``forward_backward`` takes (batch_x, batch_u)."""

    def run_epoch(self) -> None:
        sizes = {"train_x": len(self.train_loader_x), "train_u": len(self.train_loader_u)}
        sizes["smaller_one"] = min(sizes.values())
        check_availability(self.cfg.TRAIN.COUNT_ITER, sizes, "TRAIN.COUNT_ITER")
        num_batches = sizes[self.cfg.TRAIN.COUNT_ITER]
        pairs = zip(range(num_batches), _endless(self.train_loader_x), _endless(self.train_loader_u), strict=False)
        run_steps(self, ((x, u) for _, x, u in pairs), num_batches)

    def forward_backward(self, batch_x: Any, batch_u: Any = None) -> dict[str, Any]:  # type: ignore[override]
        raise NotImplementedError

    def parse_batch_train(self, batch_x: dict[str, Any], batch_u: dict[str, Any]) -> Any:  # type: ignore[override]
        """Labelled images, their labels, unlabelled images, on the device."""
        parts = (batch_x["img"], batch_x["label"], batch_u["img"])
        return tuple(sent(part, self.device) for part in parts)


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader
