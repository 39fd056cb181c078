"""Random augmentation: a few operations sampled from a pool.

RandAugment: Cubuk et al., 2020. FixMatch: Sohn et al., 2020.
"""

import random
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageEnhance, ImageOps

Operation = Callable[[Image.Image, float], Image.Image]
GREY = (127, 127, 127)


def _sign(value: float) -> float:
    """The value, or its negative with probability one half."""
    return value if random.random() < 0.5 else -value


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


def shear_x(image: Image.Image, value: float) -> Image.Image:
    """Shear by ``value`` (ratio) along x, in a random direction."""
    return _affine(image, (1, _sign(value), 0, 0, 1, 0))


def shear_y(image: Image.Image, value: float) -> Image.Image:
    """Shear by ``value`` (ratio) along y, in a random direction."""
    return _affine(image, (1, 0, 0, _sign(value), 1, 0))


def translate_x(image: Image.Image, value: float) -> Image.Image:
    """Shift by ``value`` times the width, in a random direction."""
    return _affine(image, (1, 0, _sign(value) * image.width, 0, 1, 0))


def translate_y(image: Image.Image, value: float) -> Image.Image:
    """Shift by ``value`` times the height, in a random direction."""
    return _affine(image, (1, 0, 0, 0, 1, _sign(value) * image.height))


def rotate(image: Image.Image, value: float) -> Image.Image:
    """Rotate by ``value`` degrees, in a random direction."""
    return image.rotate(_sign(value))


def posterize(image: Image.Image, value: float) -> Image.Image:
    """Keep the highest ``value`` bits, at least one."""
    return ImageOps.posterize(image, max(1, int(value)))


def cutout(image: Image.Image, value: float) -> Image.Image:
    """Fill a square at a random place with gray; its side is ``value`` times the shorter side of the image."""
    side = value * min(image.size)
    x, y = random.uniform(0, image.width), random.uniform(0, image.height)
    image = image.copy()
    box = (
        max(0.0, x - side / 2),
        max(0.0, y - side / 2),
        min(image.width, x + side / 2),
        min(image.height, y + side / 2),
    )
    ImageDraw.Draw(image).rectangle(box, GREY)
    return image


def _enhance(enhancer: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    return lambda image, value: enhancer(image).enhance(value)


# Operation, weakest value, strongest value
RANDAUGMENT_POOL: list[tuple[Operation, float, float]] = [
    (lambda image, value: ImageOps.autocontrast(image), 0, 1),
    (lambda image, value: ImageOps.equalize(image), 0, 1),
    (lambda image, value: ImageOps.invert(image), 0, 1),
    (rotate, 0, 30),
    (posterize, 4, 0),
    (lambda image, value: ImageOps.solarize(image, int(value)), 256, 0),
    (_enhance(ImageEnhance.Color), 0.1, 1.9),
    (_enhance(ImageEnhance.Contrast), 0.1, 1.9),
    (_enhance(ImageEnhance.Brightness), 0.1, 1.9),
    (_enhance(ImageEnhance.Sharpness), 0.1, 1.9),
    (shear_x, 0, 0.3),
    (shear_y, 0, 0.3),
    (cutout, 0, 0.2),
    (translate_x, 0, 0.3),
    (translate_y, 0, 0.3),
]
FIXMATCH_POOL: list[tuple[Operation, float, float]] = [
    (lambda image, value: image, 0, 1),
    (lambda image, value: ImageOps.autocontrast(image), 0, 1),
    (lambda image, value: ImageOps.equalize(image), 0, 1),
    (_enhance(ImageEnhance.Brightness), 0.05, 0.95),
    (_enhance(ImageEnhance.Color), 0.05, 0.95),
    (_enhance(ImageEnhance.Contrast), 0.05, 0.95),
    (_enhance(ImageEnhance.Sharpness), 0.05, 0.95),
    (posterize, 4, 8),
    (lambda image, value: ImageOps.solarize(image, int(value)), 256, 0),
    (rotate, 0, 30),
    (shear_x, 0, 0.3),
    (shear_y, 0, 0.3),
    (translate_x, 0, 0.3),
    (translate_y, 0, 0.3),
]


class RandAugment:
    """``n`` random operations with the same magnitude.

    Args:
        n: operations per image.
        m: magnitude, 0 (weakest) to 30 (strongest).
    """

    def __init__(self, n: int = 2, m: int = 10) -> None:
        if not 0 <= m <= 30:
            raise ValueError(f"INPUT.RANDAUGMENT_M must be between 0 and 30, not {m}")
        self.n, self.m = n, m

    def __call__(self, img: Image.Image) -> Image.Image:
        for operation, low, high in random.choices(RANDAUGMENT_POOL, k=self.n):
            img = operation(img, low + (high - low) * self.m / 30)
        return img


class RandAugment2:
    """``n`` random operations, each applied with probability ``p`` and a random magnitude."""

    def __init__(self, n: int = 2, p: float = 0.6) -> None:
        self.n, self.p = n, p

    def __call__(self, img: Image.Image) -> Image.Image:
        for operation, low, high in random.choices(RANDAUGMENT_POOL, k=self.n):
            if random.random() <= self.p:
                img = operation(img, random.uniform(low, high))
        return img


class RandAugmentFixMatch:
    """FixMatch's strong augmentation: ``n`` random operations with random magnitudes, then a random cutout."""

    def __init__(self, n: int = 2) -> None:
        self.n = n

    def __call__(self, img: Image.Image) -> Image.Image:
        for operation, low, high in random.choices(FIXMATCH_POOL, k=self.n):
            img = operation(img, random.uniform(low, high))
        return cutout(img, random.uniform(0, 0.5))
