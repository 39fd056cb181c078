"""MMA: multi-modal adapter (Yang et al., CVPR 2024), as in ZjjConan/Multi-Modal-Adapter.

Letters: K classes, U distinct token ids, W width of a tower (Dt text, Dv vision), M width of an adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from clip.model import CLIP, require_vit
from dassl.config.checks import number, text, whole
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY

from .base import ClipTrainer
from .precision import PRECISIONS
from .prompted_clip import FixedTexts, FrozenTowersCLIP, unit
from .prompts import fixed_prompts


class Scaled(torch.autograd.Function):
    """A product of a tensor and a number, whose gradient is multiplied by another number instead."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: float, gradient: float) -> Tensor:
        ctx.gradient = gradient
        return x * value if value != 1 else x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return (gradient * ctx.gradient if ctx.gradient != 1 else gradient), None, None


class Adapter(nn.Module):
    """One tower's halves of a bottleneck: W → M and M → W."""

    def __init__(self, width: int, bottleneck: int):
        super().__init__()
        self.down = nn.Sequential(nn.Linear(width, bottleneck), nn.ReLU())
        self.up = nn.Linear(bottleneck, width)


class AdapterLearner(nn.Module):
    """The adapters of blocks `start` … `end`, counted from 1; 0 is the embedding.

    Each is up(ReLU(shared(ReLU(down(z))))), where both towers share the layer in the middle. Nothing starts at zero.

    Args:
        widths: of the text and of the image tower.
        bottleneck: M.
        scale: s, of what an adapter adds.
    """

    def __init__(self, widths: tuple[int, int], start: int, end: int, bottleneck: int, scale: float):
        super().__init__()
        self.scale = scale
        numbers = [str(i) for i in range(start, end + 1)]
        self.text_adapter = nn.ModuleDict({i: Adapter(widths[0], bottleneck) for i in numbers})
        self.visual_adapter = nn.ModuleDict({i: Adapter(widths[1], bottleneck) for i in numbers})
        shared = {i: nn.Sequential(nn.Linear(bottleneck, bottleneck), nn.ReLU()) for i in numbers}
        self.shared_adapter = nn.ModuleDict(shared)
        for linear in (module for module in self.modules() if isinstance(module, nn.Linear)):
            nn.init.kaiming_normal_(linear.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(linear.bias)

    def _adapted(self, adapters: nn.ModuleDict, number: str, z: Tensor) -> Tensor:
        adapter: Any = adapters[number]
        return adapter.up(self.shared_adapter[number](adapter.down(z)))

    def beside_block(self, adapters: nn.ModuleDict, number: str, z: Tensor) -> Tensor:
        """s · A(z) (…, W) for a block's normalised input z.

        The adapter's parameters get the gradient of A, which is 1/s times as large; z gets that of s · A.
        """
        z_in = Scaled.apply(z.float(), 1.0, self.scale)
        return Scaled.apply(self._adapted(adapters, number, z_in), self.scale, 1.0).to(z.dtype)

    def of_embedding(self, adapters: nn.ModuleDict, x: Tensor) -> Tensor:
        """x + s · A(x) (…, W) of embeddings, with plain gradients; x where there is no adapter 0."""
        return x + (self.scale * self._adapted(adapters, "0", x.float())).to(x.dtype) if "0" in adapters else x


class AdaptedCLIP(FrozenTowersCLIP):
    """Adapters beside blocks of both towers, whose hand-written prompts are fixed."""

    def __init__(self, clip_model: CLIP, prompts: Sequence[str], start: int, end: int, width: int, scale: float):
        vision = require_vit(clip_model, "adapters in both towers")
        super().__init__(clip_model)
        towers = (clip_model.transformer, vision.transformer)
        _check_blocks(start, end, towers[0].layers, towers[1].layers)
        self.texts = FixedTexts(clip_model, prompts)
        learner = AdapterLearner((towers[0].width, towers[1].width), start, end, width, scale)
        self.adapter_learner = learner
        for tower, adapters in zip(towers, (learner.text_adapter, learner.visual_adapter), strict=True):
            blocks: Any = tower.resblocks
            for i, block in enumerate(blocks, start=1):
                if str(i) in adapters:
                    block.beside = partial(learner.beside_block, adapters, str(i))
        if start == 0:
            vision.ln_pre.register_forward_hook(lambda _, __, x: learner.of_embedding(learner.visual_adapter, x))

    def compute_text_features(self) -> Tensor:
        learner, table = self.adapter_learner, self.texts.token_embeddings  # (U, Dt)
        return unit(self.text_encoder(learner.of_embedding(learner.text_adapter, table), self.texts.layout))

    def frozen_images(self) -> bool:
        return False


def _check_blocks(start: int, end: int, text: int, vision: int) -> None:
    layers = min(text, vision)
    if not 0 <= start <= end <= layers:
        raise ValueError(
            f"ADAPTER_START is {start} and ADAPTER_END {end}, but the text tower has {text} layers and the image tower "
            f"{vision}, and an adapter is in both: set TRAINER.MMADAPTER.ADAPTER_START and ADAPTER_END to layers from "
            f"0 (the embedding) to {layers}, ADAPTER_START not above ADAPTER_END"
        )


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.MMADAPTER = CfgNode()
    cfg.TRAINER.MMADAPTER.TEXT_CTX_INIT = "a photo of a"  # words before the class name in the fixed prompts
    cfg.TRAINER.MMADAPTER.ADAPTER_START = 5  # first layer with an adapter, counted from 1; 0 is the embedding
    cfg.TRAINER.MMADAPTER.ADAPTER_END = 12  # last layer with an adapter
    cfg.TRAINER.MMADAPTER.ADAPTER_DIM = 32  # width of the bottleneck
    cfg.TRAINER.MMADAPTER.ADAPTER_SCALE = 0.001  # weight of what an adapter adds
    cfg.TRAINER.MMADAPTER.PREC = "amp"  # the towers' precision: fp32, fp16, bf16, amp


declare_ranges(
    "TRAINER.MMADAPTER",
    TEXT_CTX_INIT=text(),
    ADAPTER_START=whole(0, 100),
    ADAPTER_END=whole(0, 100),
    ADAPTER_DIM=whole(1, 10**4),
    ADAPTER_SCALE=number(above=0),
    PREC=PRECISIONS,
)


@TRAINER_REGISTRY.register()
class MultiModalAdapter(ClipTrainer):
    """Learned: bottlenecks beside the last blocks of both towers, which share their middle layer."""

    config_node = "MMADAPTER"
    registered_name = "adapter_learner"
    not_loaded = ("token_embedding", "tokenized_prompts")  # in published checkpoints: of the class names

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> AdaptedCLIP:
        prompts = fixed_prompts(options.TEXT_CTX_INIT, dataset.classnames)
        blocks = options.ADAPTER_START, options.ADAPTER_END
        return AdaptedCLIP(clip_model, prompts, *blocks, options.ADAPTER_DIM, options.ADAPTER_SCALE)

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        shared = {name: shape for name, shape in shapes.items() if name.startswith("shared_adapter.")}
        numbers = [int(part) for name in shared if (part := name.split(".")[1]).isdecimal()]
        widths = {shape[0] for shape in shared.values() if shape}
        if not numbers or len(widths) != 1:
            return None
        return {"ADAPTER_START": min(numbers), "ADAPTER_END": max(numbers), "ADAPTER_DIM": widths.pop()}

    def checkpoint_root(self) -> nn.Module:
        return self.model.adapter_learner

    def belongs_to(self) -> dict[str, Any]:
        return super().belongs_to() | {"adapter_scale": self.cfg.TRAINER.MMADAPTER.ADAPTER_SCALE}
