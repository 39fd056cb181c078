"""CLIP-LoRA: low-rank weights in the attention of both towers (Zanella and Ben Ayed, CVPRW 2024, arXiv 2405.18541).

Letters: N sequences, L tokens, Q queries, D width of a tower, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from yacs.config import CfgNode

from clip.model import CLIP, require_vit
from clip.packing import PackedPrompts
from clip.transformer import Attention, Transformer
from dassl.config.checks import list_of, number, one_of, whole
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY
from dassl.utils.checkpoints import load_checkpoint
from dassl.utils.schema import check
from dassl.utils.schema import number as number_in_file

from .base import ClipTrainer
from .precision import PRECISIONS
from .prompted_clip import FixedTexts, FrozenTowersCLIP, unit, without_autocast
from .prompts import DEFAULT_TEMPLATE, fill

PROJECTIONS = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "proj"}  # by the letters of PARAMS
ENCODERS = {"both": ("text", "vision"), "text": ("text",), "vision": ("vision",)}
POSITIONS = {  # the first block with low-rank weights and the one after the last, of a tower of 12
    "all": (0, 12),
    "bottom": (0, 4),
    "mid": (4, 8),
    "up": (8, 12),
    "half-bottom": (0, 6),
    "half-up": (6, 12),
    "top3": (9, 12),
}
SCALE = 100.0  # of the cosines: a constant in the published code


def chosen_blocks(position: str, layers: int) -> range:
    """The blocks with low-rank weights, counted from 0: shares of any depth, apart from the last three of `top3`."""
    start, end = (bound * layers // 12 for bound in POSITIONS[position])
    return range(max(layers - 3, 0) if position == "top3" else start, end)


class LowRank(nn.Module):
    """s · B A dropout(x), which is added to a frozen product W x; both matrices compute in fp32."""

    def __init__(self, width: int, rank: int, alpha: float, dropout: float):
        super().__init__()
        self.w_lora_A = nn.Parameter(torch.empty(rank, width))
        self.w_lora_B = nn.Parameter(torch.zeros(width, rank))
        nn.init.kaiming_uniform_(self.w_lora_A, a=math.sqrt(5))
        self.scale = alpha / math.sqrt(rank)  # rank-stabilised
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        low = F.linear(self.dropout(x).float(), self.w_lora_A)  # (N, L, r)
        return self.scale * F.linear(low, self.w_lora_B).to(x.dtype)


class LowRankAttention(Attention):
    """A frozen attention whose projections have low-rank weights beside them, each with dropout of its own.

    Args:
        frozen: its parameters are shared.
        projections: those with low-rank weights, by their names in `PROJECTIONS`.
    """

    def __init__(self, frozen: Attention, projections: Collection[str], rank: int, alpha: float, dropout: float):
        with torch.device("meta"):
            super().__init__(frozen.embed_dim, frozen.num_heads)
        self.in_proj_weight, self.in_proj_bias = frozen.in_proj_weight, frozen.in_proj_bias
        self.out_proj = frozen.out_proj
        for name in PROJECTIONS.values():
            low = LowRank(frozen.embed_dim, rank, alpha, dropout) if name in projections else None
            self.register_module(name, low)

    def project(self, tokens: Tensor, queries: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        of_q = tokens if queries is None else queries  # (N, L, D), or (N, Q, D)
        q, k, v = super().project(tokens, queries)
        return self._added(q, "q_proj", of_q), self._added(k, "k_proj", tokens), self._added(v, "v_proj", tokens)

    def output(self, attended: Tensor) -> Tensor:
        return self._added(super().output(attended), "proj", attended)

    def _added(self, product: Tensor, name: str, x: Tensor) -> Tensor:
        low = self._modules[name]
        return product if low is None else product + low(x)


class LowRankCLIP(FrozenTowersCLIP):
    """Low-rank weights in attention blocks of one or both towers; the prompts are hand-written.

    Args:
        encoders: towers with low-rank weights, of "text" and "vision".
        position: of their blocks, a key of `POSITIONS`.
        low_rank: projections, rank, alpha and dropout of the weights.
    """

    def __init__(
        self,
        clip_model: CLIP,
        prompts: Sequence[str],
        encoders: Collection[str],
        position: str,
        low_rank: tuple[Collection[str], int, float, float],
    ):
        super().__init__(clip_model)
        self.texts = FixedTexts(clip_model, prompts)
        if "text" in encoders:
            _add(clip_model.transformer, position, low_rank)
        if "vision" in encoders:
            _add(require_vit(clip_model, "low-rank weights in the image tower").transformer, position, low_rank)
        # Dropout draws for each token of each prompt, so that in training no two prompts have a token in common
        dropped = "text" in encoders and low_rank[-1] > 0
        self.apart = PackedPrompts(self.texts.layout.sequences, share=False) if dropped else None

    def compute_text_features(self) -> Tensor:
        layout = self.texts.layout if self.apart is None or not self.training else self.apart
        return unit(self.text_encoder(self.texts.token_embeddings, layout))

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        with without_autocast(image_features.device):
            return SCALE * image_features @ text_features.t()


def _add(tower: Transformer, position: str, low_rank: tuple[Collection[str], int, float, float]) -> None:
    blocks: Any = tower.resblocks
    chosen = chosen_blocks(position, tower.layers)
    if not chosen:
        raise ValueError(
            f"TRAINER.CLIPLORA.POSITION {position} is no block of a tower of {tower.layers} layers: choose all"
        )
    for i in chosen:
        blocks[i].attn = LowRankAttention(blocks[i].attn, *low_rank)


class PublishedNames(nn.Module):
    """Both towers under the names that they have in a CLIP."""

    def __init__(self, model: FrozenTowersCLIP):
        super().__init__()
        self.transformer, self.visual = model.text_encoder.transformer, model.image_encoder


def extend_cfg(cfg: CfgNode) -> None:
    """The published code reads these from its command line, and counts steps in `n_iters` (OPTIM.STEPS_PER_SHOT)."""
    cfg.TRAINER.CLIPLORA = CfgNode()
    cfg.TRAINER.CLIPLORA.ENCODER = "both"  # towers with low-rank weights: both, text, vision
    cfg.TRAINER.CLIPLORA.POSITION = "all"  # blocks: all, bottom, mid, up (thirds), half-bottom, half-up, top3
    cfg.TRAINER.CLIPLORA.PARAMS = ["q", "k", "v"]  # projections of the attention: q, k, v, o (of the heads' output)
    cfg.TRAINER.CLIPLORA.R = 2  # rank
    cfg.TRAINER.CLIPLORA.ALPHA = 1.0  # the added product is weighted with ALPHA / sqrt(R)
    cfg.TRAINER.CLIPLORA.DROPOUT = 0.25  # of what enters the added product, in training
    cfg.TRAINER.CLIPLORA.PREC = "amp"  # the towers' precision: fp32, fp16, bf16, amp


declare_ranges(
    "TRAINER.CLIPLORA",
    ENCODER=one_of(*ENCODERS),
    POSITION=one_of(*POSITIONS),
    PARAMS=list_of(one_of(*PROJECTIONS), least=1),
    R=whole(1, 10**4),
    ALPHA=number(above=0),
    DROPOUT=number(0, below=1),
    PREC=PRECISIONS,
)


@TRAINER_REGISTRY.register()
class CLIPLoRA(ClipTrainer):
    """Learned: two matrices of low rank beside each chosen projection of the attention."""

    config_node = "CLIPLORA"
    registered_name = "clip_lora"

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> LowRankCLIP:
        """The template is the same for all data sets, as published, unless DATASET.TEMPLATE is set."""
        template = vars(dataset).get("template", DEFAULT_TEMPLATE)
        projections = {PROJECTIONS[letter] for letter in options.PARAMS}
        return LowRankCLIP(
            clip_model,
            fill(template, dataset.classnames),
            ENCODERS[options.ENCODER],
            options.POSITION,
            (projections, options.R, options.ALPHA, options.DROPOUT),
        )

    def checkpoint_root(self) -> nn.Module:
        return PublishedNames(self.model)

    def belongs_to(self) -> dict[str, Any]:
        return super().belongs_to() | {"alpha": self.cfg.TRAINER.CLIPLORA.ALPHA}

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        ranks = {shape[0] for name, shape in shapes.items() if name.endswith(".w_lora_A") and len(shape) == 2}
        if len(ranks) != 1:
            return None
        places = [name.split(".") for name in shapes if name.endswith(".w_lora_A")]
        encoders = {"vision" if place[0] == "visual" else "text" for place in places}
        blocks = {int(place[-4]) for place in places if place[-4].isdecimal()}
        named = {place[-2] for place in places}
        return {
            "ENCODER": "both" if len(encoders) > 1 else encoders.pop(),
            **_position(blocks),
            "PARAMS": [letter for letter, name in PROJECTIONS.items() if name in named],
            "R": ranks.pop(),
        }

    def read_weights(self, path: str) -> dict[str, Any]:
        """Also a published `lora_weights.pt`, which has `weights` by layer and `metadata`."""
        checkpoint = load_checkpoint(path)
        if "state_dict" in checkpoint or "weights" not in checkpoint:
            return super().read_weights(path)
        return _from_published(checkpoint, self.model, path)


def _position(blocks: Collection[int]) -> dict[str, Any]:
    """The value of POSITION that chooses these blocks, of towers as deep as published ones."""
    fitting = [key for layers in (12, 24) for key in POSITIONS if set(chosen_blocks(key, layers)) == set(blocks)]
    return {"POSITION": fitting[0]} if fitting else {}


def _from_published(checkpoint: Mapping[str, Any], model: FrozenTowersCLIP, path: str) -> dict[str, Any]:
    """A `lora_weights.pt` as a checkpoint of ours: its layers are those of the text tower, then of the image tower.

    Raises:
        ValueError: it is not one, or of towers with other numbers of blocks.
    """
    from voluptuous import ALLOW_EXTRA, Required, Schema
    from voluptuous import Any as OneOf

    of_layer = {str: {Required("w_lora_A"): Tensor, Required("w_lora_B"): Tensor}}
    known = {"encoder": OneOf(*ENCODERS), "position": OneOf(*POSITIONS), "alpha": number_in_file}
    metadata = Schema({Required(key): value for key, value in known.items()}, extra=ALLOW_EXTRA)
    schema = Schema({Required("weights"): {str: of_layer}, Required("metadata"): metadata}, extra=ALLOW_EXTRA)
    check(checkpoint, schema, path, "CLIP-LoRA's lora_weights.pt holds 'weights' by layer and 'metadata'")
    layers, settings = checkpoint["weights"], checkpoint["metadata"]
    vision = getattr(model.image_encoder, "transformer", None)  # a ResNet has none
    towers = {
        "text": ("transformer", model.text_encoder.transformer.layers),
        "vision": ("visual.transformer", vision.layers if vision else 0),
    }
    blocks = [
        f"{prefix}.resblocks.{i}.attn"
        for prefix, layers in (towers[encoder] for encoder in ENCODERS[settings["encoder"]])
        for i in chosen_blocks(settings["position"], layers)
    ]
    if layers.keys() != {f"layer_{j}" for j in range(len(blocks))}:
        raise ValueError(
            f"{path} has low-rank weights for {len(layers)} blocks, expected {len(blocks)} (ENCODER "
            f"{settings['encoder']}, POSITION {settings['position']}): it was trained with another backbone, pass "
            "--backbone"
        )
    state = {
        f"{block}.{projection}.{name}": tensor
        for j, block in enumerate(blocks)
        for projection, pair in layers[f"layer_{j}"].items()
        for name, tensor in pair.items()
    }
    return {"state_dict": state, "epoch": None, "belongs_to": {"alpha": settings["alpha"]}}
