"""Tip-Adapter and Tip-Adapter-F: a cache of few-shot features (Zhang et al., ECCV 2022, arXiv 2207.09519).

The symbols are those of the paper: alpha weighs the cache against the text, beta sharpens its affinities. Letters:
N support images (the training images), V random views of each, B images, E joint width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from yacs.config import CfgNode

from clip.model import CLIP
from dassl.config.checks import list_of, number, one_of, whole
from dassl.config.ranges import declare_ranges
from dassl.engine import TRAINER_REGISTRY
from dassl.utils.progress import progress

from .on_features import SELECTION, VIEWS, Features, FeatureTrainer
from .precision import PRECISIONS
from .prompted_clip import FixedTextCLIP, unit, without_autocast
from .teacher import texts_of_seven

AT_ONCE = 2**24  # numbers in memory during a search


def extend_cfg(cfg: CfgNode) -> None:
    for name in ("TIPADAPTER", "TIPADAPTERF"):
        node = cfg.TRAINER[name] = CfgNode()
        node.VIEWS = 10  # random views that a support image's key is the mean of; 0: the test transform
        node.SEARCH_SCALE = [7.0, 3.0]  # ends of the search for beta and alpha, which start at 0.1
        node.SEARCH_STEP = [200, 20]  # values of beta and of alpha
        node.SELECT_ON = "val"  # what alpha and beta are chosen on: val, test (as published for ImageNet)
        node.PREC = "fp16"  # the towers' precision: fp32, fp16, bf16, amp
    cfg.TRAINER.TIPADAPTERF.INIT_BETA = 1.0  # while the keys are trained
    cfg.TRAINER.TIPADAPTERF.INIT_ALPHA = 1.17
    cfg.TRAINER.TIPADAPTERF.BEST_EPOCH_ON = ""  # what the epoch is chosen on: val, test (as published); "": the last


OPTIONS = {
    "VIEWS": VIEWS,
    "SEARCH_SCALE": list_of(number(above=0.1), count=2),
    "SEARCH_STEP": list_of(whole(1, 10_000), count=2),
    "SELECT_ON": SELECTION,
    "PREC": PRECISIONS,
}
declare_ranges("TRAINER.TIPADAPTER", **OPTIONS)
declare_ranges(
    "TRAINER.TIPADAPTERF",
    INIT_BETA=number(0),
    INIT_ALPHA=number(0),
    BEST_EPOCH_ON=one_of("", "val", "test"),
    **OPTIONS,
)


class Cache(nn.Module):
    """Keys (N, E) of the support images, and their labels as values (N, K), one-hot. Without images it adds nothing."""

    values: Tensor
    beta: Tensor
    alpha: Tensor

    def __init__(self, size: int, width: int, num_classes: int, learned: bool):
        super().__init__()
        self.weight: Tensor
        if learned:
            self.weight = nn.Parameter(torch.zeros(size, width))
        else:
            self.register_buffer("weight", torch.zeros(size, width))
        self.register_buffer("values", torch.zeros(size, num_classes))
        self.register_buffer("beta", torch.tensor(0.0))
        self.register_buffer("alpha", torch.tensor(0.0))

    def fill(self, keys: Tensor, labels: Tensor) -> None:
        """Keys (N, E) and labels (N,) of the support images."""
        self.weight.data = keys.clone()
        self.values.data = F.one_hot(labels, self.values.shape[1]).float()

    def set_weights(self, beta: float, alpha: float) -> None:
        self.beta.fill_(beta)
        self.alpha.fill_(alpha)

    def affinity(self, features: Tensor) -> Tensor:
        """Cosines (B, N) of normalised features (B, E) and keys, which are normalised before they are trained."""
        return features @ self.weight.t()

    def votes(self, affinity: Tensor, beta: Tensor | float) -> Tensor:
        """(B, K) of affinities (B, N): exp(-beta (1 - affinity)), summed over the images of a class."""
        return (beta * affinity - beta).exp() @ self.values


class CachedCLIP(FixedTextCLIP):
    """100 · image feature · text featureᵀ + alpha · the cache's votes."""

    not_in_text = ("cache",)

    def __init__(self, clip_model: CLIP, texts: Sequence[Sequence[str]], size: int, learned: bool):
        super().__init__(clip_model, texts)
        self.cache = Cache(size, clip_model.text_projection.shape[1], len(texts[0]), learned)

    def logits(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Zero-shot logits (B, K), with a constant in place of CLIP's scale, which is 100 in OpenAI's weights."""
        with without_autocast(image_features.device):
            return 100.0 * image_features @ text_features.t()

    def from_features(self, features: Tensor) -> Tensor:
        features = self.adapt_image(features)
        zero_shot = self.logits(features, self.text_features())
        with without_autocast(features.device):
            return zero_shot + self.cache.alpha * self.cache.votes(self.cache.affinity(features), self.cache.beta)

    @torch.no_grad()
    def count_correct(self, images: Features, betas: Sequence[float], alphas: Sequence[float]) -> Tensor:
        """(betas, alphas): for each pair the number of images that it classifies correctly."""
        found = torch.zeros(len(betas), len(alphas), dtype=torch.int64, device=images.labels.device)
        weights = torch.tensor(alphas, device=found.device)[:, None, None]  # (A, 1, 1)
        largest = max(len(self.cache.weight), len(alphas) * self.cache.values.shape[1])
        size = max(1, AT_ONCE // largest)
        parts = zip(images.features.split(size), images.labels.split(size), strict=True)
        for features, labels in progress(parts, "search", math.ceil(len(images.labels) / size)):
            features = self.adapt_image(features)  # (m, E)
            zero_shot, affinity = self.logits(features, self.text_features()), self.cache.affinity(features)
            for i, beta in enumerate(betas):
                logits = zero_shot + weights * self.cache.votes(affinity, beta)  # (A, m, K)
                found[i] += (logits.argmax(dim=-1) == labels).sum(dim=-1)
        return found


def grid(scale: float, steps: int) -> list[float]:
    """The values that are searched: they start at 0.1 and, as published, never reach `scale`."""
    return [i * (scale - 0.1) / steps + 0.1 for i in range(steps)]


def search(model: CachedCLIP, images: Features, scale: Sequence[float], steps: Sequence[int]) -> int:
    """Set beta and alpha to the first pair with the highest accuracy; returns how many images are correct with it.

    Beta is the outer loop. Where no pair has an image correct, both are 0, as published.

    Args:
        scale, steps: of beta and alpha, see `grid`.
    """
    betas, alphas = map(grid, scale, steps)
    correct = model.count_correct(images, betas, alphas).flatten().tolist()
    best = max(correct)
    i, j = divmod(correct.index(best), len(alphas))
    model.cache.set_weights(*((betas[i], alphas[j]) if best else (0.0, 0.0)))
    return best


@TRAINER_REGISTRY.register()
class TipAdapter(FeatureTrainer):
    """Nothing is learned: the keys are features of the support images, and alpha and beta are searched for."""

    config_node = "TIPADAPTER"
    registered_name = "tip_adapter"
    class_dims = {"values": 1}
    of_support = ("weight", "values")
    learned = False

    @classmethod
    def needs_epochs(cls) -> bool:
        return cls.learned

    @classmethod
    def build(cls, options: CfgNode, dataset: Any, clip_model: CLIP) -> CachedCLIP:
        return CachedCLIP(clip_model, texts_of_seven(dataset), len(getattr(dataset, "train_x", ())), cls.learned)

    def checkpoint_root(self) -> nn.Module:
        return self.model.cache

    @classmethod
    def options_for(cls, shapes: Mapping[str, tuple[int, ...]], options: CfgNode) -> dict[str, Any] | None:
        return {} if shapes.keys() == {"weight", "values", "alpha", "beta"} else None

    def fill_cache(self, features: Tensor, labels: Tensor) -> None:
        """Of the features (V, N, E) of random views, or those of the images (N, E), not normalised."""
        mean = features.float().mean(dim=0) if features.dim() == 3 else features
        self.model.cache.fill(unit(mean), labels)

    def fit(self) -> None:
        support = self.support(self.options_of(self.cfg).VIEWS)
        self.fill_cache(support.features, support.labels)
        self.search()

    def search(self) -> None:
        """Choose beta and alpha for the keys as they are."""
        self.set_model_mode("eval")
        options = self.options_of(self.cfg)
        images = self.selection()
        correct = search(self.model, images, options.SEARCH_SCALE, options.SEARCH_STEP)
        total, where = len(images.labels), "test" if options.SELECT_ON == "test" else "held-out"
        chosen = ", ".join(f"{name} {value:g}" for name, value in self.chosen().items())
        print(f"Search on {total} {where} images: {chosen}, accuracy {100 * correct / total:.2f} %")

    def chosen(self) -> dict[str, float]:
        cache = self.model.cache
        return {name: round(getattr(cache, name).item(), 6) for name in ("beta", "alpha")}


@TRAINER_REGISTRY.register()
class TipAdapterF(TipAdapter):
    """Learned: the keys. Each epoch takes a new view of every support image; then alpha and beta are searched for.

    As published the learning rate falls to 0 along a cosine, in every step.
    """

    config_node = "TIPADAPTERF"
    registered_name = "tip_adapter_f"
    learned = True

    def check_cfg(self, cfg: CfgNode) -> None:
        super().check_cfg(cfg)
        if cfg.TEST.FINAL_MODEL == "best_val":
            raise ValueError(
                "TEST.FINAL_MODEL best_val: TipAdapterF searches for alpha and beta after its last epoch. Use "
                "last_step, and TRAINER.TIPADAPTERF.BEST_EPOCH_ON val to choose the epoch on validation images"
            )

    def build_model(self) -> None:
        super().build_model()
        self.best_keys: Tensor | None = None
        self.best_correct = 0

    def views(self) -> Features:
        """Features of the random views that the keys are the mean of, then of one view for each epoch."""
        return self.support(self.options_of(self.cfg).VIEWS + self.max_epoch)

    def fit(self) -> None:
        options = self.options_of(self.cfg)
        support = self.views() if options.VIEWS else self.support()
        features = support.features[: options.VIEWS] if options.VIEWS else support.features
        self.fill_cache(features, support.labels)
        self.model.cache.set_weights(options.INIT_BETA, options.INIT_ALPHA)

    def feature_batches(self) -> Iterable[Features]:
        views = self.views()
        return self.shuffled(views.features[self.options_of(self.cfg).VIEWS + self.epoch], views.labels)

    def after_epoch(self) -> None:
        """Keep the keys of the best epoch so far, the first of equal ones; after the last, search."""
        last, cache, chosen_on = self.epoch + 1 == self.max_epoch, self.model.cache, self._epoch_chosen_on()
        if chosen_on:
            correct = self.correct(chosen_on)
            if correct > self.best_correct or self.best_keys is None:
                self.best_keys, self.best_correct = cache.weight.detach().clone(), correct
        if last:
            if chosen_on:
                cache.weight.data.copy_(self.best_keys)
            self.search()
            self._undo_search_as_published()
        super().after_epoch()

    def correct(self, images: Features) -> int:
        """The number of images that are classified correctly."""
        self.set_model_mode("eval")
        cache = self.model.cache
        return int(self.model.count_correct(images, [cache.beta.item()], [cache.alpha.item()]))

    def _epoch_chosen_on(self) -> Features | None:
        on = self.options_of(self.cfg).BEST_EPOCH_ON
        return self.selection(on) if on else None

    def _undo_search_as_published(self) -> None:
        """With BEST_EPOCH_ON test, go back to the initial alpha and beta where they do better on the test images."""
        options = self.options_of(self.cfg)
        if options.BEST_EPOCH_ON == "test" and self.correct(self.selection("test")) < self.best_correct:
            self.model.cache.set_weights(options.INIT_BETA, options.INIT_ALPHA)

    def result_notes(self) -> list[str]:
        if self.options_of(self.cfg).BEST_EPOCH_ON != "test":
            return super().result_notes()
        note = "the epoch was chosen on the test images, as the published code does: the accuracy is too high"
        return [*super().result_notes(), note]
