"""Exact resume through the real data layer: augmented images, any number of workers."""

import pytest
import torch
from PIL import Image
from torch import nn

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import set_random_seed
from tests.dassl.tiny import Stop, stop_after_epoch, tiny_cfg


@DATASET_REGISTRY.register(force=True)
class TinyPictures(DatasetBase):
    def __init__(self, cfg) -> None:
        generator = torch.Generator().manual_seed(0)
        items = []
        for index in range(12):
            path = f"{cfg.DATASET.ROOT}/{index}.png"
            pixels = torch.randint(0, 256, (8, 8, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(path)
            items.append(Datum(impath=path, label=index % 2, classname=f"class{index % 2}"))
        super().__init__(train_x=items, val=items[:4], test=items)


class PictureTrainer(TrainerX):
    def load_model(self, directory, epoch=None) -> None:
        """Keep the last weights, which are compared."""

    def build_model(self) -> None:
        self.model = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(192, 2))
        self.optim = build_optimizer(self.model, self.cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        self.register_model("net", self.model, self.optim, self.sched)

    def forward_backward(self, batch):
        image, label, _ = self.parse_batch_train(batch)
        loss = nn.functional.cross_entropy(self.model(image), label)
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item()}


def run(folder, root, workers: int, stop_after: int | None = None) -> torch.Tensor:
    cfg = tiny_cfg(folder, "OPTIM.MAX_EPOCH", 3, "DATALOADER.NUM_WORKERS", workers, "TEST.FINAL_MODEL", "best_val")
    cfg.DATASET.NAME = "TinyPictures"
    cfg.DATASET.ROOT = str(root)
    cfg.INPUT.SIZE = (8, 8)
    cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize", "gaussian_noise", "cutout")
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 5
    set_random_seed(cfg.SEED)
    trainer = PictureTrainer(cfg)
    if stop_after is None:
        trainer.train()
    else:
        stop_after_epoch(trainer, stop_after)
        with pytest.raises(Stop):
            trainer.train()
    return trainer.model[2].weight.detach()


def test_resume_with_workers(tmp_path) -> None:
    (tmp_path / "data").mkdir()
    expected = run(tmp_path / "whole", tmp_path / "data", workers=0)
    assert torch.equal(run(tmp_path / "workers", tmp_path / "data", workers=2), expected)
    run(tmp_path / "cut", tmp_path / "data", workers=2, stop_after=1)
    run(tmp_path / "cut", tmp_path / "data", workers=0, stop_after=2)
    assert torch.equal(run(tmp_path / "cut", tmp_path / "data", workers=1), expected)
