"""Image backbones by name."""

from typing import Any

import torch
from torch import nn

from dassl.utils.registry import Registry

__all__ = ["BACKBONE_REGISTRY", "Backbone", "build_backbone"]

BACKBONE_REGISTRY = Registry("BACKBONE")


class Backbone(nn.Module):
    """Images (B, 3, H, W) to features (B, out_features)."""

    _out_features: int

    @property
    def out_features(self) -> int:
        return self._out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


def build_backbone(name: str, verbose: bool = True, **kwargs: Any) -> Any:
    """Build the backbone registered as ``name`` with ``kwargs`` (``pretrained`` for torchvision's ResNets)."""
    make = BACKBONE_REGISTRY.get(name)
    if verbose:
        print(f"Backbone: {name}")
    return make(**kwargs)
