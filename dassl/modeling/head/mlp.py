"""A multi-layer perceptron head."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from dassl.modeling.head.build import HEAD_REGISTRY
from dassl.utils.names import check_availability

__all__ = ["MLP", "mlp"]

_ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class MLP(nn.Module):
    """Linear, batch norm (``bn``), activation and dropout for each hidden layer: (B, in) to (B, out_features)."""

    def __init__(
        self,
        in_features: int,
        hidden_layers: Sequence[int] = (),
        activation: str = "relu",
        bn: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_availability(activation, _ACTIVATIONS)
        layers: list[nn.Module] = []
        for width in hidden_layers:
            layers.append(nn.Linear(in_features, width))
            if bn:
                layers.append(nn.BatchNorm1d(width))
            layers.append(_ACTIVATIONS[activation]())
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            in_features = width
        self.layers = nn.Sequential(*layers)
        self.out_features = in_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)  # (B, out_features)


@HEAD_REGISTRY.register()
def mlp(**kwargs: Any) -> MLP:
    return MLP(**kwargs)
