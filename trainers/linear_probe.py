"""A linear probe by logistic regression (Radford et al., 2021), as CoOp's lpclip trains it.

Letters: N images, B features of a batch, E joint width, K classes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from clip.model import CLIP
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY

from .on_features import SELECTION, Features, FeatureTrainer
from .precision import PRECISIONS
from .prompted_clip import FrozenTowersCLIP, without_autocast

GRID = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)  # inverse strengths of the regularisation, C
STEPS = 8  # of the binary search
Classifier = tuple[np.ndarray, np.ndarray]  # weight (K, E) and bias (K,)


class Probe(nn.Module):
    """A linear classifier, and the C that it was trained with."""

    C: Tensor  # ()

    def __init__(self, classes: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, width))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.register_buffer("C", torch.zeros((), dtype=torch.float64))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Probe:
        """C stays on the CPU: MPS has no double precision."""
        C = self._buffers.pop("C")
        super()._apply(fn, recurse)
        self._buffers["C"] = C
        return self


class ProbedCLIP(FrozenTowersCLIP):
    """W f + b of features f that are not normalised; no texts."""

    def __init__(self, clip_model: CLIP, classes: int):
        super().__init__(clip_model)
        self.probe = Probe(classes, clip_model.text_projection.shape[1])

    def from_features(self, features: Tensor) -> Tensor:
        with without_autocast(features.device):
            return nn.functional.linear(features.float(), self.probe.weight, self.probe.bias)


def regress(features: np.ndarray, labels: np.ndarray, C: float, classes: int, tolerance: float = 1e-4) -> Classifier:
    """The classifier that minimises C Σ cross entropy + ½ |W|².

    Args:
        features: (N, E)
        labels: (N,)
        tolerance: of the solver, by default scikit-learn's own: with a large C it stops far from the minimum, and a
            closer one has other accuracies, so that the search ends elsewhere.

    Raises:
        ValueError: there is one class, or one without images.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if len(found := np.unique(labels)) < max(classes, 2):
        raise ValueError(
            f"a linear probe needs at least two classes, and images of every class: there are some of {len(found)} of "
            f"{classes}. Add training images, or take the other classes out of the data"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the published number of iterations
        fitted = LogisticRegression(C=C, max_iter=1000, tol=tolerance).fit(features, labels)
    weight, bias = fitted.coef_, fitted.intercept_
    if classes == 2:  # one row, for the second class
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    return weight, bias


def search(accuracy: Callable[[float], float]) -> float:
    """The C that CoOp's search ends with: the best of a grid, then a binary search around it, in which a tie goes left.

    Args:
        accuracy: of the validation images, as a function of C.
    """
    peak = max(GRID, key=accuracy)  # the first of equal ones
    left, right, final = peak / 10, peak * 10, peak
    for _ in range(STEPS):
        middle = math.sqrt(left * right)
        if accuracy(left) < accuracy(right):
            final, left = right, middle
        else:
            final, right = left, middle
    return final


def extend_cfg(cfg: CfgNode) -> None:
    cfg.TRAINER.LINEAR_PROBE = CfgNode()
    cfg.TRAINER.LINEAR_PROBE.SELECT_ON = "val"  # images that C is chosen on: val, or test as published for ImageNet
    cfg.TRAINER.LINEAR_PROBE.PREC = "fp16"  # the image tower's precision: fp32, fp16, bf16, amp


declare_ranges("TRAINER.LINEAR_PROBE", SELECT_ON=SELECTION, PREC=PRECISIONS)


@TRAINER_REGISTRY.register()
class LinearProbe(FeatureTrainer):
    """Learned: a linear classifier, by scikit-learn's solver: there are no epochs."""

    config_node = "LINEAR_PROBE"
    registered_name = "probe"
    class_dims = {"weight": 0, "bias": 0}

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> ProbedCLIP:
        return ProbedCLIP(clip_model, len(dataset.classnames))

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        return {} if shapes.keys() == {"weight", "bias", "C"} else None

    def checkpoint_root(self) -> nn.Module:
        return self.model.probe

    def build_model(self) -> None:
        super().build_model()
        self.max_epoch = 0

    def fit(self) -> None:
        (features, labels), (chosen_on, expected) = _arrays(self.support()), _arrays(self.selection())

        @cache
        def classifier(C: float) -> Classifier:
            return regress(features, labels, C, self.num_classes)

        def accuracy(C: float) -> float:
            weight, bias = classifier(C)
            return float(np.mean(np.argmax(chosen_on @ weight.T + bias, axis=1) == expected))

        C = search(accuracy)
        print(f"Linear probe: C {C:.4g}, {100 * accuracy(C):.2f} % in validation")
        probe = self.model.probe
        with torch.no_grad():
            for tensor, value in zip((probe.weight, probe.bias, probe.C), (*classifier(C), C), strict=True):
                tensor.copy_(torch.as_tensor(value, dtype=tensor.dtype))

    def chosen(self) -> dict[str, Any]:
        return {"C": self.model.probe.C.item()}


def _arrays(images: Features) -> tuple[np.ndarray, np.ndarray]:
    """In double precision."""
    return images.features.cpu().double().numpy(), images.labels.cpu().numpy()
