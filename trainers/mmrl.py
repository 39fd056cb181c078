"""MMRL: multi-modal representation learning (Guo and Gu, CVPR 2025, arXiv 2503.08497), and MMRL++, which learns less
(IJCV 2026, arXiv 2505.10088).

Both learn a few tokens in a space of their own, which maps bring into the upper layers of both towers, and a second
image feature that is read from these tokens. Class token and text are held close to the frozen CLIP, the tokens not.

Letters: B images, K classes, R width of the tokens, J layers that they enter, Dv vision width, E joint width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from clip.model import CLIP, require_vit
from dassl.config.checks import flag, list_of, number, one_of, whole
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY

from .base import ClipTrainer
from .graphs import capturable
from .precision import PRECISIONS
from .prompts import DEFAULT_TEMPLATE, fill
from .representations import (
    LowRankCLIP,
    RepresentationCLIP,
    RepresentationLearner,
    SeparateMaps,
    SharedMaps,
    check_layers,
    low_rank,
)
from .teacher import text_distance

# The published code's BETA of MMRL++ for each data set that ImageNet's weights are tested on
TARGET_BETAS = {
    **{"ImageNet": 0.9, "Caltech101": 0.6, "OxfordPets": 0.6, "StanfordCars": 0.3, "OxfordFlowers": 0.4},
    **{"Food101": 0.3, "FGVCAircraft": 0.9, "SUN397": 0.7, "DescribableTextures": 0.5, "EuroSAT": 0.3},
    **{"UCF101": 0.9, "ImageNetV2": 0.9, "ImageNetR": 0.9, "ImageNetA": 0.8, "ImageNetSketch": 0.7},
}


def extend_cfg(cfg: CfgNode) -> None:
    """The published code also takes REG_WEIGHT, BETA and REP_DIM from a table of data sets: experiments/methods.py."""
    cfg.TRAINER.MMRL = CfgNode()
    cfg.TRAINER.MMRL.ALPHA = 0.7  # share of the class head in the loss and in the fused logits
    cfg.TRAINER.MMRL.REG_WEIGHT = 0.5  # of the distances of class and text features from the frozen CLIP's
    cfg.TRAINER.MMRL.N_REP_TOKENS = 5  # representation tokens
    cfg.TRAINER.MMRL.REP_LAYERS = list(range(6, 13))  # layers that they enter, counted from 1
    cfg.TRAINER.MMRL.REP_DIM = 512  # width of their space
    # Logits of a test: fusion of both heads, class head, or auto: fusion on the data and classes trained on
    cfg.TRAINER.MMRL.READ_OUT = "auto"
    cfg.TRAINER.MMRL.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp

    cfg.TRAINER.MMRLpp = cfg.TRAINER.MMRL.clone()
    cfg.TRAINER.MMRLpp.BETA = 0.9  # share of a layer's own tokens; the rest is what the tokens before have become
    # Test on another data set with the published BETA for it, which was chosen for its test; False: the training's
    cfg.TRAINER.MMRLpp.TARGET_BETA = False
    cfg.TRAINER.MMRLpp.PROJ_LORA_DIM = 64  # rank of the addition to the projection of the representation head
    cfg.TRAINER.MMRLpp.RES_LORA_DIM = 4  # rank of each layer's addition to the shared maps


COMMON = {
    **{"ALPHA": number(0, 1), "REG_WEIGHT": number(0), "N_REP_TOKENS": whole(1, 1000), "REP_DIM": whole(1, 65536)},
    **{"REP_LAYERS": list_of(whole(1, 100), least=1), "READ_OUT": one_of("auto", "fusion", "class")},
    **{"PREC": PRECISIONS},
}
RANK = whole(1, 65536)
declare_ranges("TRAINER.MMRL", **COMMON)
declare_ranges("TRAINER.MMRLpp", **COMMON, BETA=number(0, 1), TARGET_BETA=flag(), PROJ_LORA_DIM=RANK, RES_LORA_DIM=RANK)


def layers_for(J: int, layers: Sequence[int]) -> dict[str, Any]:
    """REP_LAYERS with J entries, if those in the settings are not as many: the shapes of tensors do not tell which."""
    last = max(J, *layers)
    return {} if len(layers) == J else {"REP_LAYERS": list(range(last - J + 1, last + 1))}


@TRAINER_REGISTRY.register()
class MMRL(ClipTrainer):
    """Learned: the tokens, two maps for each layer, and the projection of the representation head."""

    config_node = "MMRL"
    registered_name = "MultiModalRepresentationLearner"
    not_loaded = (*ClipTrainer.not_loaded, "prompt_embeddings")

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> RepresentationCLIP:
        layers, tower, R = check_layers(options.REP_LAYERS, clip_model), require_vit(clip_model), options.REP_DIM
        Dv, E = tower.proj.shape
        vision, text = (SeparateMaps(R, D, len(layers)) for D in (Dv, clip_model.transformer.width))
        names = ("compound_rep_tokens_r2vproj", "compound_rep_tokens_r2tproj")
        learner = RepresentationLearner(options.N_REP_TOKENS, R, names, vision, text)
        tower.register_parameter("proj_rep", nn.Parameter(torch.randn(Dv, E) * Dv**-0.5))
        return RepresentationCLIP(clip_model, learner, cls.prompts(dataset), layers, options.ALPHA)

    @staticmethod
    def prompts(dataset: Any) -> list[str]:
        return fill(getattr(dataset, "template", DEFAULT_TEMPLATE), dataset.classnames)

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        tokens = shapes.get("representation_learner.compound_rep_tokens", ())
        J = sum(".compound_rep_tokens_r2tproj." in name and name.endswith(".weight") for name in shapes)
        if len(tokens) != 2 or not J:
            return None
        return {"N_REP_TOKENS": tokens[0], "REP_DIM": tokens[1], **layers_for(J, options.REP_LAYERS)}

    @capturable
    def losses(self, image: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy of both heads, and the class and text features' distances from the frozen CLIP's."""
        options, model = self.options_of(self.cfg), self.model
        features, text = model.encode_image(image), model.text_features()  # (B, 2, E), (K, E)
        by_class, by_tokens = model.both_logits(features, text)  # (B, K) each
        drift = 1 - (model.adapt_image(features) * model.without_prompts(image)).sum(dim=-1).mean()
        return model.fuse(by_class, by_tokens), {
            "ce_class": options.ALPHA * self.cross_entropy(by_class, label),
            "ce_rep": (1 - options.ALPHA) * self.cross_entropy(by_tokens, label),
            "reg_image": options.REG_WEIGHT * drift,
            "reg_text": options.REG_WEIGHT * text_distance(text, model.teacher_features()),
        }

    def build_model(self) -> None:
        self.trained_on: Any = self.tested_on()
        super().build_model()
        self.choose_read_out()

    def before_train(self) -> None:
        super().before_train()
        self.trained_on = self.tested_on()  # whatever INIT_WEIGHTS were trained on
        self.choose_read_out()

    def read_weights(self, path: str) -> dict[str, Any]:
        """What the weights were trained on decides how they are read out, and need not be what they are tested on."""
        checkpoint = super().read_weights(path)
        saved = dict(checkpoint.get("belongs_to") or {})
        self.trained_on = saved.pop("trained_on", None)
        self.choose_read_out()
        return {**checkpoint, "belongs_to": saved}

    def tested_on(self) -> dict[str, Any]:
        """The data set and its classes."""
        return {"dataset": self.cfg.DATASET.NAME, "classes": [str(name) for name in self.dm.dataset.classnames]}

    def belongs_to(self) -> dict[str, Any]:
        layers = list(self.options_of(self.cfg).REP_LAYERS)
        return super().belongs_to() | {"rep_layers": layers, "trained_on": self.tested_on()}

    def choose_read_out(self) -> None:
        """The fusion of both heads where the weights were trained on the data set and classes at hand, else the class
        head, as the published code has it for each of its tasks; or what READ_OUT says.
        """
        read_out = self.options_of(self.cfg).READ_OUT
        self.model.fused = read_out == "fusion" or (read_out == "auto" and self.knows_classes())

    def knows_classes(self) -> bool:
        """Whether the weights were trained on the data set and classes at hand.

        Published files do not say: they are taken for weights of base classes or of ImageNet where these are tested.
        """
        if self.trained_on is None:
            classes = self.cfg.DATASET.SUBSAMPLE_CLASSES
            return classes == "base" or (classes == "all" and self.cfg.DATASET.NAME == "ImageNet")
        return bool(self.trained_on == self.tested_on())

    def result_notes(self) -> list[str]:
        read_out = self.options_of(self.cfg).READ_OUT
        logits = "both heads" if self.model.fused else "the class head alone"
        reason = f"the weights were trained on {'these' if self.knows_classes() else 'other data or'} classes"
        if self.trained_on is None:
            reason = "the weights do not say on which classes they were trained"
        return [f"TRAINER.{self.config_node}.READ_OUT {read_out}: logits of {logits}; {reason}"]


