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
from torch.overrides import TorchFunctionMode

from dassl.utils.names import first_few

from .configuration import ACTIVATIONS, MAX_BLOCKS, Description, Tower
from .packing import PackedPrompts, index_tokens
from .resnet import ModifiedResNet
from .text import TextEncoder
from .transformer import LayerNorm, ResidualAttentionBlock, Transformer, VisionTransformer

HEADS_BY_WIDTH = {1280: 16, 1408: 16, 1664: 16}  # image towers of open_clip's ViT-H, g and bigG; all others: 64 a head
RESNET_STRIDE = 32  # pixels per cell of a ResNet's last feature map

_DRAWING = {Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_}


class CLIP(nn.Module):
    """Both towers under OpenAI's parameter names.

    Args:
        embed_dim: joint width E.
        image_resolution: pixels of a square image's side.
        vision_layers: blocks of the ViT, or the four stages' blocks of a ResNet.
        vision_patch_size: pixels of a patch's side; None for a ResNet.
        vision_heads: attention heads of the image tower, by default one for each 64 of its width.
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
        vision_heads: int | None = None,
    ):
        super().__init__()
        self.context_length, self.vocab_size = context_length, vocab_size
        self.visual: VisionTransformer | ModifiedResNet
        if isinstance(vision_layers, int):
            assert vision_patch_size is not None
            self.visual = VisionTransformer(
                image_resolution,
                vision_patch_size,
                vision_width,
                vision_layers,
                vision_heads or vision_width // 64,
                embed_dim,
            )
        else:
            heads = vision_heads or vision_width * 32 // 64
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

    @property
    def activation(self) -> str:
        """That of the text tower's MLPs: quick_gelu or gelu."""
        mlp = self.transformer.get_submodule("resblocks.0.mlp.gelu")
        return "gelu" if isinstance(mlp, nn.GELU) else "quick_gelu"

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


