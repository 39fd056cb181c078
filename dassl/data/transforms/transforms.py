"""Build the torchvision transforms named in INPUT.TRANSFORMS."""

from collections.abc import Sequence

import torch
import torchvision.transforms as T
from PIL import Image
from torchvision.transforms.functional import InterpolationMode
from yacs.config import CfgNode

from dassl.config import setting
from dassl.utils import check_availability

from .autoaugment import CIFAR10Policy, ImageNetPolicy, SVHNPolicy
from .randaugment import RandAugment, RandAugment2, RandAugmentFixMatch

AVAI_CHOICES = [
    "random_flip",
    "random_resized_crop",
    "normalize",
    "instance_norm",
    "random_crop",
    "random_translation",
    "center_crop",  # always applied in testing, never in training
    "cutout",
    "imagenet_policy",
    "cifar10_policy",
    "svhn_policy",
    "randaugment",
    "randaugment_fixmatch",
    "randaugment2",
    "gaussian_noise",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
]

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}


class Random2DTranslation:
    """Resize to ``height`` × ``width``, or with probability ``p`` to 1.125 times that size and crop at random.

    Args:
        height, width: size of the result in pixels.
        p: probability of the larger size with a crop.
        interpolation: interpolation of the resize.
    """

    def __init__(
        self, height: int, width: int, p: float = 0.5, interpolation: InterpolationMode = InterpolationMode.BILINEAR
    ) -> None:
        self.height, self.width = height, width
        self.p = p
        self.interpolation = interpolation

    def __call__(self, img: Image.Image) -> Image.Image:
        if float(torch.rand(())) > self.p:
            return T.functional.resize(img, [self.height, self.width], self.interpolation)
        larger = [round(self.height * 1.125), round(self.width * 1.125)]
        img = T.functional.resize(img, larger, self.interpolation)
        top = int(torch.randint(larger[0] - self.height + 1, ()))
        left = int(torch.randint(larger[1] - self.width + 1, ()))
        return T.functional.crop(img, top, left, self.height, self.width)


class InstanceNormalization:
    """Normalize each channel of an image to mean 0 and standard deviation 1. (C, H, W) → (C, H, W).

    Args:
        eps: added to the standard deviation.
    """

    def __init__(self, eps: float = 1e-8) -> None:
        self.eps = eps

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        mean = img.mean(dim=(1, 2), keepdim=True)  # (C, 1, 1)
        std = img.std(dim=(1, 2), keepdim=True)  # (C, 1, 1)
        return (img - mean) / (std + self.eps)


class Cutout:
    """Set ``n_holes`` random squares with sides of ``length`` pixels to zero. (C, H, W) → (C, H, W)."""

    def __init__(self, n_holes: int = 1, length: int = 16) -> None:
        self.n_holes, self.length = n_holes, length

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        height, width = img.shape[-2:]
        img = img.clone()
        for _ in range(self.n_holes):
            top = int(torch.randint(height, ())) - self.length // 2
            left = int(torch.randint(width, ())) - self.length // 2
            img[..., max(top, 0) : max(top + self.length, 0), max(left, 0) : max(left + self.length, 0)] = 0
        return img


class GaussianNoise:
    """Add N(mean, std²) to every value with probability ``p``. (C, H, W) → (C, H, W)."""

    def __init__(self, mean: float = 0, std: float = 0.15, p: float = 0.5) -> None:
        self.mean, self.std, self.p = mean, std, p

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        if float(torch.rand(())) > self.p:
            return img
        return img + torch.randn_like(img) * self.std + self.mean


def normalization(cfg: CfgNode) -> T.Normalize:
    """The normalization of pixels in [0, 1]: with the backbone's own mean and standard deviation, or else INPUT's."""
    mean, std = (setting(cfg, f"MODEL.BACKBONE.{key}") or cfg.INPUT[key] for key in ("PIXEL_MEAN", "PIXEL_STD"))
    return T.Normalize(mean=mean, std=std)


