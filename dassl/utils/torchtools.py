"""Learning rates, freezing and initialization of torch modules; checkpoints are in :mod:`dassl.utils.checkpoints`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dassl.utils.checkpoints import (
    check_matching,
    last_checkpoint,
    load_checkpoint,
    plain_state,
    resume_from_checkpoint,
    save_checkpoint,
    tensors_by_name,
    torch_save,
    without_module_prefix,
)
from dassl.utils.names import closest_hint, tolist_if_not
from dassl.utils.schema import check

__all__ = [
    "adjust_learning_rate",
    "count_num_param",
    "init_network_weights",
    "last_checkpoint",
    "load_checkpoint",
    "load_pretrained_weights",
    "open_all_layers",
    "open_specified_layers",
    "plain_state",
    "resume_from_checkpoint",
    "save_checkpoint",
    "set_bn_to_eval",
    "torch_save",
]


def adjust_learning_rate(
    optimizer: torch.optim.Optimizer,
    base_lr: float,
    epoch: int,
    stepsize: int | Iterable[int] = 20,
    gamma: float = 0.1,
    linear_decay: bool = False,
    final_lr: float = 0,
    max_epoch: int = 100,
) -> None:
    """Set the learning rate of all groups for ``epoch``.

    Args:
        stepsize: multiply by ``gamma`` every ``stepsize`` epochs, or at each of these epochs.
        linear_decay: interpolate from ``base_lr`` to ``final_lr`` over ``max_epoch`` epochs instead.
    """
    if linear_decay:
        fraction = epoch / max_epoch
        lr = fraction * final_lr + (1 - fraction) * base_lr
    else:
        decays = epoch // stepsize if isinstance(stepsize, int) else sum(epoch >= step for step in stepsize)
        lr = base_lr * gamma**decays
    for group in optimizer.param_groups:
        group["lr"] = lr


def set_bn_to_eval(m: nn.Module) -> None:
    """For ``model.apply``: put batch-norm layers into eval mode, so that their running statistics do not change."""
    if "BatchNorm" in type(m).__name__:
        m.eval()


def open_all_layers(model: nn.Module) -> None:
    """Put the model into training mode, with gradients for all of its parameters."""
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad = True


def open_specified_layers(model: nn.Module, open_layers: str | list[str]) -> None:
    """Train the children named ``open_layers``; freeze the others and put them into eval mode."""
    if isinstance(model, nn.DataParallel):
        model = model.module
    names = tolist_if_not(open_layers)
    children = dict(model.named_children())
    for name in names:
        if name not in children:
            raise ValueError(
                f"'{name}' is no child of the model{closest_hint(name, children)} It has: {', '.join(children)}"
            )
    for name, module in children.items():
        module.train(name in names)
        for parameter in module.parameters():
            parameter.requires_grad = name in names


def count_num_param(model: nn.Module | None = None, params: Any = None) -> int:
    """Return the number of elements in ``model``'s parameters, or in ``params`` (parameters or optimizer groups).

    A classifier that a model uses in training only (``model.classifier``, a Linear) is counted, too.
    """
    if model is not None:
        return sum(parameter.numel() for parameter in model.parameters())
    if params is None:
        raise ValueError("count_num_param needs a model or parameters")
    total = 0
    for item in params:
        total += sum(p.numel() for p in item["params"]) if isinstance(item, Mapping) else item.numel()
    return total


def load_pretrained_weights(model: nn.Module, weight_path: str | Path) -> None:
    """Load the layers of a checkpoint whose names and shapes match ``model``'s, and print the names of the others.

    Raises:
        ValueError: no layer matches.
    """
    checkpoint = load_checkpoint(weight_path)
    content = check(checkpoint.get("state_dict", checkpoint), tensors_by_name, str(weight_path))
    state_dict = without_module_prefix(content)
    own = model.state_dict(keep_vars=True)
    shared = {name: value for name, value in state_dict.items() if name in own and isinstance(value, torch.Tensor)}
    matched = {name: value for name, value in shared.items() if own[name].shape == value.shape}
    check_matching(matched, own, Path(weight_path))
    discarded = [name for name in state_dict if name not in matched]
    if not matched:
        raise ValueError(
            f"No layer of {weight_path} matches the model: the file has {_some(state_dict)}, the model {_some(own)}"
        )
    model.load_state_dict({**model.state_dict(), **matched})
    print(f"Successfully loaded pretrained weights from {weight_path}")
    if discarded:
        print(f"Layers discarded due to unmatched keys or size: {discarded}")


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" … ({len(names)} in total)" if len(names) > 3 else "")


def init_network_weights(model: nn.Module, init_type: str = "normal", gain: float = 0.02) -> None:
    """Initialize the weights of linear and convolution layers (biases 0) and of normalization layers (1, bias 0).

    Args:
        init_type: normal, xavier, kaiming or orthogonal.
        gain: standard deviation (normal) or gain (xavier, orthogonal).
    """
    initializers = {
        "normal": lambda weight: nn.init.normal_(weight, 0.0, gain),
        "xavier": lambda weight: nn.init.xavier_normal_(weight, gain=gain),
        "kaiming": lambda weight: nn.init.kaiming_normal_(weight, a=0, mode="fan_in"),
        "orthogonal": lambda weight: nn.init.orthogonal_(weight, gain=gain),
    }
    if init_type not in initializers:
        raise ValueError(f"init_type '{init_type}' is not one of {sorted(initializers)}")
    norms = (nn.modules.batchnorm._BatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            initializers[init_type](module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, norms) and module.weight is not None:
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
