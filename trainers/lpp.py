"""LP++: a linear probe blended with the class texts (Huang et al., CVPR 2024, arXiv 2404.02285).

Letters: B features of a batch, N support images, E joint width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from yacs.config import CfgNode

from clip.model import CLIP
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY

from .on_features import Features, FeatureTrainer
from .precision import PRECISIONS
from .prompted_clip import FixedTextCLIP, unit, without_autocast
from .teacher import texts_of_seven

ALPHA_PERIOD = 10  # epochs from one step of the blending weights to the next


class BlendedProbe(nn.Module):
    """A linear classifier, and for each class a weight of the similarity to its text."""

    def __init__(self, classes: int, width: int):
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.zeros(classes, width))
        self.bias = nn.Parameter(torch.empty(classes).uniform_(-bound, bound))  # as torch's Linear has it
        self.alpha_vec = nn.Parameter(torch.zeros(1, classes))


class BlendedCLIP(FixedTextCLIP):
    """W f + b + alpha_k (f · t_k) of normalised features f and t, without CLIP's temperature."""

    not_in_text = ("probe",)

    def __init__(self, clip_model: CLIP, texts: Sequence[Sequence[str]]):
        super().__init__(clip_model, texts)
        self.probe = BlendedProbe(len(texts[0]), clip_model.text_projection.shape[1])

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        with without_autocast(image_features.device):
            probe, similarity = self.probe, image_features @ text_features.t()  # (B, K)
            return F.linear(image_features, probe.weight, probe.bias) + probe.alpha_vec * similarity


class Rates:
    """What the support set gives: initial values, and the learning rates that its curvature allows.

    Args:
        features: (N, E), normalised.
        labels: (N,)
        texts: (K, E), normalised.

    Attributes:
        weight: (K, E), the sum of the features of each class.
        alpha: 250 times the mean, over classes, of the mean similarity of a class's images to its text.
        lr_weight: 4 N / λ, with λ the largest eigenvalue of FᵀF.
        lr_alpha: N / (4 max_k Σ_i (f_i · t_k)²)
    """

    def __init__(self, features: Tensor, labels: Tensor, texts: Tensor):
        N, (K, E) = len(features), texts.shape
        similarity = features @ texts.t()  # (N, K)
        of_label = similarity.gather(1, labels[:, None])[:, 0]  # (N,)
        images = labels.bincount(minlength=K)  # (K,)
        sums = similarity.new_zeros(K).index_add_(0, labels, of_label)
        self.weight = features.new_zeros(K, E).index_add_(0, labels, features)
        self.alpha = 250 * (sums / images)[images > 0].mean().item()
        gram = (features.t() @ features).cpu()  # (E, E); MPS has no eigenvalues
        self.lr_weight = 4 * N / torch.linalg.eigvalsh(gram)[-1].item()
        self.lr_alpha = N / (4 * similarity.square().sum(dim=0).max().item())


def extend_cfg(cfg: CfgNode) -> None:
    """The published code has no options for this trainer beside those of the data."""
    cfg.TRAINER.LPPP = CfgNode()
    cfg.TRAINER.LPPP.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp


declare_ranges("TRAINER.LPPP", PREC=PRECISIONS)


@TRAINER_REGISTRY.register()
class LPpp(FeatureTrainer):
    """Learned: a linear classifier, and the weight of each class's text. The best epoch by validation is kept.

    Every epoch is one step on all images, with one random view of each. OPTIM.LR is a factor of the rate that the
    images give for the classifier.
    """

    config_node = "LPPP"
    registered_name = "probe"
    class_dims = {"weight": 0, "bias": 0, "alpha_vec": 1}

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> BlendedCLIP:
        return BlendedCLIP(clip_model, texts_of_seven(dataset))

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        return {} if "alpha_vec" in shapes else None

    def checkpoint_root(self) -> nn.Module:
        return self.model.probe

    def param_groups(self, learned: Mapping[str, nn.Parameter]) -> list[Any]:
        """Without alpha, which has steps of its own."""
        return [p for name, p in learned.items() if name != "probe.alpha_vec"]

    def build_model(self) -> None:
        super().build_model()
        self.lr_weight = self.lr_alpha = 0.0
        self.alpha_grad = torch.zeros_like(self.model.probe.alpha_vec)  # the sum over all epochs
        self.best: dict[str, Tensor] = {}
        self.best_epoch, self.best_accuracy = 0, -1.0

    def fit(self) -> None:
        support, probe = self.support(views=1), self.model.probe
        with torch.no_grad():
            rates = Rates(unit(support.features[0]), support.labels, self.model.text_features())
            if not self.cfg.MODEL.INIT_WEIGHTS:
                probe.weight.copy_(rates.weight)
                probe.alpha_vec.fill_(rates.alpha)
        self.lr_weight, self.lr_alpha = rates.lr_weight, rates.lr_alpha
        print(f"LP++: alpha {rates.alpha:.4g}; learning rates {self.lr_weight:.4g}, of alpha {self.lr_alpha:.4g}")

    def feature_batches(self) -> list[Features]:
        support = self.support(views=1)
        return [Features(support.features[0], support.labels)]

    def update(self, terms: Mapping[str, Tensor]) -> Tensor:
        """A step of the classifier; every tenth epoch one of alpha, on the sum of its gradients in all epochs so far.

        The published code never sets alpha's gradient to zero. What is learned is in fp32 and nothing is computed in
        half precision after the features, so that amp's scale is not needed.
        """
        loss, probe = terms["ce"], self.model.probe
        self.detect_anomaly(loss)
        weight, bias, alpha = torch.autograd.grad(loss, [probe.weight, probe.bias, probe.alpha_vec])
        probe.weight.grad, probe.bias.grad = self.lr_weight * weight, self.lr_weight * bias
        self.optim.step()
        self.alpha_grad += alpha
        if (self.epoch + 1) % ALPHA_PERIOD == 0:
            with torch.no_grad():
                probe.alpha_vec -= self.lr_alpha * self.alpha_grad
        return loss

    @torch.no_grad()
    def after_epoch(self) -> None:
        """Keep the best epoch so far, of equal ones the last; the last epoch ends with its weights."""
        selection, probe = self.selection(), self.model.probe
        predicted = self.model.from_features(selection.features).argmax(dim=-1)
        accuracy = 100 * (predicted == selection.labels).float().mean().item()
        if accuracy >= self.best_accuracy:
            self.best_accuracy, self.best_epoch = accuracy, self.epoch + 1
            self.best = {name: p.detach().clone() for name, p in probe.named_parameters()}
        if self.epoch + 1 == self.max_epoch:
            probe.load_state_dict(self.best)
            print(f"The weights of epoch {self.best_epoch} are kept: {self.best_accuracy:.2f} % in validation")
        super().after_epoch()

    def chosen(self) -> dict[str, Any]:
        return {"epoch": self.best_epoch} if self.best_epoch else {}
