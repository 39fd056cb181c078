"""Loading what a method learned from a checkpoint: ours, with the learned tensors alone, or a published whole model."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from dassl.engine.state import check_tensors
from dassl.utils import first_few


def own_tensors(module: nn.Module, pretrained: Collection[Tensor]) -> dict[str, Tensor]:
    """What a checkpoint of `module` must hold: all that is learned, and buffers that are not of the pretrained CLIP."""
    frozen = {id(t) for t in pretrained}
    state = module.state_dict(keep_vars=True)
    return {
        name: t for name, t in state.items() if t.requires_grad or not (isinstance(t, nn.Parameter) or id(t) in frozen)
    }


def load_learned(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    path: str,
    pretrained: Collection[Tensor],
    not_loaded: Collection[str] = (),
) -> None:
    """Copy a checkpoint's tensors into `module`, or none if they do not fit.

    Learned tensors and buffers must all be there. The pretrained CLIP's may be there too, as in published checkpoints;
    they must equal this backbone's. Other frozen tensors (an averaged teacher's) are copied where they are there.

    Args:
        pretrained: the tensors of `module`, or around it, that the pretrained CLIP came with.
        not_loaded: last parts of the names that are ignored.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape, or the backbone is another one.
    """
    found = {k: v for k, v in state_dict.items() if k.rpartition(".")[2] not in not_loaded}
    own = module.state_dict(keep_vars=True)
    check_tensors(module, found, own.keys() - own_tensors(module, pretrained).keys(), path)
    frozen = {id(t) for t in pretrained}
    backbone = {k: v for k, v in found.items() if id(own[k]) in frozen}
    other = [k for k, v in backbone.items() if not _close(v.cpu(), own[k].detach().cpu())]
    if other:
        raise ValueError(
            f"{path} was trained on another backbone: {len(other)} of its frozen tensors differ from this model's "
            f"({first_few(other)}). Set MODEL.BACKBONE.NAME to the one it was trained with."
        )
    module.load_state_dict({k: v for k, v in found.items() if k not in backbone}, strict=False)


def _close(found: Tensor, own: Tensor) -> bool:
    """Whether they are the same weights, stored in any precision."""
    if torch.equal(found, own.to(found.dtype)):  # nearly always so, and ten times as fast to find out
        return True
    return torch.allclose(found.float(), own.float(), rtol=1e-2, atol=1e-3)
