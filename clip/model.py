"""The towers of CLIP, in OpenAI's state-dict layout, with prompt tokens as data.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.

Letters: B images, N texts, P patches, M prompt tokens, L text tokens, D width (Dt text, Dv vision), E joint width.

Prompts reach a transformer in two ways: as an argument (deep prompts for the blocks after the first), or as
parameters of the tower itself (`add_prompts`), under the names that published checkpoints use: `VPT` for the
tokens at a vision tower's input and `resblocks.<i>.VPT_shallow` for those that enter before block i.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layout import DenseLayout, Layout, PromptLayout
from .resnet import ModifiedResNet, check_image_size
from .text import TextEncoder

PROMPT_STD = 0.02  # learned prompt tokens start as N(0, 0.02)


class LayerNorm(nn.LayerNorm):
    """LayerNorm computed in fp32 whatever the input's precision, which it returns."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype)).to(x.dtype)


class QuickGELU(nn.Module):
    """x · sigmoid(1.702 x), the activation OpenAI's weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class ResidualAttentionBlock(nn.Module):
    """Attention and MLP, each after a LayerNorm and added to its input.

    `attn` holds the parameters under OpenAI's names; the attention itself is the layout's.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = LayerNorm(width)
        layers = [("c_fc", nn.Linear(width, 4 * width)), ("gelu", QuickGELU()), ("c_proj", nn.Linear(4 * width, width))]
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ln_2 = LayerNorm(width)

    def forward(self, x: Tensor, layout: Layout, pool: bool = False) -> Tensor:
        """All rows of `x` (N, L, D), or with `pool` only those that the layout pools."""
        heads, weight, bias = self.attn.num_heads, self.attn.in_proj_weight, self.attn.in_proj_bias
        h = self.ln_1(x)
        if pool:
            D = x.shape[-1]
            q = F.linear(layout.pool(h), weight[:D], bias[:D])
            k, v = F.linear(h, weight[D:], bias[D:]).chunk(2, dim=-1)
            x, attended = layout.pool(x), layout.attend_pooled(q, k, v, heads)
        else:
            q, k, v = F.linear(h, weight, bias).chunk(3, dim=-1)
            attended = layout.attend(q, k, v, heads)
        x = x + self.attn.out_proj(attended)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """A stack of blocks. `causal` is the text tower's: a row sees itself and earlier rows only."""

    def __init__(self, width: int, layers: int, heads: int, causal: bool = False):
        super().__init__()
        self.width, self.layers = width, layers
        self.resblocks = nn.ModuleList(ResidualAttentionBlock(width, heads) for _ in range(layers))
        self.dense = DenseLayout(causal=causal, prompts_last=not causal)

    def add_prompts(self, n_ctx: int, depth: int) -> None:
        """Give blocks 1 … depth-1 learned tokens (n_ctx, D) of their own, `VPT_shallow`."""
        check_prompt_depth(depth, self.layers, lowest=0)
        for block in list(self.resblocks)[1:depth]:
            block.register_parameter("VPT_shallow", nn.Parameter(torch.randn(n_ctx, self.width) * PROMPT_STD))

    def own_prompts(self) -> list[Tensor]:
        return [block.get_parameter("VPT_shallow") for block in self.resblocks if hasattr(block, "VPT_shallow")]

    def encode(self, x: Tensor, layout: Layout, prompts: Sequence[Tensor] | None = None, pool: bool = True) -> Tensor:
        """Run the blocks over `x` (N, L, D).

        Args:
            prompts: tokens (M, D) or (N, M, D) that replace the prompt rows before block 1, 2, …; None takes
                those the blocks own.
            pool: return only the rows that the layout pools, which saves most of the last block.
        """
        prompts = self.own_prompts() if prompts is None else prompts
        for i, block in enumerate(self.resblocks):
            if 0 < i <= len(prompts):
                x = layout.insert(x, prompts[i - 1])
            x = block(x, layout, pool=pool and i == self.layers - 1)
        return x

    def forward(self, x: Tensor | list[Any]) -> Tensor | list[Any]:
        """The calling convention of OpenAI's package: rows first, (L, N, D), every row returned.

        A list `[x, deep_prompts, counter]`, as prompt-learning code passes it, is answered with a list.
        """
        x, prompts, *rest = x if isinstance(x, list) else (x, None)
        out = self.encode(x.transpose(0, 1), self.dense, prompts, pool=False).transpose(0, 1)  # (L, N, D)
        return [out, prompts, *rest] if rest else out


