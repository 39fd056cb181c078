"""CLAP: class-adaptive linear probe (Silva-Rodríguez et al., CVPR 2024, arXiv 2312.12730), and its ZS-LP.

Letters: B features of a batch, N support images, V random views of each, E joint width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from clip.model import CLIP
from dassl.config.checks import one_of, whole
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY

from .on_features import Features, FeatureTrainer
from .precision import PRECISIONS
from .prompted_clip import FrozenTowersCLIP, unit
from .teacher import TextTeacher, texts_as_named


class ClassPrototypes(nn.Module):
    """A vector for each class, which starts from its text feature. Neither is normalised."""

    base_text_features: Tensor  # (K, E)

    def __init__(self, clip_model: CLIP, classes: int):
        super().__init__()
        E = clip_model.text_projection.shape[1]
        self.logit_scale = clip_model.logit_scale  # frozen; published checkpoints have it
        self.prototypes = nn.Parameter(torch.zeros(classes, E))
        self.register_buffer("base_text_features", torch.zeros(classes, E))


class PrototypeCLIP(FrozenTowersCLIP):
    """The prototypes in place of text features.

    Args:
        texts: for each template the prompts of the K classes, whose features the prototypes start from.
    """

    not_in_text = ("text_encoder",)

    def __init__(self, clip_model: CLIP, texts: Sequence[Sequence[str]]):
        super().__init__(clip_model)
        self.teacher = TextTeacher(clip_model, texts)
        self.adapter = ClassPrototypes(clip_model, len(texts[0]))

    @torch.no_grad()
    def start_from_texts(self) -> None:
        """Zero-shot CLIP."""
        self.adapter.base_text_features.copy_(self.teacher.mean_features(self.text_encoder))
        self.adapter.prototypes.copy_(self.adapter.base_text_features)

    def compute_text_features(self) -> Tensor:
        return unit(self.adapter.prototypes)

    @torch.no_grad()
    def zero_shot(self, features: Tensor) -> Tensor:
        """Logits (B, K) of features (B, E) with the texts that the prototypes start from."""
        return self.logits(self.adapt_image(features), unit(self.adapter.base_text_features))


def extend_cfg(cfg: CfgNode) -> None:
    """The published code reads its options from TRAINER.ADAPTER."""
    cfg.TRAINER.CLAP = CfgNode()
    cfg.TRAINER.CLAP.CONSTRAINT = "l2"  # keeps the prototypes close to the texts; none: the baseline ZS-LP
    cfg.TRAINER.CLAP.VIEWS = 20  # random views of each training image
    cfg.TRAINER.CLAP.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp


declare_ranges("TRAINER.CLAP", CONSTRAINT=one_of("none", "l2"), VIEWS=whole(1, 1000), PREC=PRECISIONS)


@TRAINER_REGISTRY.register()
class CLAP(FeatureTrainer):
    """Learned: a prototype for each class, held close to its text feature as far as zero-shot CLIP knows the class."""

    config_node = "CLAP"
    registered_name = "adapter"
    class_dims = {"prototypes": 0, "base_text_features": 0}

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> PrototypeCLIP:
        return PrototypeCLIP(clip_model, texts_as_named(dataset))

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        return {} if "prototypes" in shapes else None

    def checkpoint_root(self) -> nn.Module:
        return self.model.adapter

    def build_model(self) -> None:
        super().build_model()
        self.multipliers = torch.zeros(self.num_classes, device=self.device)  # λ (K,), which a resumed run keeps

    def fit(self) -> None:
        """The initial prototypes, and each class's weight of the constraint, fixed for the whole training."""
        if not self.cfg.MODEL.INIT_WEIGHTS:
            self.model.start_from_texts()
        support = self.support(self.options_of(self.cfg).VIEWS)
        of_views = [
            class_means(self.model.zero_shot(view).softmax(dim=-1), support.labels) for view in support.features
        ]
        self.multipliers = torch.stack(of_views).mean(dim=0)

    def feature_batches(self) -> list[Features]:
        """As many batches as N images make, of the V N views in random order; the others are left out this time."""
        V, size = self.options_of(self.cfg).VIEWS, self.cfg.DATALOADER.TRAIN_X.BATCH_SIZE
        support = self.support(V)
        features, labels = support.features.flatten(0, 1), support.labels.repeat(V)  # (V N, E), (V N,)
        order = torch.randperm(len(labels))[: size * len(self.train_loader_x)].to(self.device)
        return [Features(features[rows], labels[rows]) for rows in order.split(size)]

    def losses(self, image: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy, and the weighted squared distance of the vectors from those of the texts."""
        logits, terms = super().losses(image, label)
        if self.options_of(self.cfg).CONSTRAINT == "l2":
            adapter = self.model.adapter
            distance = (adapter.prototypes - adapter.base_text_features).square().sum(dim=-1)  # (K,)
            terms["constraint"] = (self.multipliers * distance).mean()
        return logits, terms


def class_means(probabilities: Tensor, labels: Tensor) -> Tensor:
    """For each class (K,) the mean of its probability over its images, of (N, K) and labels (N,); 0 without images."""
    of_label = probabilities.gather(1, labels[:, None])[:, 0]  # (N,)
    classes = probabilities.shape[1]
    total = probabilities.new_zeros(classes).index_add_(0, labels, of_label)
    return total / labels.bincount(minlength=classes).clamp_min(1)
