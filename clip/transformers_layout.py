"""Weights of a `CLIPModel` of Hugging Face transformers, under OpenAI's names.

Its layout has q, k and v apart, and the projections as linear layers, which are OpenAI's matrices transposed.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_TOWERS = {"text_model.": "", "vision_model.": "visual."}
_OUTSIDE = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",  # spelled like this
    "vision_model.post_layernorm": "visual.ln_post",
    "logit_scale": "logit_scale",
}
_TRANSPOSED = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}
_IN_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_BLOCK = re.compile(r"(text_model\.|vision_model\.)encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_EXPECTED = ("text_model.embeddings.token_embedding.weight", "vision_model.embeddings.patch_embedding.weight")


def is_transformers_layout(names: Mapping[str, Tensor]) -> bool:
    """Whether the names of a state dict are those of transformers."""
    return any(name.startswith(tuple(_TOWERS)) for name in names)


def to_openai(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under OpenAI's names.

    Raises:
        ValueError: they are not a whole CLIPModel.
    """
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}  # of in_proj_weight and in_proj_bias, by their names
    unknown = []
    for name, tensor in tensors.items():
        stem, _, last = name.rpartition(".")
        block = _BLOCK.fullmatch(name)
        if name in _OUTSIDE:
            found[_OUTSIDE[name]] = tensor
        elif stem in _OUTSIDE:
            found[f"{_OUTSIDE[stem]}.{last}"] = tensor
        elif name in _TRANSPOSED:
            found[_TRANSPOSED[name]] = tensor.mT.contiguous()
        elif block:
            tower, number, layer, last = block.groups()
            prefix = f"{_TOWERS[tower]}transformer.resblocks.{int(number)}"
            if layer in _IN_BLOCK:
                found[f"{prefix}.{_IN_BLOCK[layer]}.{last}"] = tensor
            elif layer in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
                parts.setdefault(f"{prefix}.attn.in_proj_{last}", {})[layer[10]] = tensor
            else:
                unknown.append(name)
        else:
            unknown.append(name)
    incomplete = [name for name, part in parts.items() if len(part) < 3]
    missing = [name for name in (*_EXPECTED, *_TRANSPOSED) if name not in tensors]
    if unknown or incomplete or missing:
        raise ValueError(
            "the names are those of Hugging Face transformers' CLIPModel, "
            + (
                f"but {missing[0]!r} is missing"
                if missing
                else f"but {(unknown + incomplete)[0]!r} is not one of its own"
            )
            + ": save the whole model with CLIPModel.save_pretrained, and give its model.safetensors"
        )
    return found | {name: torch.cat([part["q"], part["k"], part["v"]]) for name, part in parts.items()}