class VisionTransformer(nn.Module):
    """CLIP's image tower: patches and a class token, whose last state is the image feature (B, E)."""

    VPT: nn.Parameter | None

    def __init__(self, input_resolution: int, patch_size: int, width: int, layers: int, heads: int, output_dim: int):
        super().__init__()
        self.input_resolution, self.output_dim = input_resolution, output_dim
        self.conv1 = nn.Conv2d(3, width, patch_size, patch_size, bias=False)
        scale = width**-0.5
        self.class_embedding = nn.Parameter(scale * torch.randn(width))
        patches = (input_resolution // patch_size) ** 2
        self.positional_embedding = nn.Parameter(scale * torch.randn(patches + 1, width))
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, layers, heads)
        self.ln_post = LayerNorm(width)
        self.proj = nn.Parameter(scale * torch.randn(width, output_dim))
        self.register_parameter("VPT", None)

    def add_prompts(self, n_ctx: int, depth: int) -> None:
        """Give the tower learned tokens (n_ctx, Dv): `VPT` at the input, `VPT_shallow` before blocks 1 … depth-1."""
        check_prompt_depth(depth, self.transformer.layers, lowest=1)
        self.VPT = nn.Parameter(torch.randn(n_ctx, self.transformer.width) * PROMPT_STD)
        self.transformer.add_prompts(n_ctx, depth)

    def forward(self, image: Tensor, ctx: Tensor | None = None, deep: Sequence[Tensor] | None = None) -> Tensor:
        """Image features (B, E).

        Args:
            image: (B, 3, H, W) with H = W = `input_resolution`.
            ctx: prompt tokens (M, Dv) appended after the patches; None takes the tower's own `VPT`.
            deep: tokens that replace them before block 1, 2, …; None takes the tower's own.
        """
        check_image_size(image, self.input_resolution)
        x = self.conv1(image.to(self.conv1.weight.dtype)).flatten(2).transpose(1, 2)  # (B, P, Dv)
        cls = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([cls, x], dim=1) + self.positional_embedding.to(x.dtype)  # (B, 1 + P, Dv)
        ctx = self.VPT if ctx is None else ctx
        if ctx is not None:
            x = torch.cat([x, ctx.to(x.dtype).expand(x.shape[0], -1, -1)], dim=1)  # (B, 1 + P + M, Dv)
        x = self.transformer.encode(self.ln_pre(x), self.transformer.dense, deep)  # (B, 1, Dv)
        return self.ln_post(x[:, 0]) @ self.proj


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
        """Text features (N, E), not normalised, of token ids (N, L) as `clip.tokenize` gives them."""
        sequences = [ids[: max(range(len(ids)), key=ids.__getitem__) + 1] for ids in text.tolist()]
        layout = PromptLayout(sequences).to(text.device)
        return TextEncoder(self)(self.token_embedding(layout.vocabulary), layout)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled cosine similarities: logits per image (B, N) and per text (N, B)."""
        image_features = F.normalize(self.encode_image(image), dim=-1)
        text_features = F.normalize(self.encode_text(text), dim=-1)
        logits = self.logit_scale.exp() * image_features @ text_features.t()
        return logits, logits.t()


def check_prompt_depth(depth: int, layers: int, lowest: int) -> None:
    """Raise a ValueError unless prompts can enter at `depth` layers of a tower of `layers`."""
    if not lowest <= depth <= layers:
        raise ValueError(
            f"prompt depth {depth} does not fit a tower of {layers} layers: choose a depth from {lowest} to {layers}"
        )


def convert_weights(model: nn.Module, dtype: torch.dtype = torch.float16) -> None:
    """Store what the towers multiply with in `dtype`; LayerNorms, BatchNorms and embeddings stay in fp32."""
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


def build_model(state_dict: Mapping[str, Tensor], design_details: Mapping[str, Any] | None = None) -> CLIP:
    """A CLIP in fp32 and eval mode, its architecture read from the shapes of an OpenAI-layout state dict.

    Args:
        state_dict: the weights; entries `input_resolution`, `context_length`, `vocab_size` are ignored.
        design_details: prompts that the towers own, as prompt-learning code passes them: `vision_ctx` tokens
            down to `vision_depth`, `language_ctx` tokens down to `language_depth` (the text input's own tokens
            come from a prompt learner). Other entries have no meaning here.

    Raises:
        ValueError: the tensors are not a CLIP's.
    """
    weights = {k: v for k, v in state_dict.items() if k not in ("input_resolution", "context_length", "vocab_size")}
    try:
        width = weights["ln_final.weight"].shape[0]
        model = CLIP(
            embed_dim=weights["text_projection"].shape[1],
            context_length=weights["positional_embedding"].shape[0],
            vocab_size=weights["token_embedding.weight"].shape[0],
            transformer_width=width,
            transformer_heads=width // 64,
            transformer_layers=_count_blocks(weights, "transformer.resblocks."),
            **_vision_architecture(weights),
        )
        model.load_state_dict(weights)
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
    """Give the image tower learned prompt tokens; a ValueError where it is a ResNet."""
    require_vit(model).add_prompts(n_ctx, depth)


def require_vit(model: CLIP) -> VisionTransformer:
    """The model's image tower, which takes prompt tokens only if it is a ViT."""
    if not isinstance(model.visual, VisionTransformer):
        raise ValueError(
            "vision prompts need a ViT backbone, found a ResNet: choose MODEL.BACKBONE.NAME ViT-B/16, ViT-B/32 or "
            "ViT-L/14, or a trainer that prompts the text alone (CoOp, CoCoOp)"
        )
    return model.visual
