"""Reading images."""

import os.path as osp
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["read_image"]


def read_image(path: str | Path, draft: tuple[int, int] | None = None) -> Image.Image:
    """Return the image as RGB; of 16 bits per channel, the upper eight are kept.

    Args:
        path: the file.
        draft: smallest sufficient size (width, height): a JPEG is decoded at a fraction of its size that is at least
            this large, which is faster and changes its pixels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image, or is truncated.
    """
    if not osp.exists(path):
        raise FileNotFoundError(f"No image at {path}: check DATASET.ROOT and that the dataset is complete")
    try:
        with Image.open(path) as image:
            if draft is not None:
                image.draft("RGB", draft)
            if image.mode == "F":
                raise ValueError("its pixels are floating-point numbers: save it with 8 bits per channel")
            if image.mode.startswith("I"):
                return Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8)).convert("RGB")
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} ({osp.getsize(path)} bytes) cannot be read as an image: {error}") from error
