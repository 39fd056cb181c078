"""What JPEG's draft mode, decoding at 1/2, 1/4 or 1/8 of the size, would save and change.

With PIL's `Image.draft`, libjpeg skips high frequencies. If the reduced size is still as large as the transform needs,
the result looks the same, but its pixels differ from those of a full decode and resize, on which the published numbers
were measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torchvision.transforms as T
from PIL import Image

SMALLEST = 8  # libjpeg decodes at 1/1, 1/2, 1/4 and 1/8
Size = tuple[int, int]  # width, height
Render = Callable[[Image.Image], Image.Image]
# From the image at full size: the size that the transform needs the whole image in, and the transform at any scale.
Plan = Callable[[Image.Image], tuple[Size, Render]]


def decode(path: Path, needed: Size | None = None) -> Image.Image:
    """The image as RGB; with `needed`, at the smallest of libjpeg's scales that is at least that size."""
    with Image.open(path) as image:
        if needed:
            image.draft("RGB", needed)
        return image.convert("RGB")


def scaled(size: Size, x: float, y: float) -> Size:
    return math.ceil(size[0] * x), math.ceil(size[1] * y)


def test_plan(resize_and_crop: T.Compose, edge: int) -> Plan:
    """The test transform: resize the shorter edge to `edge`, then a centre crop."""

    def plan(full: Image.Image) -> tuple[Size, Render]:
        factor = edge / min(full.size)
        return scaled(full.size, factor, factor), resize_and_crop

    return plan


def train_plan(crop: T.RandomResizedCrop) -> Plan:
    """A random box, resized to the crop's size. Its edges are at whole pixels at every scale, so none is rounded."""
    height, width = crop.size

    def plan(full: Image.Image) -> tuple[Size, Render]:
        drawn = T.RandomResizedCrop.get_params(full, list(crop.scale), list(crop.ratio))
        top, left = (edge // SMALLEST * SMALLEST for edge in drawn[:2])
        rows, columns = (max(edge // SMALLEST, 1) * SMALLEST for edge in drawn[2:])

        def render(image: Image.Image) -> Image.Image:
            by = round(full.width / image.width)
            box = [edge // by for edge in (top, left, rows, columns)]
            return T.functional.resized_crop(image, *box, list(crop.size), crop.interpolation)

        return scaled(full.size, width / columns, height / rows), render

    return plan


def measure(paths: Sequence[Path], plan: Plan) -> dict[str, Any]:
    """Milliseconds per image to decode fully and as a draft, and pixel differences (of 255) after the transform.

    Differences are over the images that the draft made smaller; None if there are none.
    """
    seconds = {"full": 0.0, "draft": 0.0}
    differences: list[np.ndarray] = []
    for path in paths:
        start = time.perf_counter()
        full = decode(path)
        seconds["full"] += time.perf_counter() - start
        needed, render = plan(full)
        start = time.perf_counter()
        draft = decode(path, needed)
        seconds["draft"] += time.perf_counter() - start
        if draft.size != full.size:
            a, b = (np.asarray(render(image), dtype=np.int16) for image in (full, draft))  # (H, W, 3)
            differences.append(np.abs(a - b))
    return {
        "images": len(paths),
        "made_smaller": len(differences),
        "full_ms": 1e3 * seconds["full"] / len(paths),
        "draft_ms": 1e3 * seconds["draft"] / len(paths),
        "largest_difference": int(max(d.max() for d in differences)) if differences else None,
        "mean_difference": float(np.mean([d.mean() for d in differences])) if differences else None,
    }
