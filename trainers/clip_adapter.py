"""CLIP-Adapter: a residual bottleneck on image features (Gao et al., IJCV 2024, arXiv 2110.04544).

Letters: B images, E joint width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from yacs.config import CfgNode

from clip.model import CLIP
from dassl.config.checks import number, whole
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY

from .on_features import VIEWS, ViewTrainer
from .precision import PRECISIONS
from .prompted_clip import FixedTextCLIP, unit, without_autocast
from .prompts import DEFAULT_TEMPLATE, fill


def extend_cfg(cfg: CfgNode) -> None:
    """The published code has no options: RATIO and REDUCTION are constants in it."""
    cfg.TRAINER.CLIPADAPTER = CfgNode()
    cfg.TRAINER.CLIPADAPTER.RATIO = 0.2  # of the adapter's output in the image feature
    cfg.TRAINER.CLIPADAPTER.REDUCTION = 4  # joint width over the width of the bottleneck
    cfg.TRAINER.CLIPADAPTER.VIEWS = 0  # random views to train on, computed once; 0: a new one per epoch, as published
    cfg.TRAINER.CLIPADAPTER.PREC = "fp32"  # the towers' precision: fp32, fp16, bf16, amp


declare_ranges("TRAINER.CLIPADAPTER", RATIO=number(0, 1), REDUCTION=whole(1, 1024), VIEWS=VIEWS, PREC=PRECISIONS)


class Adapter(nn.Module):
    """ReLU(W2 ReLU(W1 v)) of features (B, E); the last ReLU is the published code's, too."""

    def __init__(self, width: int, reduction: int):
        super().__init__()
        if width < reduction:
            raise ValueError(f"TRAINER.CLIPADAPTER.REDUCTION is {reduction}, expected at most the joint width {width}")
        inner = width // reduction
        self.fc = nn.Sequential(
            nn.Linear(width, inner, bias=False), nn.ReLU(), nn.Linear(inner, width, bias=False), nn.ReLU()
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.fc(features)


class AdaptedCLIP(FixedTextCLIP):
    """Image features are mixed with what the adapter makes of them, both not normalised."""

    not_in_text = ("adapter",)

    def __init__(self, clip_model: CLIP, prompts: list[str], ratio: float, reduction: int):
        super().__init__(clip_model, [prompts])
        self.ratio = ratio
        self.adapter = Adapter(clip_model.text_projection.shape[1], reduction)

    def adapt_image(self, features: Tensor) -> Tensor:
        with without_autocast(features.device):
            features = features.float()
            return unit(self.ratio * self.adapter(features) + (1 - self.ratio) * features)

    def draw_as_published(self) -> list[nn.Parameter]:
        for layer in self.adapter.fc:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        return [*self.adapter.parameters()]


@TRAINER_REGISTRY.register()
class CLIPAdapter(ViewTrainer):
    """Learned: the two layers of the adapter. The text is the data set's own hand-written prompt."""

    config_node = "CLIPADAPTER"
    registered_name = "clip_adapter"

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> AdaptedCLIP:
        template = getattr(dataset, "template", DEFAULT_TEMPLATE)
        return AdaptedCLIP(clip_model, fill(template, dataset.classnames), options.RATIO, options.REDUCTION)

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        if shapes.keys() != {"fc.0.weight", "fc.2.weight"} or len(shape := shapes["fc.0.weight"]) != 2:
            return None
        same = shape[0] == shape[1] // options.REDUCTION  # also where the width is no multiple of it
        return {"REDUCTION": options.REDUCTION if same or not shape[0] else shape[1] // shape[0]}

    def checkpoint_root(self) -> nn.Module:
        return self.model.adapter
