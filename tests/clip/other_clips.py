"""CLIPs of open_clip and transformers with random weights, saved in the layouts that these packages use.

The packages are imported where a model is made, since that takes seconds.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from clip.model import CLIP

MEAN, STD = (0.5, 0.4, 0.3), (0.3, 0.2, 0.25)
TOWERS: dict[str, dict[str, Any]] = {  # of a model that is quick to make: other heads, MLPs and epsilons than OpenAI's
    "vision_cfg": {
        **{"image_size": 48, "layers": 2, "width": 192, "head_width": 48, "patch_size": 16, "mlp_ratio": 3.0},
        "norm_kwargs": {"eps": 1e-3},
    },
    "text_cfg": {"context_length": 40, "width": 96, "heads": 4, "layers": 2, "norm_kwargs": {"eps": 1e-4}},
}


def open_clip_config(quick_gelu: bool = False, **towers: dict[str, Any]) -> dict[str, Any]:
    return {"embed_dim": 96, "quick_gelu": quick_gelu, **TOWERS, **towers}


def open_clip_model(config: dict[str, Any]) -> nn.Module:
    model = pytest.importorskip("open_clip.model", reason="needs open_clip_torch, a requirement of tests")
    torch.manual_seed(0)
    return model.CLIP(**config).eval()


def save_open_clip(model: nn.Module, config: dict[str, Any], folder: Path, pickled: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if pickled:
        torch.save(weights, folder / "open_clip_pytorch_model.bin")
    else:
        save_file(weights, folder / "open_clip_model.safetensors")
    content = {"model_cfg": config, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return folder


def transformers_model(text: dict[str, Any], vision: dict[str, Any], projection_dim: int = 96) -> Any:
    transformers = pytest.importorskip("transformers", reason="needs transformers, a requirement of tests")
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection_dim)
    return transformers.CLIPModel(config).eval()


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()


def images(model: CLIP) -> Tensor:
    torch.manual_seed(1)
    side = model.visual.input_resolution
    return torch.randn(2, 3, side, side)
