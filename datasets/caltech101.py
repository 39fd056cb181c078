"""Caltech-101 (Fei-Fei et al., 2004): 100 classes, without the background and the second face class."""

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY
from datasets.base import ClipDataset
from datasets.listing import class_folder_items
from datasets.sources import HUB_COPY, Source, split_source
from datasets.splits import split_three

IGNORED = ["BACKGROUND_Google", "Faces_easy"]
NEW_CNAMES = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}


@DATASET_REGISTRY.register()
class Caltech101(ClipDataset):
    """Caltech-101."""

    dataset_dir = "caltech-101"
    dir_aliases = ("caltech101", "Caltech101")
    layout = "caltech-101/{101_ObjectCategories/<class>/, split_zhou_Caltech101.json}"
    expected = (4128, 1649, 2465)
    expected_classes = 100
    some_classes = ("accordion", "airplanes", "yin_yang")
    ignored_folders = tuple(IGNORED)
    hub_copy = HUB_COPY
    sources = (
        Source(
            "caltech-101.zip",
            gives="101_ObjectCategories",
            urls=("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",),
            checksum="md5:3138e1922a9193bfa496528edbbc45d0",
            inside="caltech-101",
        ),
        split_source("Caltech101", "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"),
    )

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        self.image_dir = self.images_folder(
            folder / "101_ObjectCategories", folder / "caltech-101" / "101_ObjectCategories", folder / "caltech101"
        )
        self.finish(
            cfg,
            self.published_split(
                self.image_dir, lambda: split_three(class_folder_items(self.image_dir, IGNORED, NEW_CNAMES))
            ),
        )
