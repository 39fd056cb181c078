"""Plug-in files imported by themselves, outside a project, and the configuration that their models read."""

import functools
import importlib.util
from types import ModuleType
from typing import Any

from torch import nn
from yacs.config import CfgNode

from dassl.config import get_cfg_default
from tests.plugins.project import FILES

NAMES = ["cat", "golden_retriever", "2012 Tesla Model S", "snow"]
SIDE = 48


@functools.cache
def plugin_module(name: str) -> ModuleType:
    """The plug-in `files/trainers/<name>.py`, imported once."""
    spec = importlib.util.spec_from_file_location(f"plugin_{name}", FILES / "trainers" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plugin_cfg(node: str, **values: Any) -> CfgNode:
    """The defaults for ViT-Micro/8, and the node that the plug-in reads."""
    cfg = get_cfg_default()
    cfg.INPUT.SIZE = (SIDE, SIDE)
    cfg.MODEL.BACKBONE.NAME = "ViT-Micro/8"
    cfg.TRAINER[node] = CfgNode(values)
    return cfg


def train_prompts_only(model: nn.Module) -> None:
    """What such trainers do to the parameters of their `CustomCLIP` before training."""
    for key, parameter in model.named_parameters():
        learned = "prompt_learner" in key or "VPT" in key
        parameter.requires_grad_(learned and "ZS_image_encoder" not in key)