@TRAINER_REGISTRY.register()
class MMRLpp(MMRL):
    """Learned: the tokens, shared maps with a small addition for each layer, and one to the pretrained projection."""

    config_node = "MMRLpp"

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> LowRankCLIP:
        layers, tower, R = check_layers(options.REP_LAYERS, clip_model), require_vit(clip_model), options.REP_DIM
        Dv, E = tower.proj.shape
        widths = (Dv, clip_model.transformer.width)
        vision, text = (SharedMaps(R, D, len(layers), options.RES_LORA_DIM) for D in widths)
        learner = RepresentationLearner(options.N_REP_TOKENS, R, ("srra_r2vproj", "srra_r2tproj"), vision, text)
        for name, factor in zip("AB", low_rank(Dv, options.PROJ_LORA_DIM, E), strict=True):
            tower.register_parameter(name, factor)
        return LowRankCLIP(clip_model, learner, cls.prompts(dataset), layers, options.ALPHA, options.BETA)

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        tokens = shapes.get("representation_learner.compound_rep_tokens", ())
        of_layer = shapes.get("representation_learner.srra_r2tproj.srra.0.A", ())
        of_head = shapes.get("image_encoder.A", ())
        if not len(tokens) == len(of_layer) == len(of_head) == 2:
            return None
        J = sum(".srra_r2tproj.srra." in name and name.endswith(".A") for name in shapes)
        ranks = {"PROJ_LORA_DIM": of_head[1], "RES_LORA_DIM": of_layer[1]}
        return {"N_REP_TOKENS": tokens[0], "REP_DIM": tokens[1], **ranks, **layers_for(J, options.REP_LAYERS)}

    def belongs_to(self) -> dict[str, Any]:
        return super().belongs_to() | {"beta": self.cfg.TRAINER.MMRLpp.BETA}

    def choose_read_out(self) -> None:
        """With TARGET_BETA, also the tokens' shares for another data set than the one trained on."""
        super().choose_read_out()
        self.model.beta = self.beta()

    def beta(self) -> float:
        options, tested = self.cfg.TRAINER.MMRLpp, self.cfg.DATASET.NAME
        trained = self.trained_on.get("dataset") if isinstance(self.trained_on, dict) else None
        return TARGET_BETAS.get(tested, options.BETA) if options.TARGET_BETA and trained != tested else options.BETA

    def result_notes(self) -> list[str]:
        notes, beta, trained = super().result_notes(), self.beta(), self.cfg.TRAINER.MMRLpp.BETA
        if beta != trained:
            notes.append(
                f"TRAINER.MMRLpp.TARGET_BETA True: BETA {beta:g}, which the published code has for this data set as a "
                f"target, instead of the training's {trained:g}: it is tuned on the target"
            )
        return notes
