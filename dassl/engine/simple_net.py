"""SimpleNet: backbone, optional head, linear classifier."""

from typing import Any

import torch
from torch import nn

from dassl.modeling import build_backbone, build_head

__all__ = ["SimpleNet"]


class SimpleNet(nn.Module):
    """The network of ``cfg.MODEL`` for ``num_classes`` classes; 0 classes: features only."""

    def __init__(self, cfg: Any, model_cfg: Any, num_classes: int, **kwargs: Any) -> None:
        super().__init__()
        self.backbone = build_backbone(
            model_cfg.BACKBONE.NAME, verbose=cfg.VERBOSE, pretrained=model_cfg.BACKBONE.PRETRAINED, **kwargs
        )
        self._fdim = self.backbone.out_features
        self.head = None
        if model_cfg.HEAD.NAME and model_cfg.HEAD.HIDDEN_LAYERS:
            self.head = build_head(
                model_cfg.HEAD.NAME,
                verbose=cfg.VERBOSE,
                in_features=self._fdim,
                hidden_layers=model_cfg.HEAD.HIDDEN_LAYERS,
                activation=model_cfg.HEAD.ACTIVATION,
                bn=model_cfg.HEAD.BN,
                dropout=model_cfg.HEAD.DROPOUT,
                **kwargs,
            )
            self._fdim = self.head.out_features
        self.classifier = nn.Linear(self._fdim, num_classes) if num_classes > 0 else None

    @property
    def fdim(self) -> int:
        """Width of the features."""
        return self._fdim

    def forward(self, x: torch.Tensor, return_feature: bool = False) -> Any:
        """Images (B, 3, H, W) to logits (B, classes); with ``return_feature`` also the features (B, fdim)."""
        f = self.backbone(x)
        if self.head is not None:
            f = self.head(f)
        if self.classifier is None:
            return f
        y = self.classifier(f)
        return (y, f) if return_feature else y
