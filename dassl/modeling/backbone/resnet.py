"""torchvision's ResNets without the classifier."""

from typing import Any

import torch
from torch import nn
from torchvision import models

from dassl.modeling.backbone.build import BACKBONE_REGISTRY, Backbone

__all__ = ["ResNet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


class ResNet(Backbone):
    """Pooled features of a torchvision ResNet.

    Args:
        name: torchvision's name of the model.
        pretrained: load torchvision's ImageNet weights (downloaded once by torchvision).
    """

    def __init__(self, name: str, pretrained: bool) -> None:
        super().__init__()
        self.net = models.get_model(name, weights="IMAGENET1K_V1" if pretrained else None)
        self._out_features = self.net.fc.in_features
        self.net.fc = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)  # (B, out_features)


@BACKBONE_REGISTRY.register()
def resnet18(pretrained: bool = True, **kwargs: Any) -> ResNet:
    return ResNet("resnet18", pretrained)


@BACKBONE_REGISTRY.register()
def resnet34(pretrained: bool = True, **kwargs: Any) -> ResNet:
    return ResNet("resnet34", pretrained)


@BACKBONE_REGISTRY.register()
def resnet50(pretrained: bool = True, **kwargs: Any) -> ResNet:
    return ResNet("resnet50", pretrained)


@BACKBONE_REGISTRY.register()
def resnet101(pretrained: bool = True, **kwargs: Any) -> ResNet:
    return ResNet("resnet101", pretrained)


@BACKBONE_REGISTRY.register()
def resnet152(pretrained: bool = True, **kwargs: Any) -> ResNet:
    return ResNet("resnet152", pretrained)
