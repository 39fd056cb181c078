"""Loading what a method learned from a checkpoint: ours, with the learned tensors alone, or a published whole model."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dassl.engine.state import check_tensors, has_part
from dassl.utils import first_few

TEACHER_TOWER = "ZS_image_encoder"  # the frozen image tower in PromptSRC's published checkpoints


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
        not_loaded: parts of the names that are ignored.

    Raises:
        ValueError: a tensor is missing, unknown or of another shape, or the backbone is another one.
    """
    found = {k: v for k, v in state_dict.items() if not has_part(k, not_loaded)}
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


def learned_shapes(state_dict: Mapping[str, Any], not_loaded: Collection[str] = ()) -> dict[str, tuple[int, ...]]:
    """The shapes of a checkpoint's tensors, without those that `not_loaded` names."""
    return {
        name.removeprefix("module."): tuple(value.shape)
        for name, value in state_dict.items()
        if isinstance(value, Tensor) and not has_part(name, not_loaded)
    }


def tokens_and_depth(shapes: Mapping[str, tuple[int, ...]], tower: str) -> tuple[int, int] | None:
    """Prompt tokens and prompted layers of the `text` or `image` tower's own prompts; None if it has none."""
    shape = shapes.get({"text": "prompt_learner.ctx", "image": "image_encoder.VPT"}[tower], ())
    deep = [name for name in shapes if name.startswith(f"{tower}_encoder.") and name.endswith("VPT_shallow")]
    return (shape[0], 1 + len(deep)) if len(shape) == 2 else None


def independent_options(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any] | None:
    """The options that independent prompts of both towers (IVLP's) of these shapes need; None for other tensors."""
    text, vision = tokens_and_depth(shapes, "text"), tokens_and_depth(shapes, "image")
    if not (text or vision) or "prompt_learner.proj.weight" in shapes:
        return None
    found = {"PROMPT_DEPTH_TEXT": text[1] if text else 0, "PROMPT_DEPTH_VISION": vision[1] if vision else 0}
    return found | ({"N_CTX_TEXT": text[0]} if text else {}) | ({"N_CTX_VISION": vision[0]} if vision else {})


def rows_of(classnames: Sequence[str], trained: Sequence[str]) -> list[int] | None:
    """The place of each class among the trained ones, or None if one is not there.

    Of equal names (ImageNet has two pairs), the first is taken for the first.
    """
    places: dict[str, list[int]] = {}
    for i, name in enumerate(map(str, trained)):
        places.setdefault(name, []).append(i)
    if any(name not in places for name in classnames):
        return None
    return [places[name].pop(0) if len(places[name]) > 1 else places[name][0] for name in classnames]


def as_words(node: str, options: Mapping[str, Any]) -> str:
    """Options of a node under TRAINER as words of a command line."""
    return " ".join(f"TRAINER.{node}.{key} {shlex.quote(str(value))}" for key, value in options.items())
