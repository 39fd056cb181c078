"""Oxford Flowers (Nilsback and Zisserman, 2008): 102 flowers."""

from pathlib import Path

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY, Datum
from datasets.base import ClipDataset
from datasets.matlab import read_integers
from datasets.sources import HUB_COPY, Source, drive, split_source
from datasets.splits import Split, split_three
from datasets.text import read_json
from datasets.validation import check_name


@DATASET_REGISTRY.register()
class OxfordFlowers(ClipDataset):
    """Oxford Flowers 102."""

    template = "a photo of a {}, a type of flower."
    dataset_dir = "oxford_flowers"
    dir_aliases = ("flowers-102", "flowers102", "OxfordFlowers")
    layout = "oxford_flowers/{jpg/, imagelabels.mat, cat_to_name.json, split_zhou_OxfordFlowers.json}"
    expected = (4093, 1633, 2463)
    expected_classes = 102
    hub_copy = HUB_COPY
    sources = (
        Source(
            "102flowers.tgz",
            gives="jpg",
            urls=("https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz",),
            checksum="md5:52808999861908f626f3c1f4e79d11fa",
        ),
        Source(
            "imagelabels.mat",
            gives="imagelabels.mat",
            urls=("https://www.robots.ox.ac.uk/~vgg/data/flowers/102/imagelabels.mat",),
            checksum="md5:e0620be6f572b9609742df49c70aed4d",
            instead=("split_zhou_OxfordFlowers.json",),
        ),
        Source(
            "cat_to_name.json",
            gives="cat_to_name.json",
            urls=(drive("1AkcxCXeK_RCGCEC_GvmWxjcjaNhu-at0"),),
            instead=("split_zhou_OxfordFlowers.json",),
        ),
        split_source("OxfordFlowers", "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"),
    )

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        self.image_dir = self.images_folder(folder / "jpg")
        self.finish(cfg, self.published_split(self.image_dir, self.build_split))

    def build_split(self) -> Split:
        """The split from ``imagelabels.mat`` (a label from 1 for each image) and the names in ``cat_to_name.json``."""
        folder = Path(self.dataset_dir)
        labels = read_integers(self.require(folder / "imagelabels.mat"), "labels")
        names_file = self.require(folder / "cat_to_name.json")
        names = read_json(names_file)
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise ValueError(f"{names_file} must be an object of class names by label: download it again")
        for label, name in names.items():
            check_name(name, f"{names_file}: {label}")
        if unnamed := sorted({label for label in labels if str(label) not in names}):
            raise ValueError(f"{names_file} has no name for the labels {unnamed}: download it again")
        return split_three(
            [
                Datum(f"{self.image_dir}/image_{number:05d}.jpg", label - 1, classname=names[str(label)])
                for number, label in enumerate(labels, start=1)
            ]
        )
