"""A cached-feature method with its own loops: data, epoch, test, hooks around training.

Two views of each training image, a prototype classifier from the few shots through a separate loader.
"""

import time

import torch
import torch.nn as nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm
from yacs.config import CfgNode as CN

import clip
from dassl.data import DataManager, DatasetWrapper
from dassl.data.data_manager import build_data_loader
from dassl.data.transforms import build_transform
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import AverageMeter, MetricMeter, count_num_param, tolist_if_not


def extend_cfg(cfg):
    """A node under TRAINER and one at the top level, as in methods with configurable losses."""
    cfg.TRAINER.LOOPS = CN()
    cfg.TRAINER.LOOPS.TEMPERATURE = 0.1
    cfg.LOSS = CN()
    cfg.LOSS.NAME = "ce"
    cfg.LOSS.LAMBDA = 0.5


class Prototypes(nn.Module):
    def __init__(self, weight, temperature):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.temperature = temperature

    def forward(self, features):
        return F.normalize(features, dim=-1) @ F.normalize(self.weight, dim=-1).t() / self.temperature


class WithPath(DatasetWrapper):
    """Adds the file's name to every item."""

    def __getitem__(self, idx):
        item = super().__getitem__(idx)
        item["name"] = item["impath"].rsplit("/", 1)[-1]
        return item


class ClipTransform:
    """CLIP's own preprocessing, as a transform of a DatasetWrapper."""

    def __init__(self, preprocess):
        self.preprocess = preprocess

    def __call__(self, image):
        return self.preprocess(image)


@TRAINER_REGISTRY.register()
class OwnLoops(TrainerX):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.best_epoch = 0

    def check_cfg(self, cfg):
        assert cfg.LOSS.NAME in ["ce", "smooth"]

    def build_data_loader(self):
        cfg = self.cfg
        weak = build_transform(cfg, is_train=True)
        strong = build_transform(cfg, is_train=True, choices=["randaugment", "normalize"])
        dm = DataManager(cfg, custom_tfm_train=[weak, strong], dataset_wrapper=WithPath)
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.dm = dm

    def build_model(self):
        cfg = self.cfg
        self.clip_model, self.preprocess = clip.load(cfg.MODEL.BACKBONE.NAME, device=self.device)
        self.clip_model.float()
        for param in self.clip_model.parameters():
            param.requires_grad = False
        names = [name.replace("_", " ") for name in self.dm.lab2cname.values()]
        with torch.no_grad():
            tokens = clip.tokenize([f"a photo of a {name}." for name in names]).to(self.device)
            self.text_features = F.normalize(self.clip_model.encode_text(tokens), dim=-1)
        self.model = Prototypes(self.text_features.clone(), cfg.TRAINER.LOOPS.TEMPERATURE).to(self.device)
        print(f"# params: {count_num_param(self.model):,}")
        self.optim = build_optimizer(self.model, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prototypes", self.model, self.optim, self.sched)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.1 if cfg.LOSS.NAME == "smooth" else 0.0)

    def before_train(self):
        super().before_train()
        if self.start_epoch == 0:
            self.init_from_shots()

    @torch.no_grad()
    def init_from_shots(self):
        """Move the classifier towards the mean feature of the shots of each class."""
        items = self.dm.dataset.train_x
        dataset = DatasetWrapper(self.cfg, items, transform=ClipTransform(self.preprocess), is_train=False)
        own = DataLoader(dataset, batch_size=8, shuffle=False, num_workers=0, drop_last=False)
        tfm = build_transform(self.cfg, is_train=False)
        built = build_data_loader(self.cfg, data_source=items, batch_size=8, tfm=tfm, is_train=False)
        sums = torch.zeros_like(self.model.weight)
        for loader in (own, built):
            for batch in loader:
                features = F.normalize(self.clip_model.encode_image(batch["img"].to(self.device)), dim=-1)
                sums.index_add_(0, batch["label"].to(self.device), features)
        assert [item.label for item in items] == [dataset[i]["label"] for i in range(len(dataset))]
        self.model.weight.data = self.text_features + F.normalize(sums, dim=-1)

    def run_epoch(self):
        self.set_model_mode("train")
        losses = MetricMeter()
        batch_time = AverageMeter()
        data_time = AverageMeter()
        self.num_batches = len(self.train_loader_x)
        end = time.time()
        for self.batch_idx, batch in enumerate(self.train_loader_x):  # noqa: B020
            data_time.update(time.time() - end)
            loss_summary = self.forward_backward(batch)
            batch_time.update(time.time() - end)
            losses.update(loss_summary)
            if (self.batch_idx + 1) % self.cfg.TRAIN.PRINT_FREQ == 0 or self.num_batches < self.cfg.TRAIN.PRINT_FREQ:
                info = [f"epoch [{self.epoch + 1}/{self.max_epoch}]"]
                info += [f"batch [{self.batch_idx + 1}/{self.num_batches}]"]
                info += [f"time {batch_time.val:.3f} ({batch_time.avg:.3f})", f"{losses}"]
                info += [f"lr {self.get_current_lr():.4e}"]
                print(" ".join(info))
            n_iter = self.epoch * self.num_batches + self.batch_idx
            for name, meter in losses.meters.items():
                self.write_scalar("train/" + name, meter.avg, n_iter)
            self.write_scalar("train/lr", self.get_current_lr(), n_iter)
            end = time.time()

    def parse_batch_train(self, batch):
        input = [view.to(self.device) for view in tolist_if_not([batch["img"], batch["img2"]])]
        assert len(batch["name"]) == len(batch["label"])
        return input, batch["label"].to(self.device)

    def parse_batch_test(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def forward_backward(self, batch):
        (weak, strong), label = self.parse_batch_train(batch)
        output = self.model_inference(weak)
        loss = self.criterion(output, label)
        loss = loss + self.cfg.LOSS.LAMBDA * self.criterion(self.model_inference(strong), label)
        self.model_zero_grad()
        self.model_backward(loss)
        self.model_update()
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}

    def model_inference(self, input):
        with torch.no_grad():
            features = self.clip_model.encode_image(input)
        return self.model(features)

    def after_train(self):
        super().after_train()
        print(f"prototypes {tuple(self.model.weight.shape)} trained in {time.time() - self.time_start:.1f} s")

    @torch.no_grad()
    def test(self, split=None):
        self.set_model_mode("eval")
        self.evaluator.reset()
        if split is None:
            split = self.cfg.TEST.SPLIT
        data_loader = self.val_loader if split == "val" and self.val_loader is not None else self.test_loader
        print(f"Evaluate on the *{split}* set")
        for batch in tqdm(data_loader, disable=True):
            input, label = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(input), label)
        results = self.evaluator.evaluate()
        for k, v in results.items():
            self.write_scalar(f"{split}/{k}", v, self.epoch)
        return next(iter(results.values()))
