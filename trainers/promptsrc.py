"""PromptSRC: prompts that regulate themselves (Khattak et al., ICCV 2023, arXiv 2307.06948).

Letters: B images, K classes, E joint width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from yacs.config import CfgNode

from clip.model import CLIP, add_vision_prompts
from dassl.config.checks import number, text, whole
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY

from .base import ClipTrainer
from .checkpoint import TEACHER_TOWER, independent_options
from .graphs import capturable
from .precision import PRECISIONS
from .prompted_clip import deep_context
from .prompts import TEXT_CTX
from .teacher import GuidedCLIP
from .templates import TEMPLATES_60


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.PROMPTSRC = CfgNode()
    cfg.TRAINER.PROMPTSRC.N_CTX_VISION = 4  # prompt tokens in the image tower; 0 switches its prompts off
    cfg.TRAINER.PROMPTSRC.N_CTX_TEXT = 4  # prompt tokens in the text tower
    cfg.TRAINER.PROMPTSRC.CTX_INIT = "a photo of a"  # words whose first N_CTX_TEXT tokens start the context; "": random
    cfg.TRAINER.PROMPTSRC.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp
    cfg.TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION = 9  # layers with prompts of their own; 0: language prompting alone
    cfg.TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT = 9  # layers with prompts of their own, 1 (input only) … number of layers
    cfg.TRAINER.PROMPTSRC.TEXT_LOSS_WEIGHT = 25.0  # of the text features' distance from the teacher's
    cfg.TRAINER.PROMPTSRC.IMAGE_LOSS_WEIGHT = 10.0  # of the image features' distance from the teacher's
    cfg.TRAINER.PROMPTSRC.GPA_MEAN = 15.0  # epoch with the largest weight in the aggregate of the epochs' prompts
    cfg.TRAINER.PROMPTSRC.GPA_STD = 1.0  # epochs around it: the deviation of the Gaussian of weights


declare_ranges(
    "TRAINER.PROMPTSRC",
    N_CTX_VISION=whole(0, 1000),
    N_CTX_TEXT=TEXT_CTX,
    CTX_INIT=text(),
    PREC=PRECISIONS,
    PROMPT_DEPTH_VISION=whole(0, 100),
    PROMPT_DEPTH_TEXT=whole(1, 100),
    TEXT_LOSS_WEIGHT=number(0),
    IMAGE_LOSS_WEIGHT=number(0),
    GPA_MEAN=number(),
    GPA_STD=number(above=0),
)


def epoch_weights(mean: float, std: float, epochs: int) -> list[float]:
    """The values of a Gaussian at epochs 1 … `epochs`, which add up to one (section 3.2.2)."""
    distance = (torch.arange(1, epochs + 1, dtype=torch.float64) - mean) / std
    return (-(distance**2) / 2).softmax(dim=0).tolist()


def unsuitable(weights: Sequence[float]) -> str:
    """In which way the aggregate would leave out most epochs, or the later ones; "" if it does not."""
    largest, late = max(weights), sum(weights[len(weights) // 2 :])
    if len(weights) > 1 and largest > 0.9:
        return f"epoch {weights.index(largest) + 1} of {len(weights)} has {largest:.0%} of the weight"
    return f"the second half of {len(weights)} epochs has {late:.0%} of the weight" if late < 0.1 else ""


@TRAINER_REGISTRY.register()
class PromptSRC(ClipTrainer):
    """Learned: IVLP's prompts, held close to the pretrained CLIP; the run ends with their average over the epochs."""

    config_node = "PROMPTSRC"
    registered_name = "VLPromptLearner"
    not_loaded = (*ClipTrainer.not_loaded, TEACHER_TOWER)

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> GuidedCLIP:
        if options.N_CTX_VISION and options.PROMPT_DEPTH_VISION:
            add_vision_prompts(clip_model, options.N_CTX_VISION, options.PROMPT_DEPTH_VISION)
        names, words = dataset.classnames, options.CTX_INIT
        learner = deep_context(clip_model, names, words, options.N_CTX_TEXT, options.PROMPT_DEPTH_TEXT)
        return GuidedCLIP(clip_model, learner, names, *TEMPLATES_60)

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        return independent_options(shapes)

    @capturable
    def losses(self, image: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy, and the mutual agreement with the teacher: the same towers without prompts (section 3.2.1)."""
        options, model = self.cfg.TRAINER.PROMPTSRC, self.model
        teacher_image, teacher_text = model.without_prompts(image), model.teacher_features()  # (B, E), (K, E)
        teacher_logits = model.logits(teacher_image, teacher_text)  # (B, K)
        image_features, text_features = model.image_features(image), model.text_features()
        logits = model.logits(image_features, text_features)
        divergence = F.kl_div(logits.log_softmax(-1), teacher_logits.log_softmax(-1), reduction="sum", log_target=True)
        return logits, {
            "ce": self.cross_entropy(logits, label),
            "scl_text": options.TEXT_LOSS_WEIGHT * F.l1_loss(text_features, teacher_text),
            "scl_image": options.IMAGE_LOSS_WEIGHT * F.l1_loss(image_features, teacher_image),
            "scl_logits": divergence / logits.numel(),  # not per image only: published so
        }

    def build_model(self) -> None:
        super().build_model()
        options = self.cfg.TRAINER.PROMPTSRC
        self.epoch_weights = epoch_weights(options.GPA_MEAN, options.GPA_STD, self.max_epoch)
        self.aggregate = {name: torch.zeros_like(p) for name, p in self.model.named_parameters() if p.requires_grad}

    def before_train(self) -> None:
        if note := unsuitable(self.epoch_weights):
            options, epochs = self.cfg.TRAINER.PROMPTSRC, self.max_epoch
            print(
                f"Note: with TRAINER.PROMPTSRC.GPA_MEAN {options.GPA_MEAN:g} and GPA_STD {options.GPA_STD:g}, {note}."
                f" The published 15 and 1 are for 20 epochs; for {epochs}, use {0.75 * epochs:g} and"
                f" {max(1, 0.05 * epochs):g}, for example"
            )
        super().before_train()

    @torch.no_grad()
    def after_epoch(self) -> None:
        """Add the epoch's prompts to the aggregate, which replaces them after the last epoch (equation 7).

        Training and the checkpoints before the last one have the epoch's own prompts.
        """
        for name, total in self.aggregate.items():
            total.add_(self.model.get_parameter(name), alpha=self.epoch_weights[self.epoch])
            if self.epoch + 1 == self.max_epoch:
                self.model.get_parameter(name).copy_(total)
        super().after_epoch()
