"""TCP: textual-based class-aware prompt tuning (Yao et al., CVPR 2024, arXiv 2311.18231).

Letters: K classes, M prompt tokens, Dt text width, E joint width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from clip.layout import PromptTokens
from clip.model import CLIP
from clip.transformer import QuickGELU
from dassl.config.checks import flag, number, text, whole
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY
from dassl.optim.half_adam import HalfAdam

from .base import ClipTrainer
from .graphs import capturable
from .precision import PRECISIONS
from .prompted_clip import unit
from .prompts import ContextLearner
from .teacher import GuidedCLIP, template_of

M = 4  # tokens of the context and of each class

# What follows the context in the prompts, and the teacher's templates where they are not the data set's own
PROMPTS = {
    "OxfordPets": "{}, a type of pet.",
    "OxfordFlowers": "{}, a type of flower.",
    "FGVCAircraft": "{}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "StanfordCars": "{}, a type of car",
    "Food101": "{}, a type of food.",
    "UCF101": "person doing {}.",
}
TEACHER_TEMPLATES = {
    "FGVCAircraft": "a photo of an aircraft {}.",
    "DescribableTextures": "a photo of a {}, a type of texture.",
    "Food101": "a photo of a {}, a type of food.",
}


class ClassAwareLearner(ContextLearner):
    """A context for all classes, and tokens of each class, which a bottleneck makes of its teacher's text feature."""

    def __init__(self, classnames: Sequence[str], clip_model: CLIP, ctx_init: str, template: str):
        super().__init__(classnames, clip_model, M, ctx_init, template=template)
        E, Dt = clip_model.text_projection.shape[1], clip_model.transformer.width
        layers = [("linear1", nn.Linear(E, E // 4)), ("gelu", QuickGELU()), ("linear2", nn.Linear(E // 4, M * Dt))]
        self.meta_net = nn.Sequential(OrderedDict(layers))

    def class_tokens(self, teacher: Tensor) -> Tensor:
        """(K, M, Dt) for the teacher's normalised text features (K, E)."""
        return self.meta_net(teacher).unflatten(-1, (M, -1))


class ClassAwareCLIP(GuidedCLIP):
    """Before a given block of the text tower the tokens of each class replace what the context has become there."""

    prompt_learner: ClassAwareLearner

    def __init__(
        self,
        clip_model: CLIP,
        prompt_learner: ClassAwareLearner,
        classnames: Sequence[str],
        template: str,
        insert_layer: int,
    ):
        super().__init__(clip_model, prompt_learner, classnames, template)
        layers = clip_model.transformer.layers
        if not 1 <= insert_layer < layers:
            raise ValueError(
                f"INSERT_LAYER is {insert_layer}, but the text tower has {layers} layers: class-aware tokens can enter "
                f"before the layers 1 to {layers - 1}, counted from 0. Set TRAINER.TCP.INSERT_LAYER"
            )
        self.insert_layer = insert_layer

    def compute_text_features(self) -> Tensor:
        tokens = self.prompt_learner.class_tokens(self.teacher_features())  # (K, M, Dt)
        entering = {self.insert_layer: PromptTokens(tokens)}
        return unit(self.text_encoder(self.prompt_learner.embeddings(), self.prompt_learner.layout, entering))


def extend_cfg(cfg: CfgNode) -> None:
    """The published code reads its options from TRAINER.COOP, where W has no effect: its weight is 8.0."""
    cfg.TRAINER.TCP = CfgNode()
    cfg.TRAINER.TCP.N_CTX = M  # tokens of the context and of each class: nothing else fits the published prompts
    cfg.TRAINER.TCP.CTX_INIT = ""  # words whose first four tokens start the context; "" is random
    cfg.TRAINER.TCP.W = 8.0  # weight of the distance to the hand-written prompts' features
    cfg.TRAINER.TCP.INSERT_LAYER = 8  # of the text tower, counted from 0, that the class tokens enter before
    cfg.TRAINER.TCP.PUBLISHED_ADAM = False  # Adam with parameters and moments in fp16, as the published code runs
    cfg.TRAINER.TCP.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp


declare_ranges(
    "TRAINER.TCP",
    N_CTX=whole(M, M),
    CTX_INIT=text(),
    W=number(0),
    INSERT_LAYER=whole(1, 100),
    PUBLISHED_ADAM=flag(),
    PREC=PRECISIONS,
)


@TRAINER_REGISTRY.register()
class TCP(ClipTrainer):
    """Learned: the context, and `meta_net`, which makes tokens of each class's hand-written prompt."""

    config_node = "TCP"

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> ClassAwareCLIP:
        if options.N_CTX != M:
            raise ValueError(f"TRAINER.TCP.N_CTX is {options.N_CTX}, expected {M}: TCP's prompts have {M} tokens")
        names, prompt = dataset.classnames, PROMPTS.get(type(dataset).__name__, "{}.")
        learner = ClassAwareLearner(names, clip_model, options.CTX_INIT, prompt)
        template = template_of(dataset, TEACHER_TEMPLATES)
        return ClassAwareCLIP(clip_model, learner, names, template, options.INSERT_LAYER)

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if cfg.TRAINER.TCP.PUBLISHED_ADAM and cfg.OPTIM.NAME != "adam":
            raise ValueError(
                f"TRAINER.TCP.PUBLISHED_ADAM is True, but OPTIM.NAME is {cfg.OPTIM.NAME}: set OPTIM.NAME adam, or "
                "TRAINER.TCP.PUBLISHED_ADAM False"
            )

    def make_optimizer(self, groups: list[Any]) -> torch.optim.Optimizer:
        optim = self.cfg.OPTIM
        if not self.cfg.TRAINER.TCP.PUBLISHED_ADAM:
            return super().make_optimizer(groups)
        return HalfAdam(groups, optim.LR, (optim.ADAM_BETA1, optim.ADAM_BETA2), optim.ADAM_EPS, optim.WEIGHT_DECAY)

    def result_notes(self) -> list[str]:
        published = self.cfg.TRAINER.TCP.PUBLISHED_ADAM
        kept = "in fp16, as the published code does" if published else "in fp32; the published code in fp16"
        return [f"TRAINER.TCP.PUBLISHED_ADAM {published}: the optimizer keeps parameters and moments {kept}"]

    @capturable
    def losses(self, image: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logits, distance = self.model.logits_and_distance(image)
        return logits, {"ce": self.cross_entropy(logits, label), "score": self.cfg.TRAINER.TCP.W * distance}

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        hidden = shapes.get("meta_net.linear1.weight", ())
        own = "ctx" in shapes and len(hidden) == 2 and hidden[0] == hidden[1] // 4
        return {} if own else None

    def checkpoint_root(self) -> nn.Module:
        return self.model.prompt_learner

    def belongs_to(self) -> dict[str, Any]:
        return super().belongs_to() | {"insert_layer": self.cfg.TRAINER.TCP.INSERT_LAYER}
