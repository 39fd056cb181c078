"""CLIP in OpenAI's state-dict layout.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.

Letters: B images, N texts, L text tokens, E joint width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .packing import PackedPrompts, index_tokens
from .resnet import ModifiedResNet
from .text import TextEncoder
from .transformer import LayerNorm, Transformer, VisionTransformer


class CLIP(nn.Module):
    """Both towers under OpenAI's parameter names.

    Args:
        embed_dim: joint width E.
        image_resolution: pixels of a square image's side.
        vision_layers: blocks of the ViT, or the four stages' blocks of a ResNet.
        vision_patch_size: pixels of a patch's side; None for a ResNet.
    """

    def __init__(
        self,
        embed_dim: int,
        image_resolution: int,
        vision_layers: int | tuple[int, int, int, int],
        vision_width: int,
        vision_patch_size: int | None,
        context_length: int,
        vocab_size: int,
        transformer_width: int,
        transformer_heads: int,
        transformer_layers: int,
    ):
        super().__init__()
        self.context_length, self.vocab_size = context_length, vocab_size
        self.visual: VisionTransformer | ModifiedResNet
        if isinstance(vision_layers, int):
            assert vision_patch_size is not None
            self.visual = VisionTransformer(
                image_resolution, vision_patch_size, vision_width, vision_layers, vision_width // 64, embed_dim
            )
        else:
            heads = vision_width * 32 // 64
            self.visual = ModifiedResNet(vision_layers, embed_dim, heads, image_resolution, vision_width)
        self.transformer = Transformer(transformer_width, transformer_layers, transformer_heads, causal=True)
        self.token_embedding = nn.Embedding(vocab_size, transformer_width)
        self.positional_embedding = nn.Parameter(torch.empty(context_length, transformer_width))
        self.ln_final = LayerNorm(transformer_width)
        self.text_projection = nn.Parameter(torch.empty(transformer_width, embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self._init_text()

    def _init_text(self) -> None:
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=self.transformer.width**-0.5)

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the towers compute in."""
        return self.visual.conv1.weight.dtype

    def encode_image(self, image: Tensor) -> Tensor:
        """Image features (B, E), not normalised."""
        return self.visual(image)

    def encode_text(self, text: Tensor) -> Tensor:
        """Text features (N, E), not normalised, of token ids (N, L) as returned by `clip.tokenize`."""
        sequences = [ids[: max(range(len(ids)), key=ids.__getitem__) + 1] for ids in text.tolist()]
        vocabulary, indices = index_tokens(sequences)
        embeddings = self.token_embedding(torch.tensor(vocabulary, device=text.device))  # (U, Dt)
        return self.text_encoder()(embeddings, PackedPrompts(indices).to(text.device))

    def text_encoder(self) -> TextEncoder:
        """The text tower over packed prompts. It shares this model's modules."""
        return TextEncoder(self.transformer, self.positional_embedding, self.ln_final, self.text_projection)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled cosine similarities: logits per image (B, N) and per text (N, B)."""
        image_features = F.normalize(self.encode_image(image), dim=-1)
        text_features = F.normalize(self.encode_text(text), dim=-1)
        logits = self.logit_scale.exp() * image_features @ text_features.t()
        return logits, logits.t()


def convert_weights(model: nn.Module, dtype: torch.dtype = torch.float16) -> None:
    """Convert the weights of convolutions, linear layers, attention and projections to `dtype`, in place.

    LayerNorms, BatchNorms and embeddings stay as they are (fp32), as in OpenAI's package.
    """
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.MultiheadAttention)):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)
        for name in ("proj", "text_projection"):
            projection = getattr(module, name, None)
            if isinstance(projection, nn.Parameter):
                projection.data = projection.data.to(dtype)


def _count_blocks(state_dict: Mapping[str, Tensor], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state_dict if key.startswith(prefix)})


def _vision_architecture(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    if "visual.proj" in state_dict:
        width, _, patch_size, _ = state_dict["visual.conv1.weight"].shape
        grid = round((state_dict["visual.positional_embedding"].shape[0] - 1) ** 0.5)
        return {
            "image_resolution": patch_size * grid,
            "vision_layers": _count_blocks(state_dict, "visual.transformer.resblocks."),
            "vision_width": width,
            "vision_patch_size": patch_size,
        }
    grid = round((state_dict["visual.attnpool.positional_embedding"].shape[0] - 1) ** 0.5)
    return {
        "image_resolution": grid * 32,
        "vision_layers": tuple(_count_blocks(state_dict, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)),
        "vision_width": state_dict["visual.layer1.0.conv1.weight"].shape[0],
        "vision_patch_size": None,
    }


def _own_fp32(x: Tensor) -> Tensor:
    return x.to(torch.float32, copy=True) if x.is_floating_point() else x.clone()


def build_model(state_dict: Mapping[str, Tensor], design_details: Mapping[str, Any] | None = None) -> CLIP:
    """`from_state_dict`, in the precision that prompt-learning code expects on this machine.

    Where there is a GPU, the model has fp16 weights (`convert_weights`), as OpenAI's `build_model` always returns:
    callers create their own layers in `model.dtype` or with `.half()`, and call `model.float()` for fp32 and amp.
    Without a GPU it stays in fp32, as OpenAI's `load` returns on a CPU.
    """
    model = from_state_dict(state_dict, design_details)
    if torch.cuda.is_available():
        convert_weights(model)
    return model


def from_state_dict(state_dict: Mapping[str, Tensor], design_details: Mapping[str, Any] | None = None) -> CLIP:
    """A CLIP on the CPU, in fp32 and eval mode. Its architecture is inferred from the shapes of the weights.

    Args:
        state_dict: weights in OpenAI's layout; `input_resolution`, `context_length` and `vocab_size` are ignored.
        design_details: prompt tokens to add to the towers, under the keys that prompt-learning code uses:
            `vision_ctx` tokens for the first `vision_depth` layers of the image tower, and `language_ctx` tokens
            for the first `language_depth` layers of the text tower except its input, whose prompt tokens come
            from a prompt learner. Other keys are ignored.

    Raises:
        ValueError: the tensors are not those of a CLIP.
    """
    weights = {k: v for k, v in state_dict.items() if k not in ("input_resolution", "context_length", "vocab_size")}
    try:
        width = weights["ln_final.weight"].shape[0]
        with torch.device("meta"):  # skips the random initialization, which is overwritten anyway
            model = CLIP(
                embed_dim=weights["text_projection"].shape[1],
                context_length=weights["positional_embedding"].shape[0],
                vocab_size=weights["token_embedding.weight"].shape[0],
                transformer_width=width,
                transformer_heads=width // 64,
                transformer_layers=_count_blocks(weights, "transformer.resblocks."),
                **_vision_architecture(weights),
            )
        model.load_state_dict({k: _own_fp32(v) for k, v in weights.items()}, assign=True)
    except (KeyError, RuntimeError) as error:
        raise ValueError(
            f"these {len(weights)} tensors are not a CLIP in OpenAI's layout ({error}); expected entries like "
            "'visual.conv1.weight', 'transformer.resblocks.0.ln_1.weight' and 'text_projection'"
        ) from error
    details = design_details or {}
    if details.get("vision_depth", 0) > 0 and details.get("vision_ctx", 0) > 0:
        add_vision_prompts(model, details["vision_ctx"], details["vision_depth"])
    if details.get("language_depth", 0) > 0 and details.get("language_ctx", 0) > 0:
        model.transformer.add_prompts(details["language_ctx"], details["language_depth"])
    return model.eval()


def add_vision_prompts(model: CLIP, n_ctx: int, depth: int) -> None:
    """Add learned prompt tokens to the image tower; raise a ValueError if it is a ResNet."""
    require_vit(model).add_prompts(n_ctx, depth)


def require_vit(model: CLIP) -> VisionTransformer:
    """The model's image tower; raise a ValueError if it is a ResNet, which cannot take prompt tokens."""
    if not isinstance(model.visual, VisionTransformer):
        raise ValueError(
            "vision prompts need a ViT backbone, found a ResNet: choose MODEL.BACKBONE.NAME ViT-B/16, ViT-B/32 or "
            "ViT-L/14, or a trainer with text prompts only (CoOp, CoCoOp)"
        )
    return model.visual
