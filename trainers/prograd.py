"""ProGrad: prompt-aligned gradients (Zhu et al., ICCV 2023, arXiv 2205.14865).

Letters: B images, K classes, M context tokens, E joint width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from yacs.config import CfgNode

from clip.model import CLIP
from dassl.config.checks import flag, number, one_of
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY
from dassl.engine.loops import take_out_opposing

from .base import ClipTrainer
from .precision import PRECISIONS
from .prompts import POSITIONS, TEXT_CTX, ContextLearner, tokenize
from .teacher import GuidedCLIP, template_of

# The published templates of the teacher and of the initial context, where they are not the data set's own
TEMPLATES = {
    "OxfordPets": "a type of pet, a photo of a {}.",
    "OxfordFlowers": "a type of flower, a photo of a {}.",
    "FGVCAircraft": "a type of aircraft, a photo of a {}.",
    "DescribableTextures": "a texture of {}.",
    "Food101": "a type of food, a photo of {}.",
}


def extend_cfg(cfg: CfgNode) -> None:
    """The published code reads its options from TRAINER.COOP, and T and LAMBDA from LOSS."""
    cfg.TRAINER.PROGRAD = CfgNode()
    cfg.TRAINER.PROGRAD.N_CTX = 16  # context tokens
    cfg.TRAINER.PROGRAD.CSC = False  # class-specific contexts instead of one for all classes
    cfg.TRAINER.PROGRAD.CTX_INIT = True  # start the context from the words of the teacher's template; False: random
    cfg.TRAINER.PROGRAD.CLASS_TOKEN_POSITION = "end"  # end, middle or front
    cfg.TRAINER.PROGRAD.T = 1.0  # temperature of the divergence from the teacher
    cfg.TRAINER.PROGRAD.LAMBDA = 1.0  # share of the opposing part of a gradient that is taken out
    cfg.TRAINER.PROGRAD.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp


declare_ranges(
    "TRAINER.PROGRAD",
    N_CTX=TEXT_CTX,
    CSC=flag(),
    CTX_INIT=flag(),
    CLASS_TOKEN_POSITION=one_of(*POSITIONS),
    T=number(above=0),
    LAMBDA=number(0),
    PREC=PRECISIONS,
)


def context_from(
    template: str, classnames: Sequence[str], clip_model: CLIP, n_ctx: int, csc: bool, position: str
) -> ContextLearner:
    """A context of zeros that ends with the embeddings of the template's words before the class name.

    As published, n words start from their first n tokens. A comma is a token, too, so that the last word of "a type of
    pet, a photo of a" stays a fixed token between the context and the class name.

    Raises:
        ValueError: there are no words before the class name, or more than `n_ctx`; or such a token stays, and the class
            name is not at the end.
    """
    words = template.partition("{}")[0].split()
    if not 0 < len(words) <= n_ctx:
        raise ValueError(
            f"TRAINER.PROGRAD.CTX_INIT starts {n_ctx} context tokens (N_CTX) from the words before the class name, of "
            f"which {template!r} has {len(words)}: set N_CTX to at least their number, or CTX_INIT to False (random)"
        )
    if position != "end" and len(tokenize([" ".join(words)])[0]) > 2 + len(words):
        raise ValueError(
            f"TRAINER.PROGRAD.CLASS_TOKEN_POSITION is {position}, but of {template!r} a token stays between the context"
            " and the class name: use end, or CTX_INIT False (random)"
        )
    placeholders = n_ctx - len(words)
    learner = ContextLearner(classnames, clip_model, n_ctx, " ".join(["X"] * placeholders + words), csc, position)
    with torch.no_grad():
        learner.ctx[..., :placeholders, :] = 0  # of (M, Dt), or (K, M, Dt) with csc
    return learner


@TRAINER_REGISTRY.register()
class ProGrad(ClipTrainer):
    """Learned: CoOp's context, by steps that do not go against what the pretrained CLIP knows."""

    config_node = "PROGRAD"

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> GuidedCLIP:
        template, names = template_of(dataset, TEMPLATES), dataset.classnames
        shape = {"n_ctx": options.N_CTX, "csc": options.CSC, "position": options.CLASS_TOKEN_POSITION}
        if options.CTX_INIT:
            learner = context_from(template, names, clip_model, **shape)
        else:
            learner = ContextLearner(names, clip_model, **shape)
        return GuidedCLIP(clip_model, learner, names, template)

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        if shapes.keys() != {"ctx"} or len(shapes["ctx"]) not in (2, 3):
            return None
        return {"N_CTX": shapes["ctx"][-2], "CSC": len(shapes["ctx"]) == 3}

    def checkpoint_root(self) -> nn.Module:
        return self.model.prompt_learner

    def losses(self, image: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy, and the divergence from the teacher, the same towers with a hand-written prompt (equation 3).

        The divergence is a cross entropy with the teacher's probabilities: a constant more than the divergence itself.
        """
        T, model = self.cfg.TRAINER.PROGRAD.T, self.model
        image_features = model.image_features(image)  # (B, E), which nothing that is learned changes
        logits = model.logits(image_features, model.text_features())  # (B, K)
        soft = (model.logits(image_features, model.teacher_features()) / T).softmax(dim=-1)  # (B, K)
        kl = T**2 * F.cross_entropy(logits / T, soft)
        return logits, {"ce": self.cross_entropy(logits, label), "kl": kl}

    def _divergence(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Of its gradient only the direction counts, so amp's scale, which keeps it from vanishing in fp16, does not
        change the step.
        """
        return terms["kl"] if self.scaler is None else self.scaler.scale(terms["kl"])

    def update(self, terms: Mapping[str, Tensor]) -> Tensor:
        """One optimizer step on the cross entropy alone, which is returned, without what opposes the divergence."""
        self.prograd_backward_and_update(terms["ce"], self._divergence(terms), self.cfg.TRAINER.PROGRAD.LAMBDA)
        return terms["ce"]

    def update_in_pieces(self, pieces: Iterable[Mapping[str, Tensor]]) -> Tensor:
        learned = [p for p in self.model.parameters() if p.requires_grad]
        against, total = [torch.zeros_like(p) for p in learned], torch.zeros((), device=self.device)
        self.model_zero_grad()
        for terms in pieces:
            of_piece = torch.autograd.grad(self._divergence(terms), learned, retain_graph=True)
            for total_of, gradient in zip(against, of_piece, strict=True):
                total_of += gradient
            self.model_backward(terms["ce"])
            total += terms["ce"].detach()
        take_out_opposing(learned, against, self.cfg.TRAINER.PROGRAD.LAMBDA)
        self.model_update()
        return total
