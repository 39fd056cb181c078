"""Photograph-like JPEGs, the same every time: the cost of loading depends on the amount of detail."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

QUALITY = 90
OBJECTS = 30
TEXTURE = 30.0  # maximum amplitude, in grey levels, of an object's fine detail (foliage, fur, cloth)
GRAIN = 5.0  # standard deviation, in grey levels, of the sensor noise


def noise(rng: np.random.Generator, width: int, height: int, cell: int) -> np.ndarray:
    """(H, W) noise of mean 0 and deviation 1, with detail of 1 to `cell` pixels, weighted by its size."""
    total = np.zeros((height, width), dtype=np.float32)
    while cell:
        coarse = rng.standard_normal((height // cell + 2, width // cell + 2)).astype(np.float32)
        total += cell * np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
        cell //= 2
    return (total - total.mean()) / total.std()


def picture(width: int, height: int, seed: int) -> Image.Image:
    """Smoothly varying light and colour, textured objects with edges in front, and grain."""
    rng = np.random.default_rng(seed)
    light = 120 + 45 * noise(rng, width, height, 256)
    tints = [12 * noise(rng, width, height, 256) for _ in range(3)]
    texture = noise(rng, width, height, 4)
    pixels = np.stack([light + tint for tint in tints], axis=-1)  # (H, W, 3)
    for _ in range(OBJECTS):
        mask = Image.new("L", (width, height))
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        a, b = rng.uniform(0.02, 0.2, 2) * width
        ImageDraw.Draw(mask).ellipse((x - a, y - b, x + a, y + b), fill=1)
        inside = np.flatnonzero(np.asarray(mask))
        pixels.reshape(-1, 3)[inside] += rng.uniform(-70, 70, 3)
        pixels.reshape(-1, 3)[inside] += rng.uniform(0, TEXTURE) * texture.reshape(-1, 1)[inside]
    pixels += GRAIN * rng.standard_normal((height, width, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def save_pictures(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """Save pictures 0 … `count` - 1 in `folder`, several at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed:05}.jpg" for seed in range(count)]

    def save(seed: int) -> None:
        picture(*size, seed).save(paths[seed], quality=QUALITY)

    with ThreadPoolExecutor() as threads:
        list(threads.map(save, range(count)))
    return paths


def link(originals: Sequence[Path], paths: Sequence[Path]) -> None:
    """Make every path a hard link to one of the originals, in turn."""
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        os.link(originals[number % len(originals)], path)


def save_class_folders(
    root: Path, count: int, size: tuple[int, int], classes: int = 4, distinct: int | None = None
) -> list[Path]:
    """Save `count` images as ``train/<class>/*.jpg`` in `root`, and link ``test`` to them.

    Args:
        distinct: number of different pictures; all by default. A reader has as much work with the others.
    """
    originals = save_pictures(root / "pictures", min(distinct or count, count), size)
    paths = [root / "train" / f"class_{i % classes}" / f"{i:05}.jpg" for i in range(count)]
    link(originals, paths)
    shutil.rmtree(root / "pictures")
    (root / "test").symlink_to("train", target_is_directory=True)
    return paths
