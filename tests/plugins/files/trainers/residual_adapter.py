"""A bottleneck on CLIP's image features, in the style of CLIP-Adapter; the best validated epoch is tested."""

import torch
import torch.nn as nn
from yacs.config import CfgNode as CN

from clip import clip
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer


def extend_cfg(cfg):
    cfg.TRAINER.ADAPTER = CN()
    cfg.TRAINER.ADAPTER.RATIO = 0.2
    cfg.TRAINER.ADAPTER.REDUCTION = 4
    cfg.TRAINER.ADAPTER.PREC = "fp16"


class Adapter(nn.Module):
    def __init__(self, c_in, reduction=4):
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(c_in, c_in // reduction, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(c_in // reduction, c_in, bias=False),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        return self.fc(x)


class CustomCLIP(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        self.image_encoder = clip_model.visual
        self.logit_scale = clip_model.logit_scale
        self.dtype = clip_model.dtype
        self.ratio = cfg.TRAINER.ADAPTER.RATIO
        prompts = torch.cat([clip.tokenize(f"a photo of a {c.replace('_', ' ')}.") for c in classnames])
        with torch.no_grad():
            text_features = clip_model.encode_text(prompts)
        self.text_features = text_features / text_features.norm(dim=-1, keepdim=True)
        self.adapter = Adapter(clip_model.visual.output_dim, cfg.TRAINER.ADAPTER.REDUCTION).to(clip_model.dtype)

    def forward(self, image):
        image_features = self.image_encoder(image.type(self.dtype))
        x = self.adapter(image_features)
        image_features = self.ratio * x + (1 - self.ratio) * image_features
        image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        return self.logit_scale.exp() * image_features @ self.text_features.to(image.device).t()


@TRAINER_REGISTRY.register()
class ResidualAdapter(TrainerX):
    def build_model(self):
        cfg = self.cfg
        clip_model, _ = clip.load(cfg.MODEL.BACKBONE.NAME, device="cpu")
        clip_model.float()
        self.model = CustomCLIP(cfg, self.dm.dataset.classnames, clip_model)
        for name, param in self.model.named_parameters():
            if "adapter" not in name:
                param.requires_grad_(False)
        self.model.to(self.device)
        self.criterion = nn.CrossEntropyLoss()
        self.optim = build_optimizer(self.model.adapter, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("clip_adapter", self.model.adapter, self.optim, self.sched)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        output = self.model(image)
        loss = self.criterion(output, label)
        self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)