def build_transform(cfg: CfgNode, is_train: bool = True, choices: Sequence[str] | None = None) -> T.Compose | None:
    """Build the training or test transform: PIL image → (3, H, W).

    Args:
        cfg: the configuration; INPUT has the sizes and strengths.
        is_train: training or test.
        choices: names of transforms, instead of INPUT.TRANSFORMS.

    Returns:
        The transform; None with INPUT.NO_TRANSFORM.

    Raises:
        ValueError: a name is not in AVAI_CHOICES; the message has the closest one.
    """
    if cfg.INPUT.NO_TRANSFORM:
        return None
    choices = cfg.INPUT.TRANSFORMS if choices is None else choices
    for choice in choices:
        check_availability(choice, AVAI_CHOICES, "INPUT.TRANSFORMS")
    check_availability(cfg.INPUT.INTERPOLATION, INTERPOLATION_MODES, "INPUT.INTERPOLATION")
    size = "x".join(str(edge) for edge in cfg.INPUT.SIZE)
    normalize = normalization(cfg)
    build = _build_transform_train if is_train else _build_transform_test
    return build(cfg, choices, size, normalize)


def _build_transform_train(cfg: CfgNode, choices: Sequence[str], target_size: str, normalize: T.Normalize) -> T.Compose:
    node = cfg.INPUT
    size = tuple(node.SIZE)
    interpolation = INTERPOLATION_MODES[node.INTERPOLATION]
    steps = []
    if "random_crop" not in choices and "random_resized_crop" not in choices:
        steps.append(T.Resize(size, interpolation=interpolation))
    if "random_translation" in choices:
        steps.append(Random2DTranslation(*size))
    if "random_crop" in choices:
        steps.append(T.RandomCrop(size, padding=node.CROP_PADDING))
    if "random_resized_crop" in choices:
        steps.append(T.RandomResizedCrop(size, scale=node.RRCROP_SCALE, interpolation=interpolation))
    if "random_flip" in choices:
        steps.append(T.RandomHorizontalFlip())
    if "imagenet_policy" in choices:
        steps.append(ImageNetPolicy())
    if "cifar10_policy" in choices:
        steps.append(CIFAR10Policy())
    if "svhn_policy" in choices:
        steps.append(SVHNPolicy())
    if "randaugment" in choices:
        steps.append(RandAugment(node.RANDAUGMENT_N, node.RANDAUGMENT_M))
    if "randaugment_fixmatch" in choices:
        steps.append(RandAugmentFixMatch(node.RANDAUGMENT_N))
    if "randaugment2" in choices:
        steps.append(RandAugment2(node.RANDAUGMENT_N))
    if "colorjitter" in choices:
        strengths = (node.COLORJITTER_B, node.COLORJITTER_C, node.COLORJITTER_S, node.COLORJITTER_H)
        steps.append(T.ColorJitter(*strengths))
    if "randomgrayscale" in choices:
        steps.append(T.RandomGrayscale(p=node.RGS_P))
    if "gaussian_blur" in choices:
        steps.append(T.RandomApply([T.GaussianBlur(node.GB_K)], p=node.GB_P))
    steps.append(T.ToTensor())
    if "cutout" in choices:
        steps.append(Cutout(node.CUTOUT_N, node.CUTOUT_LEN))
    if "normalize" in choices:
        steps.append(normalize)
    if "gaussian_noise" in choices:
        steps.append(GaussianNoise(node.GN_MEAN, node.GN_STD))
    if "instance_norm" in choices:
        steps.append(InstanceNormalization())
    return _printed(cfg, "train", target_size, T.Compose(steps))


def _build_transform_test(cfg: CfgNode, choices: Sequence[str], target_size: str, normalize: T.Normalize) -> T.Compose:
    interpolation = INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]
    steps = [
        T.Resize(max(cfg.INPUT.SIZE), interpolation=interpolation),  # of the shorter side
        T.CenterCrop(tuple(cfg.INPUT.SIZE)),
        T.ToTensor(),
    ]
    if "normalize" in choices:
        steps.append(normalize)
    if "instance_norm" in choices:
        steps.append(InstanceNormalization())
    return _printed(cfg, "test", target_size, T.Compose(steps))


def _printed(cfg: CfgNode, name: str, target_size: str, transform: T.Compose) -> T.Compose:
    """Return ``transform``, after printing it if cfg.VERBOSE."""
    if cfg.VERBOSE:
        print(f"Transform {name} ({target_size}): {', '.join(type(step).__name__ for step in transform.transforms)}")
    return transform
