"""Small pictures and configurations for the tests of the data layer."""

from pathlib import Path

import numpy as np
from PIL import Image
from yacs.config import CfgNode

from dassl.config import get_cfg_default
from dassl.data.datasets import Datum


def save_picture(path: Path, seed: int = 0, size: tuple[int, int] = (20, 16)) -> Path:
    """A picture of random noise, width × height = ``size``; the suffix determines the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    pixels = np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_items(folder: Path, per_class: int, num_classes: int) -> list[Datum]:
    """``per_class`` pictures of each class ``class_<label>``."""
    return [
        Datum(str(save_picture(folder / f"{label}_{i}.jpg", seed=97 * label + i)), label, classname=f"class_{label}")
        for label in range(num_classes)
        for i in range(per_class)
    ]


def make_cfg(**options: object) -> CfgNode:
    """The defaults with 12 × 12 pixels, no output and no workers; options are KEY__SUBKEY=value."""
    cfg = get_cfg_default()
    cfg.VERBOSE = False
    cfg.INPUT.SIZE = (12, 12)
    cfg.INPUT.TRANSFORMS = ("random_resized_crop", "random_flip", "normalize")
    cfg.DATALOADER.NUM_WORKERS = 0
    for key, value in options.items():
        node = cfg
        *path, last = key.split("__")
        for name in path:
            node = node[name]
        node[last] = value
    return cfg
