"""What every prompt-learning trainer shares: the frozen CLIP, precision, loss, and loading of learned tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from yacs.config import CfgNode

import clip
from clip.model import CLIP
from dassl.data.datasets.base_dataset import first_few
from dassl.engine import TrainerX
from dassl.engine.state import check_tensors
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint

from .precision import Precision
from .prompted_clip import FrozenTowersCLIP

# Computed from the class names at hand, so a checkpoint's own are of no use.
CLASS_NAME_BUFFERS = ("token_prefix", "token_suffix")


def load_clip(cfg: CfgNode) -> CLIP:
    """The backbone of `cfg`, frozen, in fp32 on the CPU; a ValueError where `INPUT.SIZE` does not suit it."""
    name = cfg.MODEL.BACKBONE.NAME
    model = clip.load(name, device="cpu")[0].float().requires_grad_(False)
    side = model.visual.input_resolution
    if tuple(cfg.INPUT.SIZE) != (side, side):
        raise ValueError(
            f"INPUT.SIZE is {tuple(cfg.INPUT.SIZE)}, but the backbone {name} takes images of {side} x {side} pixels: "
            f'pass INPUT.SIZE "({side}, {side})"'
        )
    return model


class PromptTrainer(TrainerX):
    """Trains what is learned in a `FrozenTowersCLIP` with cross entropy.

    A method sets `node` (its config node's name under TRAINER) and `registered_name` (its folder in a run), and
    gives `build_prompted_clip`. What has `requires_grad` after that is what is learned.
    """

    node: str
    registered_name = "prompt_learner"

    def build_prompted_clip(self, options: CfgNode, classnames: list[str], clip_model: CLIP) -> FrozenTowersCLIP:
        """The method's model. `options` is the trainer's config node."""
        raise NotImplementedError

    def registered_module(self) -> nn.Module:
        """What a checkpoint's names are relative to."""
        return self.model

    def build_model(self) -> None:
        cfg, options = self.cfg, self.cfg.TRAINER[self.node]
        self.precision = Precision(options.PREC, self.device)
        self.model = self.build_prompted_clip(options, self.dm.dataset.classnames, load_clip(cfg))
        self.precision.cast_towers(self.model.image_encoder, self.model.text_encoder)
        self.model.to(self.device)
        learned = [p for p in self.model.parameters() if p.requires_grad]
        if not learned:
            return
        module = self.registered_module()
        if cfg.MODEL.INIT_WEIGHTS:
            load_learned(module, load_checkpoint(cfg.MODEL.INIT_WEIGHTS)["state_dict"], cfg.MODEL.INIT_WEIGHTS)
        self.scaler = self.precision.grad_scaler()
        self.optim = build_optimizer(self.model, cfg.OPTIM, param_groups=learned)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model(self.registered_name, module, self.optim, self.sched)

    def set_model_mode(self, mode: str = "train", names: Any = None) -> None:
        self.model.train(mode == "train")

    def forward_backward(self, batch: dict[str, Any]) -> dict[str, float]:
        image, label = self.parse_batch_train(batch)
        with self.precision.autocast():
            logits = self.model(image)
        loss = F.cross_entropy(logits, label)
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(logits, label)[0].item()}

    def model_backward_and_update(self, loss: Tensor, names: Any = None) -> None:
        if self.scaler is None:
            super().model_backward_and_update(loss, names)
            return
        self.detect_anomaly(loss)
        self.model_zero_grad(names)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optim)
        self.scaler.update()

    def model_inference(self, input: Tensor) -> Tensor:
        with self.precision.autocast():
            return self.model(input)

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        return (
            batch["img"].to(self.device, non_blocking=True),
            batch["label"].to(self.device, non_blocking=True),
        )

    def belongs_to(self) -> dict[str, Any]:
        """The backbone, by name or, for weights of one's own, by file name."""
        name = self.cfg.MODEL.BACKBONE.NAME
        return {"backbone": name if name in clip.available_models() else os.path.basename(name)}

    def load_weights(self, name: str, state_dict: Mapping[str, Tensor], source: str) -> None:
        """Takes published checkpoints, which hold the whole model, too."""
        load_learned(self._models[name], state_dict, source)


def load_learned(module: nn.Module, state_dict: Mapping[str, Tensor], path: str) -> None:
    """Copy the learned tensors of `state_dict` into `module`, which must match exactly.

    Frozen weights may be there too, as in published checkpoints; they must be those of the module's backbone.

    Raises:
        ValueError: a learned tensor is missing, unknown or of another shape, or the backbone is another one.
    """
    found = {k: v for k, v in state_dict.items() if k.rpartition(".")[2] not in CLASS_NAME_BUFFERS}
    learned = {k for k, p in module.named_parameters() if p.requires_grad}
    own = module.state_dict()
    check_tensors(module, found, own.keys() - learned, path)
    other = [
        k
        for k, v in found.items()
        if k not in learned and not torch.allclose(v.float().cpu(), own[k].float().cpu(), rtol=1e-2, atol=1e-3)
    ]
    if other:
        raise ValueError(
            f"{path} was trained on another backbone: {len(other)} of its frozen tensors have other values than this "
            f"model's ({first_few(other)}). Set MODEL.BACKBONE.NAME to the one it was trained with."
        )
    module.load_state_dict({k: found[k] for k in learned}, strict=False)
