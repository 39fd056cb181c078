"""The tables that a test writes. Letters: B images, K classes."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dassl.utils.console import utf8_text
from dassl.utils.files import atomic_write

__all__ = ["relative_to", "write_confusion_counts", "write_predictions"]


def write_predictions(
    path: str | Path,
    images: Sequence[str],
    classnames: Sequence[str],
    labels: Sequence[int],
    top_classes: np.ndarray,
    top_scores: np.ndarray,
) -> None:
    """Write one row per image: the image, its class, the predicted class and its score, the best classes with scores.

    Args:
        images: B names of images.
        classnames: K names.
        labels: B true labels.
        top_classes: (B, min(K, 5)) labels, the highest score first.
        top_scores: (B, min(K, 5)) their softmax probabilities.
    """
    numbers = range(1, top_classes.shape[1] + 1)
    header = ["image", "true_class", "predicted_class", "score"]
    header += [f"top{number}_{what}" for number in numbers for what in ("class", "score")]

    def rows() -> Iterable[list[str]]:
        for image, label, best, scores in zip(images, labels, top_classes.tolist(), top_scores.tolist(), strict=True):
            pairs = [(classnames[one], f"{score:.6g}") for one, score in zip(best, scores, strict=True)]
            yield [image, classnames[label], *pairs[0], *(word for pair in pairs for word in pair)]

    _write_csv(path, header, rows())


def write_confusion_counts(path: str | Path, classnames: Sequence[str], counts: np.ndarray) -> None:
    """Write the confusion matrix (K, K): a row per true class, a column per predicted class, numbers of images."""
    rows = ([name, *row] for name, row in zip(classnames, counts.tolist(), strict=True))
    _write_csv(path, ["true class", *classnames], rows)


def relative_to(root: str, image: str) -> str:
    """The path of an image below ``root``, with slashes; one that is elsewhere stays as it is."""
    path = Path(image)
    return path.relative_to(root).as_posix() if root and path.is_relative_to(root) else image


def _write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with atomic_write(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text)  # with its \r\n, which has both characters quoted in names
        for row in (header, *rows):
            writer.writerow([utf8_text(cell) if isinstance(cell, str) else cell for cell in row])
        text.flush()
        text.detach()  # the file is closed by atomic_write
