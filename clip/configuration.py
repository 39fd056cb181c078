"""What a model's configuration states: `open_clip_config.json` of open_clip, `config.json` of transformers.

Sizes are read from the weights, and only compared with those stated. Everything else that changes a feature comes from
here, since weights do not tell it: activations, attention heads, the epsilon of LayerNorm, the pixel statistics, and
whether the model computes what OpenAI's CLIP computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dassl.utils.files import read_json
from dassl.utils.names import first_few

from .json_values import ANYTHING, JsonObject
from .simple_tokenizer import VOCABULARY_SIZE

ACTIVATIONS = ("quick_gelu", "gelu")
OPEN_CLIP, TRANSFORMERS = CONFIGURATIONS = ("open_clip_config.json", "config.json")
MAX_BYTES = 1 << 20  # of a configuration; those of the hub have a few KB
MAX_BLOCKS = 200  # of a tower; the largest of open_clip has 56
FITS = (
    "What fits are the towers of OpenAI's CLIP: a ViT with a class token, or a ResNet with attention pooling, and a "
    f"causal text transformer read at its end-of-text token, with CLIP's vocabulary of {VOCABULARY_SIZE:,} tokens"
)


class NoConfigurationError(ValueError):
    """A file does not describe a model. For a model that does not fit, `describe` raises a plain ValueError."""


@dataclass(frozen=True)
class Tower:
    """What the weights of a tower do not tell."""

    activation: str = "quick_gelu"  # of ACTIVATIONS
    heads: int | None = None  # None: one for each 64 channels
    layer_norm_eps: float = 1e-5


@dataclass(frozen=True)
class Description:
    """What a configuration states.

    Attributes:
        source: the file, for messages.
        sizes: those of `clip.model.CLIP`'s arguments that are stated.
        mean, std: of the pixels of each color, in [0, 1], that images are normalized with; None if not stated.
        resize_mode: how training images became square: "shortest" (cropped), "squash", or "longest" (padded).
    """

    source: str = ""
    text: Tower = Tower()
    vision: Tower = Tower()
    sizes: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize_mode: str = "shortest"

    def with_activation(self, activation: str) -> Description:
        """This description with one activation for both towers."""
        text, vision = (replace(tower, activation=activation) for tower in (self.text, self.vision))
        return replace(self, text=text, vision=vision)


def describe(path: Path, get: Callable[[str], Path | None]) -> Description:
    """What a configuration states.

    Args:
        path: the file, with one of the names in `CONFIGURATIONS`.
        get: the path of another file of the same folder or repository, None if there is none.

    Raises:
        NoConfigurationError: it does not describe a model.
        ValueError: a value has a wrong type or size, or the model does not fit; the message says which and why.
    """
    content = _read(path)
    if path.name == OPEN_CLIP:
        return _of_open_clip(content, get)
    return _of_transformers(content, get)


def _read(path: Path) -> JsonObject:
    try:
        content = read_json(path, MAX_BYTES)
    except ValueError as error:
        raise NoConfigurationError(str(error)) from error
    if not isinstance(content, dict):
        raise NoConfigurationError(f"{path} holds a {type(content).__name__}, expected an object")
    return JsonObject(content, "", str(path))


def _check_fit(content: JsonObject, unfit: Iterable[str]) -> None:
    if listed := list(unfit):
        raise ValueError(f"{content.where} describes a model that does not fit: {first_few(listed)}. {FITS}")


# ---- open_clip ---------------------------------------------------------------------------------------------------

# Entries that are read below or change nothing in inference (ANYTHING), and the values of others that fit. Entries that
# are not listed have to be off: open_clip's later additions change what is computed.
_OF_MODEL: dict[str, tuple[Any, ...]] = dict.fromkeys(
    (
        *("embed_dim", "vision_cfg", "text_cfg", "quick_gelu"),
        *("init_logit_scale", "custom_text", "cast_dtype", "output_dict"),
    ),
    ANYTHING,
)
_OF_TOWER = {
    **dict.fromkeys(("layers", "width", "mlp_ratio", "norm_kwargs", "output_tokens"), ANYTHING),
    "block_type": ("default",),
}
_OF_VISION = _OF_TOWER | {
    **dict.fromkeys(("head_width", "patch_size", "image_size", "patch_dropout"), ANYTHING),
    **dict.fromkeys(("attn_pooler_queries", "attn_pooler_heads"), ANYTHING),  # only with attentional_pool
    **dict.fromkeys(("timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias"), ANYTHING),
    **dict.fromkeys(("timm_drop", "timm_drop_path"), ANYTHING),  # only with timm_model_name
    "pool_type": ("tok",),
    "pos_embed_type": ("learnable", "sin_cos_2d"),
}
_OF_TEXT = _OF_TOWER | {
    **dict.fromkeys(("context_length", "heads", "pad_id", "eos_id", "hf_tokenizer_name"), ANYTHING),
    **dict.fromkeys(("hf_model_pretrained", "hf_proj_type", "hf_pooler_type"), ANYTHING),  # only with hf_model_name
    "vocab_size": (VOCABULARY_SIZE,),
    "pool_type": ("argmax",),
    "proj_type": ("linear",),
}


def _of_open_clip(content: JsonObject, get: Callable[[str], Path | None]) -> Description:
    if not isinstance(content.content.get("model_cfg"), dict):
        raise NoConfigurationError(f'{content.where} has no "model_cfg", as the configuration of open_clip has')
    model, pixels = content.node("model_cfg"), content.node("preprocess_cfg")
    vision, text = model.node("vision_cfg"), model.node("text_cfg")
    norms = [other for tower in (vision, text) for other in tower.node("norm_kwargs").others({"eps": ANYTHING})]
    named = text.text("hf_tokenizer_name")
    clips = not named or named.startswith("openai/clip-vit-") or "CLIPTokenizer" in _tokenizer(get, "")
    other = [] if clips else [f"text_cfg.hf_tokenizer_name {named!r}"]
    _check_fit(content, [*vision.others(_OF_VISION), *text.others(_OF_TEXT), *other, *model.others(_OF_MODEL), *norms])
    activation = "quick_gelu" if model.flag("quick_gelu") else "gelu"
    sizes: dict[str, Any] = {"embed_dim": model.count("embed_dim")}
    vision_heads = text_heads = None
    if vision.content:  # what is left out of it has open_clip's default
        width = vision.count("width", 768)
        sizes |= {"vision_width": width, "image_resolution": vision.side("image_size", 224)}
        if isinstance(vision.content.get("layers"), list):
            width *= 32  # of a ResNet's last feature map
            sizes["vision_layers"] = vision.counts("layers", 4, MAX_BLOCKS)
        else:
            sizes["vision_layers"] = vision.count("layers", 12, MAX_BLOCKS)
            sizes["vision_patch_size"] = vision.side("patch_size", 16)
        vision_heads = width // vision.count("head_width", 64, most=width)
    if text.content:
        sizes |= {"context_length": text.count("context_length", 77), "transformer_width": text.count("width", 512)}
        sizes["transformer_layers"] = text.count("layers", 12, MAX_BLOCKS)
        text_heads = text.count("heads", 8)
    return Description(
        content.where,
        Tower(activation, text_heads, _epsilon(text.node("norm_kwargs"), "eps")),
        Tower(activation, vision_heads, _epsilon(vision.node("norm_kwargs"), "eps")),
        {name: size for name, size in sizes.items() if size is not None},
        pixels.channels("mean", above=-1),
        pixels.channels("std", above=0),
        pixels.text("resize_mode", "shortest"),
    )


def _epsilon(node: JsonObject, key: str) -> float:
    return node.number(key, 1e-5, above=0, below=0.1)


# ---- transformers ------------------------------------------------------------------------------------------------

_END_OF_TEXT = (None, VOCABULARY_SIZE - 1, 2)  # the last has a meaning of its own there: the largest id of a text


def _of_transformers(content: JsonObject, get: Callable[[str], Path | None]) -> Description:
    vision, text = (_part(content, name) for name in ("vision_config", "text_config"))
    kind = content.text("model_type")
    stated = [node.text("hidden_act") for node in (vision, text, content) if node.content.get("hidden_act")]
    if not kind and not stated:
        raise NoConfigurationError(f'{content.where} has no "model_type", as the configuration of transformers has')
    if kind not in ("", "clip"):
        _check_fit(content, [f"model_type {kind!r}"])
    usual = "quick_gelu" if kind else stated[0]
    activations = {node.name: node.text("hidden_act", usual) for node in (vision, text)}
    _check_fit(
        content,
        [f"{name}.hidden_act {found!r}" for name, found in activations.items() if found not in ACTIVATIONS]
        + [f"vision_config.num_channels {n}" for n in [vision.count("num_channels", 3)] if n != 3]
        + [f"text_config.vocab_size {n}" for n in [text.count("vocab_size", VOCABULARY_SIZE)] if n != VOCABULARY_SIZE]
        + [f"text_config.eos_token_id {n}" for n in [text.content.get("eos_token_id")] if n not in _END_OF_TEXT]
        + [f"tokenizer_class {name!r}" for name in [_tokenizer(get, "CLIPTokenizer")] if "CLIPTokenizer" not in name],
    )

    def default(value: int) -> int | None:
        return value if kind else None  # what is left out of a whole configuration has transformers' default

    sizes = {
        "embed_dim": content.count("projection_dim", default(512)),
        "context_length": text.count("max_position_embeddings", default(77)),
        "transformer_width": text.count("hidden_size", default(512)),
        "transformer_layers": text.count("num_hidden_layers", default(12), MAX_BLOCKS),
        "image_resolution": vision.side("image_size", default(224)),
        "vision_width": vision.count("hidden_size", default(768)),
        "vision_layers": vision.count("num_hidden_layers", default(12), MAX_BLOCKS),
        "vision_patch_size": vision.side("patch_size", default(32)),
    }
    pixels = _image_processor(get)
    return Description(
        content.where,
        Tower(
            activations["text_config"],
            text.count("num_attention_heads", default(8)),
            _epsilon(text, "layer_norm_eps"),
        ),
        Tower(
            activations["vision_config"],
            vision.count("num_attention_heads", default(12)),
            _epsilon(vision, "layer_norm_eps"),
        ),
        {name: size for name, size in sizes.items() if size is not None},
        pixels.channels("image_mean", above=-1),
        pixels.channels("image_std", above=0),
    )


def _part(content: JsonObject, name: str) -> JsonObject:
    """The configuration of a tower; older files repeat it as <name>_dict, which then counts."""
    return JsonObject({**content.node(name).content, **content.node(f"{name}_dict").content}, name, content.where)


def _image_processor(get: Callable[[str], Path | None]) -> JsonObject:
    """The object with `image_mean` and `image_std`, empty if there is none."""
    if path := get("preprocessor_config.json"):
        return _read(path)
    return _read(path).node("image_processor") if (path := get("processor_config.json")) else JsonObject({}, "")


def _tokenizer(get: Callable[[str], Path | None], default: str) -> str:
    """The class of the tokenizer, `default` if none is stated."""
    path = get("tokenizer_config.json")
    return (_read(path).text("tokenizer_class") if path else "") or default
