"""TaskRes: task residuals on text features (Yu et al., CVPR 2023, arXiv 2211.10277).

Letters: K classes, Dt text width, E joint width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from clip.model import CLIP
from clip.text import TextEncoder
from dassl.config import setting
from dassl.config.checks import number, text
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import load_checkpoint
from dassl.utils.schema import describe

from .on_features import VIEWS, ViewTrainer
from .precision import PRECISIONS
from .prompted_clip import FrozenTowersCLIP, unit
from .teacher import TextTeacher, texts_as_named


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.TASKRES = CfgNode()
    cfg.TRAINER.TASKRES.RESIDUAL_SCALE = 0.5  # of the residuals
    # Checkpoint of a linear layer (E, Dt), state_dict.weight, in place of the text projection; "": CLIP's own
    cfg.TRAINER.TASKRES.ENHANCED_BASE = ""
    cfg.TRAINER.TASKRES.VIEWS = 0  # random views to train on, computed once; 0: a new one per epoch, as published
    cfg.TRAINER.TASKRES.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp


declare_ranges("TRAINER.TASKRES", RESIDUAL_SCALE=number(), ENHANCED_BASE=text(), VIEWS=VIEWS, PREC=PRECISIONS)


class ResidualLearner(nn.Module):
    """Text features (K, E), not normalised: a fixed base, and scaled residuals that start from zero."""

    base_text_features: Tensor

    def __init__(self, num_classes: int, width: int, scale: float):
        super().__init__()
        self.scale = scale
        self.register_buffer("base_text_features", torch.zeros(num_classes, width))
        self.text_feature_residuals = nn.Parameter(torch.zeros(num_classes, width))

    def forward(self) -> Tensor:
        return self.base_text_features + self.scale * self.text_feature_residuals


class ResidualCLIP(FrozenTowersCLIP):
    """The text features are the learner's.

    Args:
        texts: for each template the prompts of the K classes; the base is the mean of their raw features.
        projection: a linear layer's weight (E, Dt) in place of the text projection.
    """

    not_in_text = ("text_encoder",)

    def __init__(
        self, clip_model: CLIP, texts: Sequence[Sequence[str]], scale: float, projection: Tensor | None = None
    ):
        super().__init__(clip_model)
        self.prompt_learner = ResidualLearner(len(texts[0]), clip_model.text_projection.shape[1], scale)
        self.teacher, self.projection = TextTeacher(clip_model, texts), projection

    def compute_base(self) -> None:
        """A pass over all texts, in the towers' precision."""
        encoder = self.text_encoder
        if self.projection is not None:
            projection = nn.Parameter(self.projection.t().to(encoder.text_projection), requires_grad=False)
            encoder = TextEncoder(encoder.transformer, encoder.positional_embedding, encoder.ln_final, projection)
        self.prompt_learner.base_text_features.copy_(self.teacher.mean_features(encoder))

    def compute_text_features(self) -> Tensor:
        return unit(self.prompt_learner())

    def draw_as_published(self) -> list[nn.Parameter]:
        return [self.prompt_learner.text_feature_residuals]  # zeros


def read_projection(path: str, shape: tuple[int, int]) -> Tensor:
    """The weight (E, Dt) of an enhanced base.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no such weight.
    """
    weight = load_checkpoint(path, need=("state_dict",))["state_dict"].get("weight")
    if not isinstance(weight, Tensor) or weight.shape != shape or not weight.is_floating_point():
        found = f"{tuple(weight.shape)} {weight.dtype}" if isinstance(weight, Tensor) else describe(weight)
        raise ValueError(
            f"TRAINER.TASKRES.ENHANCED_BASE: {path} has {found} as state_dict.weight, expected a "
            f"floating-point weight of shape {shape} (joint width, text width): is it the file for this backbone?"
        )
    return weight


@TRAINER_REGISTRY.register()
class TaskRes(ViewTrainer):
    """Learned: a residual for each class's text feature, which no other class has a use for."""

    config_node = "TASKRES"
    class_dims = {"text_feature_residuals": 0, "base_text_features": 0}

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> ResidualCLIP:
        path, projection = options.ENHANCED_BASE, clip_model.text_projection
        enhanced = read_projection(path, (projection.shape[1], projection.shape[0])) if path else None
        return ResidualCLIP(clip_model, texts_as_named(dataset), options.RESIDUAL_SCALE, enhanced)

    def build_model(self) -> None:
        super().build_model()
        if not setting(self.cfg, "MODEL.INIT_WEIGHTS"):
            self.model.compute_base()

    def checkpoint_root(self) -> nn.Module:
        return self.model.prompt_learner

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        return {} if shapes.keys() == {"text_feature_residuals", "base_text_features"} else None
