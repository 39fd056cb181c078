"""The frozen CLIP that a method learns on, from its name in the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from yacs.config import CfgNode

from clip.model import CLIP, RESNET_STRIDE, resize_positions
from clip.origins import origin_of
from clip.search import load_model
from clip.simple_tokenizer import VOCABULARY_SIZE
from clip.transformer import VisionTransformer
from dassl.config import setting


@contextmanager
def _naming_backbone(name: str) -> Iterator[None]:
    """Errors of the block name the option that the backbone comes from."""
    if not name:
        raise ValueError("no MODEL.BACKBONE.NAME is set: give --config-file, or --backbone such as ViT-B/16")
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"MODEL.BACKBONE.NAME (--backbone) is {name!r}: {error}") from error


def load_backbone(name: str, activation: str = "") -> CLIP:
    """The backbone of that name, folder or file, in fp32 on the CPU.

    Args:
        activation: instead of the one that its configuration states.

    Raises:
        ValueError, FileNotFoundError: as in `clip.search.load_model`, or its vocabulary is not CLIP's.
    """
    with _naming_backbone(name):
        model = load_model(name, activation)
        if model.vocab_size != VOCABULARY_SIZE:
            raise ValueError(
                f"its vocabulary has {model.vocab_size:,} tokens, but CLIP's tokenizer, the only one here, has "
                f"{VOCABULARY_SIZE:,}"
            )
        return model


def take_pixel_statistics(cfg: CfgNode) -> None:
    """Set MODEL.BACKBONE.PIXEL_MEAN and PIXEL_STD to what the backbone's configuration states, unless they are set.

    Fetches the configuration of a repository of the hub, but no weights.

    Raises:
        ValueError, FileNotFoundError: there is no such backbone, or it does not fit.
    """
    name = cfg.MODEL.BACKBONE.NAME
    with _naming_backbone(name):
        description = origin_of(name).description()
    if description is None:
        return
    if description.resize_mode != "shortest":
        print(f"{name} was trained on images made square by {description.resize_mode!r}. Here they are cropped")
    stated = {"PIXEL_MEAN": description.mean, "PIXEL_STD": description.std}
    frozen = cfg.is_frozen()
    cfg.defrost()
    for key, value in stated.items():
        if value and not setting(cfg, f"MODEL.BACKBONE.{key}"):
            cfg.MODEL.BACKBONE[key] = list(value)
            if list(value) != list(cfg.INPUT[key]):
                print(
                    f"{name} states {tuple(value)}, which is used instead of INPUT.{key}. "
                    f"MODEL.BACKBONE.{key} sets another value"
                )
    if frozen:
        cfg.freeze()


def load_clip(cfg: CfgNode) -> CLIP:
    """The backbone of `cfg`, frozen, in fp32 on the CPU, for images of `INPUT.SIZE`.

    Raises:
        ValueError: there is no such backbone, or it cannot take images of that size.
    """
    name, size = cfg.MODEL.BACKBONE.NAME, tuple(cfg.INPUT.SIZE)
    model = load_backbone(name, setting(cfg, "MODEL.BACKBONE.ACTIVATION")).requires_grad_(False)
    side = model.visual.input_resolution
    if size != (side, side):
        if len(set(size)) != 1 or len(size) != 2:
            raise ValueError(
                f"INPUT.SIZE is {size}, but the backbone {name} takes square images, of {side} x {side} pixels unless "
                f'told otherwise: pass INPUT.SIZE "({side}, {side})"'
            )
        resize_positions(model, size[0])
        print(
            f"INPUT.SIZE is {size}, but {name} was trained on images of {side} x {side} pixels: its position "
            "embeddings are interpolated, and accuracies are not those published"
        )
    if model.activation != "quick_gelu":
        print(f"The activation of {name} is {model.activation}")
    return model


def multiply_adds(model: CLIP) -> int:
    """Multiply-adds of the image tower per image, roughly: its parameters, each used at every position.

    A ResNet has more positions in its first layers than in its last one, which are counted here.
    """
    visual = model.visual
    stride = visual.conv1.stride[0] if isinstance(visual, VisionTransformer) else RESNET_STRIDE
    return (visual.input_resolution // stride) ** 2 * sum(parameter.numel() for parameter in visual.parameters())
