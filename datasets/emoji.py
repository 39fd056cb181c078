"""The demonstration: 3D emoji in small scenes (`emoji_data/README.md` describes how they are made)."""

from pathlib import Path

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import ClipDataset
from datasets.splits import read_split


@DATASET_REGISTRY.register()
class Emoji(ClipDataset):
    """40 classes of 16 to 24 emoji: 640 training, 160 validation and 946 test images of 64 x 64 pixels.

    The images are part of the repository; `DATASET.ROOT` is not used.
    """

    layout = "images/<class>/*.webp and split.json"
    expected = (640, 160, 946)
    expected_classes = 40

    def __init__(self, cfg: CfgNode):
        self.dataset_dir = Path(__file__).absolute().with_name("emoji_data")
        self.finish(cfg, read_split(self.dataset_dir / "split.json", self.dataset_dir / "images"))
