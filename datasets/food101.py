"""Food-101 (Bossard et al., 2014): 101 dishes."""

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import ClipDataset
from datasets.listing import class_folder_items
from datasets.sources import HUB_COPY, Source, split_source
from datasets.splits import split_three


@DATASET_REGISTRY.register()
class Food101(ClipDataset):
    """Food-101. The published split is made from all images; the lists in ``meta/`` are not used."""

    template = "a photo of {}, a type of food."
    dataset_dir = "food-101"
    dir_aliases = ("food101", "Food101")
    layout = "food-101/{images/<dish>/, split_zhou_Food101.json}"
    expected = (50500, 20200, 30300)
    expected_classes = 101
    some_classes = ("apple_pie", "french_fries", "waffles")
    hub_copy = HUB_COPY
    sources = (
        Source(
            "food-101.tar.gz",
            gives="images",
            urls=("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",),
            checksum="md5:85eeb15f3717b99a5da872d97d918f87",
            inside="food-101",
        ),
        split_source("Food101", "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"),
    )

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        self.image_dir = self.images_folder(folder / "images", folder / "food-101" / "images")
        self.finish(cfg, self.published_split(self.image_dir, lambda: split_three(class_folder_items(self.image_dir))))
