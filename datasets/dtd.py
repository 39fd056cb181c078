"""Describable Textures (Cimpoi et al., 2014): 47 textures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY, Datum
from datasets.base import ClipDataset
from datasets.listing import class_folder_items
from datasets.sources import HUB_COPY, Source, split_source
from datasets.splits import split_three


@DATASET_REGISTRY.register()
class DescribableTextures(ClipDataset):
    """Describable Textures."""

    template = "{} texture."
    dataset_dir = "dtd"
    dir_aliases = ("DTD", "describable_textures")
    layout = "dtd/{images/<texture>/, split_zhou_DescribableTextures.json}"
    expected = (2820, 1128, 1692)
    expected_classes = 47
    some_classes = ("banded", "braided", "zigzagged")
    hub_copy = HUB_COPY
    sources = (
        Source(
            "dtd-r1.0.1.tar.gz",
            gives="images",
            urls=("https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",),
            checksum="md5:fff73e5086ae6bdbea199a49dfb8a4c1",
            inside="dtd",
        ),
        split_source("DescribableTextures", "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"),
    )

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        self.image_dir = self.images_folder(folder / "images", folder / "dtd" / "images")
        self.finish(cfg, self.published_split(self.image_dir, lambda: split_three(class_folder_items(self.image_dir))))

    @staticmethod
    def read_and_split_data(
        image_dir: Path | str,
        p_trn: float = 0.5,
        p_val: float = 0.2,
        ignored: Sequence[str] = (),
        new_cnames: Mapping[str, str] | None = None,
    ) -> tuple[list[Datum], list[Datum], list[Datum]]:
        """Train, val and test items of a folder of class folders: a helper that dataset files written for Dassl call.

        Args:
            image_dir: the folder.
            p_trn, p_val: fractions of each class for train and val; the rest is test.
            ignored: class folders to leave out.
            new_cnames: class names that differ from the folder's.
        """
        return split_three(class_folder_items(image_dir, ignored, new_cnames), p_trn, p_val)
