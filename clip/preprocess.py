"""CLIP's image preprocessing: the steps of OpenAI's package, without torchvision."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dassl.utils.images import to_rgb

# Mean and standard deviation of the pixels CLIP was trained on, in [0, 1]
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass
class Resize:
    """PIL image to one whose shorter side has `size` pixels, bicubic. One of more than 8 bits becomes RGB."""

    size: int

    def __call__(self, image: Image.Image) -> Image.Image:
        if image.mode[0] in "IF":  # whose depth the whole image tells, and whose values Pillow would clip
            image = to_rgb(image)
        width, height = image.size
        short = min(width, height)
        if short == self.size:
            return image
        new_size = int(self.size * width / short), int(self.size * height / short)
        return image.resize(new_size, Image.Resampling.BICUBIC)


@dataclass
class CenterCrop:
    """PIL image to the `size` x `size` pixels at its center."""

    size: int

    def __call__(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        left, top = round((width - self.size) / 2.0), round((height - self.size) / 2.0)
        return image.crop((left, top, left + self.size, top + self.size))


def to_tensor(image: Image.Image) -> Tensor:
    """RGB image to (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@dataclass
class Normalize:
    """(3, H, W) with each channel's `mean` subtracted and divided by its `std`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


@dataclass
class Compose:
    """Applies `transforms` one after the other. The list may be read and changed."""

    transforms: list[Callable[[Any], Any]]

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image


def preprocessing(n_px: int, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None) -> Compose:
    """PIL image of any size to (3, n_px, n_px): shorter side resized, center cropped, pixels normalized.

    Args:
        mean, std: of each color's pixels; by default those of OpenAI's models.
    """
    normalize = Normalize(mean or PIXEL_MEAN, std or PIXEL_STD)
    return Compose([Resize(n_px), CenterCrop(n_px), to_rgb, to_tensor, normalize])