def _shape(weights: Mapping[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    shape = tuple(weights[name].shape)
    if len(shape) != dims or 0 in shape:
        raise ValueError(f"{name} has the shape {shape}, expected {dims} dimensions")
    return shape


def _count_blocks(weights: Mapping[str, Tensor], prefix: str) -> int:
    count = len({key[len(prefix) :].split(".")[0] for key in weights if key.startswith(prefix)})
    if not 0 < count <= MAX_BLOCKS:
        raise ValueError(f"{count} blocks named {prefix}<number>, expected 1 to {MAX_BLOCKS}")
    return count


def _heads(width: int, stated: int | None) -> int:
    heads = stated or width // 64
    if heads == 0 or width % heads:
        of = f"{stated} heads" if stated else "heads of 64"
        raise ValueError(f"a width of {width} cannot be divided among {of}")
    return heads


def _architecture(weights: Mapping[str, Tensor], description: Description) -> dict[str, Any]:
    (width,) = _shape(weights, "ln_final.weight", 1)
    found = {
        "embed_dim": _shape(weights, "text_projection", 2)[1],
        "context_length": _shape(weights, "positional_embedding", 2)[0],
        "vocab_size": _shape(weights, "token_embedding.weight", 2)[0],
        "transformer_width": width,
        "transformer_heads": _heads(width, description.text.heads),
        "transformer_layers": _count_blocks(weights, "transformer.resblocks."),
        **_vision_architecture(weights, description.vision.heads),
    }
    other = [f"{name} {size}, not {found[name]}" for name, size in description.sizes.items() if found[name] != size]
    if other:
        raise ValueError(f"{description.source} states another model: {first_few(other)}")
    return found


def _vision_architecture(weights: Mapping[str, Tensor], heads: int | None) -> dict[str, Any]:
    if "visual.proj" in weights:
        width, _, patch_size, _ = _shape(weights, "visual.conv1.weight", 4)
        grid = round((_shape(weights, "visual.positional_embedding", 2)[0] - 1) ** 0.5)
        return {
            "image_resolution": patch_size * grid,
            "vision_layers": _count_blocks(weights, "visual.transformer.resblocks."),
            "vision_width": width,
            "vision_heads": _heads(width, heads or HEADS_BY_WIDTH.get(width)),
            "vision_patch_size": patch_size,
        }
    grid = round((_shape(weights, "visual.attnpool.positional_embedding", 2)[0] - 1) ** 0.5)
    width = _shape(weights, "visual.layer1.0.conv1.weight", 4)[0]
    return {
        "image_resolution": grid * RESNET_STRIDE,
        "vision_layers": tuple(_count_blocks(weights, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)),
        "vision_width": width,
        "vision_heads": _heads(width * 32, heads),
        "vision_patch_size": None,
    }


def _check_fit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    shapes = [
        f"{name} {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    kinds = {"missing": missing, "unknown": unexpected, "of another shape": shapes}
    if any(kinds.values()):
        raise ValueError("; ".join(f"{kind}: {first_few(names)}" for kind, names in kinds.items() if names))


def _in_fp32(x: Tensor, copy: bool) -> Tensor:
    return x.detach().to(torch.float32 if x.is_floating_point() else x.dtype, copy=copy)


def _set_up_blocks(transformer: Transformer, details: Tower, weights: Mapping[str, Tensor], prefix: str) -> None:
    """Give the blocks' MLPs their activation, and the hidden width that the weights have where it is not 4 D."""
    for i, block in enumerate(transformer.resblocks):
        assert isinstance(block, ResidualAttentionBlock)
        if details.activation == "gelu":
            block.mlp.gelu = nn.GELU()
        hidden = _shape(weights, f"{prefix}.resblocks.{i}.mlp.c_fc.bias", 1)[0]
        if hidden != 4 * transformer.width:
            block.mlp.c_fc = nn.Linear(transformer.width, hidden)
            block.mlp.c_proj = nn.Linear(hidden, transformer.width)


def _set_epsilon(model: CLIP, description: Description) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            tower = description.vision if name.startswith("visual.") else description.text
            module.eps = tower.layer_norm_eps


class _WithoutValues(TorchFunctionMode):
    """Modules that are built in this context draw no initial values: their memory is not even touched.

    The meta device does the same, but computes with functions in Python that import torch's compiler, for seconds.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in _DRAWING:
            return args[0] if args else kwargs["tensor"]
        return (torch.empty if function is torch.randn else function)(*args, **kwargs)


def build_model(
    state_dict: Mapping[str, Tensor],
    design_details: Mapping[str, Any] | None = None,
    activation: str = "quick_gelu",
) -> CLIP:
    """`from_state_dict`, in the precision that prompt-learning code expects on this machine.

    Where there is a GPU, the model has fp16 weights (`convert_weights`), as OpenAI's `build_model` always returns:
    callers create their own layers in `model.dtype` or with `.half()`, and call `model.float()` for fp32 and amp.
    Without a GPU it stays in fp32, as OpenAI's `load` returns on a CPU.
    """
    model = from_state_dict(state_dict, design_details, activation)
    if torch.cuda.is_available():
        convert_weights(model)
    return model


def from_state_dict(
    state_dict: Mapping[str, Tensor],
    design_details: Mapping[str, Any] | None = None,
    activation: str = "quick_gelu",
    copy: bool = True,
    description: Description | None = None,
) -> CLIP:
    """A CLIP on the CPU, in fp32 and eval mode. Its architecture is inferred from the shapes of the weights.

    Args:
        state_dict: weights in OpenAI's layout; `input_resolution`, `context_length` and `vocab_size` are ignored.
        design_details: prompt tokens to add to the towers, under the keys that prompt-learning code uses:
            `vision_ctx` tokens for the first `vision_depth` layers of the image tower, and `language_ctx` tokens
            for the first `language_depth` layers of the text tower except its input, whose prompt tokens come
            from a prompt learner. Other keys are ignored.
        activation: that of the blocks' MLPs, which no weights tell: "quick_gelu" for OpenAI's weights, "gelu" for
            most others, such as open_clip's that were trained on LAION.
        copy: False shares the memory of weights that are fp32 already, for a state dict that is not used elsewhere.
        description: what the model's configuration states, instead of `activation`.

    Raises:
        ValueError: the tensors are not those of a CLIP, or of another one than described, or the activation is
            another one.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"the activation {activation!r} is none of {', '.join(ACTIVATIONS)}")
    description = description or Description().with_activation(activation)
    weights = {k: v for k, v in state_dict.items() if k not in ("input_resolution", "context_length", "vocab_size")}
    try:
        architecture = _architecture(weights, description)
        with _WithoutValues():  # they are overwritten anyway
            model = CLIP(**architecture)
            _set_up_blocks(model.transformer, description.text, weights, "transformer")
            if isinstance(model.visual, VisionTransformer):
                _set_up_blocks(model.visual.transformer, description.vision, weights, "visual.transformer")
        _set_epsilon(model, description)
        _check_fit(weights, model.state_dict())
    except (KeyError, ValueError) as error:
        reason = f"missing: {error.args[0]}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"these {len(weights)} tensors are not a CLIP in OpenAI's layout ({reason}); expected entries like "
            "'visual.conv1.weight', 'transformer.resblocks.0.ln_1.weight' and 'text_projection'"
        ) from error
    model.load_state_dict({k: _in_fp32(v, copy) for k, v in weights.items()}, assign=True)
    details = design_details or {}
    if details.get("vision_depth", 0) > 0 and details.get("vision_ctx", 0) > 0:
        add_vision_prompts(model, details["vision_ctx"], details["vision_depth"])
    if details.get("language_depth", 0) > 0 and details.get("language_ctx", 0) > 0:
        model.transformer.add_prompts(details["language_ctx"], details["language_depth"])
    return model.eval()


def resize_positions(model: CLIP, resolution: int) -> None:
    """Make the image tower take images of another resolution: interpolate its position embeddings, in place.

    The embeddings (1 + P, D) of a grid of patches (or of a ResNet's last cells) are interpolated bicubically with
    antialiasing, as in open_clip; the first, of the class token, stays.

    Args:
        resolution: pixels of a square image's side, a multiple of the patch size (ViT) or of 32 (ResNet).

    Raises:
        ValueError: it is no such multiple.
    """
    tower = model.visual
    if tower.input_resolution == resolution:
        return
    cell = tower.conv1.kernel_size[0] if isinstance(tower, VisionTransformer) else RESNET_STRIDE
    if resolution < cell or resolution % cell:
        raise ValueError(
            f"images of {resolution} x {resolution} pixels do not suit this backbone, trained with "
            f"{tower.input_resolution}: choose a multiple of {cell}, such as {max(resolution // cell, 1) * cell}"
        )
    holder = tower if isinstance(tower, VisionTransformer) else tower.attnpool
    old = holder.positional_embedding
    sides = tower.input_resolution // cell, resolution // cell
    grid = old.data[1:].float().T.unflatten(-1, (sides[0], sides[0]))[None]  # (1, D, side, side)
    grid = F.interpolate(grid, size=(sides[1], sides[1]), mode="bicubic", antialias=True, align_corners=False)
    new = torch.cat([old.data[:1], grid[0].flatten(1).T.to(old.dtype)])
    holder.positional_embedding = nn.Parameter(new, requires_grad=old.requires_grad)
    tower.input_resolution = resolution


def add_vision_prompts(model: CLIP, n_ctx: int, depth: int) -> None:
    """Add learned prompt tokens to the image tower; raise a ValueError if it is a ResNet."""
    require_vit(model).add_prompts(n_ctx, depth)


def require_vit(model: CLIP, what: str = "vision prompts") -> VisionTransformer:
    """The model's image tower; raise a ValueError that says what needs a ViT if it is a ResNet."""
    if not isinstance(model.visual, VisionTransformer):
        raise ValueError(
            f"{what} need a ViT backbone, found a ResNet: choose MODEL.BACKBONE.NAME ViT-B/16, ViT-B/32 or "
            "ViT-L/14, or a trainer with text prompts only (CoOp, CoCoOp)"
        )
    return model.visual
