"""One epoch: over labelled data (TrainerX), or over labelled and unlabelled data side by side (TrainerXU)."""

import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from dassl.engine.simple import SimpleTrainer
from dassl.utils.meters import AverageMeter, MetricMeter
from dassl.utils.progress import progress, say
from dassl.utils.tools import check_availability

__all__ = ["TrainerX", "TrainerXU"]


class _EpochLoop(SimpleTrainer):
    """Runs training steps with their meters, printed lines and curves."""

    def _run_steps(self, batches: Iterable[tuple[Any, ...]], num_batches: int) -> None:
        """An epoch of ``num_batches`` steps; each takes a tuple of one batch from every loader."""
        if num_batches == 0:
            raise ValueError(
                f"The training data of {self.cfg.DATASET.NAME or 'the dataset'} make no batch: are there any images"
                " (DATASET.ROOT, DATASET.NUM_SHOTS, DATASET.SUBSAMPLE_CLASSES)?"
            )
        self.set_model_mode("train")
        self.num_batches = num_batches
        losses = MetricMeter()
        batch_time = AverageMeter()
        data_time = AverageMeter()
        end = time.time()
        bar = progress(batches, f"epoch {self.epoch + 1}/{self.max_epoch}", num_batches)
        for self.batch_idx, parts in enumerate(bar):
            data_time.update(time.time() - end)
            lr = self.get_current_lr()
            loss_summary = self.forward_backward(*parts)
            self.check_losses(loss_summary)
            losses.update(loss_summary)
            batch_time.update(time.time() - end)
            step = self.batch_idx + 1
            freq = self.cfg.TRAIN.PRINT_FREQ
            if step % freq == 0 or num_batches < freq:
                self._print_step(step, batch_time, data_time, losses, lr)
            n_iter = self.epoch * num_batches + self.batch_idx
            for name, meter in losses.meters.items():
                self.write_scalar(f"train/{name}", meter.avg, n_iter)
            self.write_scalar("train/lr", lr, n_iter)
            self._epoch_lr = lr
            self._epoch_images += sum(len(batch["img"]) for batch in parts)
            end = time.time()
        self._epoch_losses = {name: meter.avg for name, meter in losses.meters.items()}

    def _print_step(
        self, step: int, batch_time: AverageMeter, data_time: AverageMeter, losses: MetricMeter, lr: float
    ) -> None:
        steps_left = self.num_batches - step + (self.max_epoch - self.epoch - 1) * self.num_batches
        eta = timedelta(seconds=int(batch_time.avg * steps_left))
        say(
            f"epoch [{self.epoch + 1}/{self.max_epoch}] batch [{step}/{self.num_batches}]"
            f" time {batch_time.val:.3f} ({batch_time.avg:.3f}) data {data_time.val:.3f} ({data_time.avg:.3f})"
            f" {losses} lr {lr:.4e} eta {eta}"
        )


class TrainerX(_EpochLoop):
    """Trains on labelled data."""

    def run_epoch(self) -> None:
        self._run_steps(((batch,) for batch in self.train_loader_x), len(self.train_loader_x))

    def parse_batch_train(self, batch: dict[str, Any]) -> Any:
        """Images, labels and domains on the device."""
        return tuple(batch[key].to(self.device) for key in ("img", "label", "domain"))


class TrainerXU(_EpochLoop):
    """Trains on a labelled and an unlabelled batch at a time; ``forward_backward`` takes (batch_x, batch_u)."""

    def run_epoch(self) -> None:
        sizes = {"train_x": len(self.train_loader_x), "train_u": len(self.train_loader_u)}
        sizes["smaller_one"] = min(sizes.values())
        check_availability(self.cfg.TRAIN.COUNT_ITER, sizes, "TRAIN.COUNT_ITER")
        num_batches = sizes[self.cfg.TRAIN.COUNT_ITER]
        pairs = zip(range(num_batches), _endless(self.train_loader_x), _endless(self.train_loader_u), strict=False)
        self._run_steps(((x, u) for _, x, u in pairs), num_batches)

    def forward_backward(self, batch_x: Any, batch_u: Any = None) -> dict[str, Any]:  # type: ignore[override]
        raise NotImplementedError

    def parse_batch_train(self, batch_x: dict[str, Any], batch_u: dict[str, Any]) -> Any:  # type: ignore[override]
        """Labelled images, their labels, unlabelled images, on the device."""
        input_x = batch_x["img"].to(self.device)
        label_x = batch_x["label"].to(self.device)
        return input_x, label_x, batch_u["img"].to(self.device)


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader
