"""Features of pictures before and after a training, and the classes that are confused.

Letters: N pictures, E joint width, K classes.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dassl.utils.progress import progress
from trainers.backbone import load_clip
from trainers.prompted_clip import FrozenTowersCLIP, unit

from .classifier import Classifier
from .labelled import Labelled

FEWEST = 5  # pictures for a map
BATCH = 32


class Confusion(NamedTuple):
    """How often images of one class were taken for another one, and the number of its images."""

    true: str
    predicted: str
    times: int
    images: int


@dataclass(frozen=True)
class Encoded:
    """What the models make of N pictures."""

    pictures: list[Labelled]
    predicted: list[int]  # labels
    before: Tensor  # (N, E) normalised features of the pretrained CLIP
    after: Tensor  # (N, E) of the run

    @property
    def changed(self) -> bool:
        """Whether the method changes the features of images at all."""
        return not torch.allclose(self.before, self.after, atol=1e-4)


@torch.no_grad()
def encode(classifier: Classifier, model: FrozenTowersCLIP, pictures: Sequence[Labelled]) -> Encoded:
    """Features and predictions of pictures."""
    pretrained = load_clip(classifier.run.cfg).to(classifier.device).eval()
    before, after, predicted = [], [], []
    starts = range(0, len(pictures), BATCH)
    for start in progress(starts, "pictures", len(starts)):
        images = torch.stack([classifier.reader(one.path) for one in pictures[start : start + BATCH]])
        images = images.to(classifier.device)
        before.append(unit(pretrained.encode_image(images)).cpu())
        with classifier.trainer.precision.autocast():
            after.append(model.image_features(images).float().cpu())
        predicted += classifier.logits(images).argmax(dim=1).tolist()
    return Encoded(list(pictures), predicted, torch.cat(before), torch.cat(after))


def tsne(features: Tensor) -> np.ndarray:
    """A map (N, 2) of features (N, E) by t-SNE, the same in every run."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    return TSNE(init="pca", random_state=0, perplexity=perplexity).fit_transform(features.numpy())


def confusions(pairs: Iterable[tuple[str, str]], most: int) -> list[Confusion]:
    """The most frequent wrong predictions of (true class, predicted class) pairs; ties in the order of the names."""
    pairs = list(pairs)
    images = Counter(true for true, _ in pairs)
    wrong = Counter(pair for pair in pairs if pair[0] != pair[1])
    ranked = sorted(wrong.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [Confusion(*pair, count, images[pair[0]]) for pair, count in ranked]


def recorded_pairs(path: Path) -> list[tuple[str, str]] | None:
    """The pairs of a run's predictions.csv; None if there is none.

    Raises:
        ValueError: it is no such file.
    """
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        if not {"true_class", "predicted_class"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{path} has no columns true_class and predicted_class: delete it, or test the run again")
        return [(row["true_class"] or "", row["predicted_class"] or "") for row in rows]
