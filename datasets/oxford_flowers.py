"""Oxford Flowers (Nilsback and Zisserman, 2008): 102 flowers."""

from pathlib import Path

from scipy.io import loadmat
from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils import read_json
from datasets.fewshot import ClipDataset, Split
from datasets.splits import split_three


@DATASET_REGISTRY.register()
class OxfordFlowers(ClipDataset):
    """Oxford Flowers 102."""

    template = "a photo of a {}, a type of flower."
    dataset_dir = "oxford_flowers"
    dir_aliases = ("flowers-102", "flowers102", "OxfordFlowers")
    layout = "oxford_flowers/{jpg/, imagelabels.mat, cat_to_name.json, split_zhou_OxfordFlowers.json}"
    expected = (4093, 1633, 2463)
    expected_classes = 102

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        self.image_dir = self.require(folder / "jpg")
        self.finish(cfg, self.published_split(self.image_dir, self.build_split))

    def build_split(self) -> Split:
        """The split from ``imagelabels.mat`` (a label from 1 for each image) and the names in ``cat_to_name.json``."""
        folder = Path(self.dataset_dir)
        labels = loadmat(self.require(folder / "imagelabels.mat"))["labels"][0].tolist()
        names = read_json(self.require(folder / "cat_to_name.json"))
        if unnamed := sorted({label for label in labels if str(label) not in names}):
            raise ValueError(f"{folder / 'cat_to_name.json'} has no name for the labels {unnamed}: get it again")
        return split_three(
            [
                Datum(f"{self.image_dir}/image_{number:05d}.jpg", label - 1, classname=names[str(label)])
                for number, label in enumerate(labels, start=1)
            ]
        )
