"""Food-101 (Bossard et al., 2014): 101 dishes."""

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY
from datasets.fewshot import ClipDataset
from datasets.splits import class_folder_items, split_three


@DATASET_REGISTRY.register()
class Food101(ClipDataset):
    """Food-101. The published split parts all images anew; the lists in ``meta/`` are not used."""

    template = "a photo of {}, a type of food."
    dataset_dir = "food-101"
    dir_aliases = ("food101", "Food101")
    layout = "food-101/{images/<dish>/, split_zhou_Food101.json}"
    expected = (50500, 20200, 30300)
    expected_classes = 101

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        self.image_dir = self.require(folder / "images", folder / "food-101" / "images")
        self.finish(cfg, self.published_split(self.image_dir, lambda: split_three(class_folder_items(self.image_dir))))
