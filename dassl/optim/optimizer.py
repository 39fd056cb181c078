"""Optimizers by name."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from dassl.optim.radam import RAdam
from dassl.utils.names import check_availability, closest_hint

__all__ = ["AVAI_OPTIMS", "build_optimizer"]

AVAI_OPTIMS = ["adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw"]


def build_optimizer(model: Any, optim_cfg: Any, param_groups: Any = None) -> torch.optim.Optimizer:
    """Build the optimizer of ``cfg.OPTIM``. On a GPU, Adam, AdamW and SGD take a step in one kernel (``fused``).

    Args:
        model: a module, or an iterable of parameters or of parameter groups.
        optim_cfg: ``cfg.OPTIM``. With STAGED_LR, the learning rate is LR for the children in NEW_LAYERS and
            LR * BASE_LR_MULT for all others.
        param_groups: parameters or groups to use instead of the model's parameters.

    Raises:
        ValueError: unknown optimizer, or a name in NEW_LAYERS that is not a child of the model.
        TypeError: STAGED_LR, but ``model`` is not a module.
    """
    check_availability(optim_cfg.NAME, AVAI_OPTIMS, "OPTIM.NAME")
    if param_groups is not None:
        if optim_cfg.STAGED_LR:
            warnings.warn("OPTIM.STAGED_LR does nothing if param_groups are given", stacklevel=2)
    elif optim_cfg.STAGED_LR:
        param_groups = _staged_groups(model, optim_cfg)
    else:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model
    return _make(optim_cfg, param_groups)


def _staged_groups(model: Any, optim_cfg: Any) -> list[dict[str, Any]]:
    """Two groups: the pretrained layers with a fraction of the learning rate, then the new ones."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"OPTIM.STAGED_LR needs the module itself, to find OPTIM.NEW_LAYERS in it, not {type(model).__name__}"
        )
    if isinstance(model, nn.DataParallel):
        model = model.module
    children = dict(model.named_children())
    given = optim_cfg.NEW_LAYERS
    new_layers = [given] if isinstance(given, str) else list(given)
    for name in new_layers:
        if name not in children:
            raise ValueError(
                f"OPTIM.NEW_LAYERS: the model has no layer '{name}'{closest_hint(name, children)}"
                f" Its layers: {', '.join(children)}"
            )
    base: list[nn.Parameter] = []
    new: list[nn.Parameter] = []
    for name, module in children.items():
        (new if name in new_layers else base).extend(module.parameters())
    return [{"params": base, "lr": optim_cfg.LR * optim_cfg.BASE_LR_MULT}, {"params": new}]


def _listed(params: Iterable[Any]) -> list[Any]:
    """Parameters or groups of them, without generators, which can be read once."""
    return [
        {**group, "params": [group["params"]] if isinstance(group["params"], torch.Tensor) else list(group["params"])}
        if isinstance(group, dict)
        else group
        for group in params
    ]


def _one_kernel(params: list[Any]) -> dict[str, Any]:
    """The argument for torch's fused kernels where all parameters are on a GPU; elsewhere torch's default remains."""
    entries = [entry for group in params for entry in (group["params"] if isinstance(group, dict) else [group])]
    tensors = [entry[1] if isinstance(entry, tuple) else entry for entry in entries]  # a tuple: with its name
    return {"fused": True} if tensors and all(t.is_cuda and t.is_floating_point() for t in tensors) else {}


def _make(optim_cfg: Any, params: Iterable[Any]) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    adam: dict[str, Any] = {
        "betas": (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2),
        "eps": getattr(optim_cfg, "ADAM_EPS", 1e-8),  # upstream's tree has no such key
    }
    params = _listed(params)
    fused = _one_kernel(params)
    match optim_cfg.NAME:
        case "adam":
            return torch.optim.Adam(params, **adam, **common, **fused)
        case "amsgrad":
            return torch.optim.Adam(params, amsgrad=True, **adam, **common, **fused)
        case "sgd":
            return torch.optim.SGD(
                params,
                momentum=optim_cfg.MOMENTUM,
                dampening=optim_cfg.SGD_DAMPNING,
                nesterov=optim_cfg.SGD_NESTEROV,
                **common,
                **fused,
            )
        case "rmsprop":
            return torch.optim.RMSprop(params, momentum=optim_cfg.MOMENTUM, alpha=optim_cfg.RMSPROP_ALPHA, **common)
        case "radam":
            return RAdam(params, **adam, **common)
        case _:
            return torch.optim.AdamW(params, **adam, **common, **fused)
