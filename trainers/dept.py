"""DePT: decoupled prompt tuning, on CoOp, KgCoOp or MaPLe (Zhang et al., CVPR 2024, arXiv 2309.07439).

Letters: B images, K classes, E joint width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from clip.model import CLIP
from dassl.config.checks import number, one_of
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY

from .checkpoint import rows_of
from .graphs import capturable
from .on_base import MethodOnBase
from .prompted_clip import PromptedCLIP, unit, without_autocast
from .teacher import GuidedCLIP, text_distance

LINEAR_HEAD = "linear_probe_proj"
NEW = ("film_lp_img", "film_lp_text", LINEAR_HEAD)  # what DePT adds to the base


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.DEPT = CfgNode()
    cfg.TRAINER.DEPT.BASE = "CoOp"  # the method that gets a linear head: CoOp, KgCoOp, MaPLe
    cfg.TRAINER.DEPT.WEIGHT = 0.7  # share of the linear head in the loss and in the logits; the rest is the base's
    cfg.TRAINER.DEPT.LR_FACTOR = 6.5  # learning rate of what is not the base's, as a multiple of OPTIM.LR


declare_ranges("TRAINER.DEPT", BASE=one_of("CoOp", "KgCoOp", "MaPLe"), WEIGHT=number(0, 1), LR_FACTOR=number(above=0))


class FiLM(nn.Module):
    """scale ⊙ x + bias, the identity at first."""

    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.bias


class DecoupledCLIP(PromptedCLIP):
    """A prompted CLIP beside a linear head over the K classes that it is trained on.

    The head takes the raw features, through a FiLM layer of each tower's own, and the similarity the normalised ones.

    Args:
        weight: of the head's logits; the similarity's have 1 - weight.
    """

    not_in_text = NEW

    def __init__(self, clip_model: CLIP, base: PromptedCLIP, classes: int, weight: float):
        super().__init__(clip_model, base.prompt_learner)
        self.teacher = base.teacher if isinstance(base, GuidedCLIP) else None
        E = clip_model.text_projection.shape[1]
        self.film_lp_img, self.film_lp_text = FiLM(E), FiLM(E)
        self.linear_probe_proj = nn.Linear(E, classes)
        self.weight = weight
        self.fused = True  # False: the head was trained on other classes, so that the similarity is all there is

    def head_logits(self, film: nn.Module, features: Tensor) -> Tensor:
        """(N, K) in fp32 of raw features (N, E)."""
        with without_autocast(features.device):
            return self.linear_probe_proj(film(features.float()))

    def fuse(self, similarity: Tensor, head: Tensor) -> Tensor:
        return (1 - self.weight) * similarity + self.weight * head

    def from_features(self, features: Tensor) -> Tensor:
        similarity = super().from_features(features)  # (B, K)
        return self.fuse(similarity, self.head_logits(self.film_lp_img, features)) if self.fused else similarity


def has_rows(head: Mapping[str, Tensor], count: int) -> bool:
    """Whether the weight and the bias of a linear head have so many rows."""
    return all(value.shape[:1] == (count,) for value in head.values())


@TRAINER_REGISTRY.register()
class DePT(MethodOnBase):
    """Learned: what the base learns, two FiLM layers and a linear head."""

    config_node = "DEPT"
    folders = {"CoOp": "PromptLearner", "KgCoOp": "PromptLearner", "MaPLe": "MultiModalPromptLearner"}

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> DecoupledCLIP:
        if options.get("CSC"):
            raise ValueError(f"DePT needs one context for all classes: set TRAINER.{options.BASE.upper()}.CSC False")
        base = TRAINER_REGISTRY.get(options.BASE).build(options, dataset, clip_model)
        return DecoupledCLIP(clip_model, base, len(dataset.classnames), options.WEIGHT)

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        if f"{LINEAR_HEAD}.weight" not in shapes:
            return None
        learned = {name: shape for name, shape in shapes.items() if not name.startswith(NEW)}
        if "prompt_learner.proj.weight" in shapes:
            base = "MaPLe"
        else:  # the shapes are the same for both
            base = "KgCoOp" if options.BASE == "KgCoOp" else "CoOp"
            prefix = "prompt_learner."
            learned = {name.removeprefix(prefix): shape for name, shape in learned.items() if name.startswith(prefix)}
        needed = TRAINER_REGISTRY.get(base).options_for(learned, options)
        return needed and {"BASE": base, **needed}

    def param_groups(self, learned: Mapping[str, nn.Parameter]) -> list[Any]:
        new = [p for name, p in learned.items() if name.startswith(NEW)]
        of_base = [p for name, p in learned.items() if not name.startswith(NEW)]
        rate = self.cfg.OPTIM.LR * self.cfg.TRAINER.DEPT.LR_FACTOR
        return [{"params": of_base}, {"params": new, "lr": rate}]

    @capturable
    def losses(self, image: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The head sees each image's features, and the text features of its class."""
        model, weight = self.model, self.cfg.TRAINER.DEPT.WEIGHT
        image_features, text = model.encode_image(image), model.encode_text()  # (B, E), (K, E)
        similarity = model.logits(unit(image_features), unit(text))  # (B, K)
        of_texts = model.head_logits(model.film_lp_text, text[label])  # (B, K)
        of_images = model.head_logits(model.film_lp_img, image_features)  # (B, K)
        head = torch.cat([of_texts, of_images])  # (2B, K)
        terms = {
            "ce": (1 - weight) * self.cross_entropy(similarity, label),
            "ce_lp": weight * self.cross_entropy(head, label.repeat(2)),
        }
        if model.teacher is not None:  # KgCoOp's term, outside of the two shares
            distance = text_distance(unit(text), model.teacher.features(model.text_encoder))
            terms["score"] = self.cfg.TRAINER.KGCOOP.W * distance
        return model.fuse(similarity, of_images), terms

    def before_epoch(self) -> None:
        self.model.fused = True

    def belongs_to(self) -> dict[str, Any]:
        """The classes of the head's rows, too."""
        return super().belongs_to() | {"classes": list(self.dm.dataset.classnames)}

    def read_weights(self, path: str) -> dict[str, Any]:
        """The checkpoint with the head's rows of the classes at hand, or with the model's own head if one is new.

        A published file does not say which classes it was trained on: if it has as many rows as there are classes,
        they are taken to be these, other than for the new classes of a data set.
        """
        checkpoint = super().read_weights(path)
        state, saved = checkpoint["state_dict"], checkpoint.get("belongs_to") or {}
        head = {name: value for name, value in state.items() if name.startswith(f"{LINEAR_HEAD}.")}
        if not head:
            return checkpoint
        classnames = list(self.dm.dataset.classnames)
        trained = saved.get("classes")
        if trained is None and self.cfg.DATASET.SUBSAMPLE_CLASSES != "new" and has_rows(head, len(classnames)):
            trained = classnames
        if trained is not None and not (isinstance(trained, list) and has_rows(head, len(trained))):
            raise ValueError(f"{path}: belongs_to.classes does not have a name for each row of {LINEAR_HEAD}")
        rows = rows_of(classnames, trained or [])
        if rows is None:
            print(f"{path}: the linear head is for other classes, so that the prompts alone are tested")
            own = self.model.linear_probe_proj.state_dict(prefix=f"{LINEAR_HEAD}.")
            head = {name: own.get(name, value) for name, value in head.items()}
        else:
            head = {name: value[rows] for name, value in head.items()}
        self.model.fused = rows is not None
        return {**checkpoint, "state_dict": {**state, **head}, "belongs_to": {**saved, "classes": classnames}}
