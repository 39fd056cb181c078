"""Oxford-IIIT Pets (Parkhi et al., 2012): 37 breeds of cats and dogs."""

import re
from pathlib import Path

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY, Datum
from datasets import splits
from datasets.base import ClipDataset
from datasets.fewshot import subsample_lists
from datasets.sources import HUB_COPY, Source, split_source
from datasets.splits import Split
from datasets.text import read_lines, shortened
from datasets.validation import check_name, relative_path


@DATASET_REGISTRY.register()
class OxfordPets(ClipDataset):
    """Oxford-IIIT Pets. Its static methods are split helpers that dataset files written for Dassl call."""

    template = "a photo of a {}, a type of pet."
    dataset_dir = "oxford_pets"
    dir_aliases = ("oxford-iiit-pet", "OxfordPets")
    layout = "oxford_pets/{images/, annotations/, split_zhou_OxfordPets.json}"
    expected = (2944, 736, 3669)
    expected_classes = 37
    hub_copy = HUB_COPY
    sources = (
        Source(
            "images.tar.gz",
            gives="images",
            urls=("https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz",),
            checksum="md5:5c4f3ee8e5d25df40f4fd59a7f44e54c",
        ),
        Source(
            "annotations.tar.gz",
            gives="annotations",
            urls=("https://www.robots.ox.ac.uk/~vgg/data/pets/data/annotations.tar.gz",),
            checksum="md5:95a8c909bbe2e81eed6a22bccdf3f68f",
            instead=("split_zhou_OxfordPets.json",),
        ),
        split_source("OxfordPets", "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"),
    )

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        self.image_dir = self.images_folder(folder / "images")
        self.finish(cfg, self.published_split(self.image_dir, self.build_split))

    def build_split(self) -> Split:
        """The split from ``annotations/trainval.txt`` and ``test.txt``, with a fifth of the former for validation."""
        annotations = Path(self.dataset_dir) / "annotations"
        train, val = self.split_trainval(self.read_data(self.require(annotations / "trainval.txt")))
        return Split(train, val, self.read_data(self.require(annotations / "test.txt")))

    def read_data(self, path: Path) -> list[Datum]:
        """The items of a list of ``<Breed_name_number> <label from 1> <species> <label in species>`` lines."""
        items = []
        for number, line in read_lines(path):
            if line.startswith("#"):
                continue
            where = f"{path}, line {number}"
            fields = line.split()
            if len(fields) != 4 or not re.fullmatch("[1-9][0-9]?", fields[1]):
                raise ValueError(
                    f"{where} must be '<Breed_name_number> <label from 1> <species> <label in species>', not "
                    f"{shortened(line)}"
                )
            image, label = relative_path(f"{fields[0]}.jpg", where), int(fields[1]) - 1
            breed = check_name(fields[0].rpartition("_")[0].lower(), where)
            items.append(Datum(f"{self.image_dir}/{image}", label, classname=breed))
        return items

    @staticmethod
    def split_trainval(trainval: list[Datum], p_val: float = 0.2) -> tuple[list[Datum], list[Datum]]:
        """Train and val items; see ``splits.split_trainval``."""
        return splits.split_trainval(trainval, p_val)

    @staticmethod
    def save_split(train: list[Datum], val: list[Datum], test: list[Datum], filepath: str, path_prefix: str) -> None:
        """Write a split file; see ``splits.write_split``."""
        splits.write_split(filepath, Split(train, val, test), path_prefix)
        print(f"Saved the split to {filepath}")

    @staticmethod
    def read_split(filepath: str, path_prefix: str) -> tuple[list[Datum], list[Datum], list[Datum]]:
        """Train, val and test items of a split file; see ``splits.read_split``."""
        return splits.read_split(filepath, path_prefix)

    @staticmethod
    def subsample_classes(*args: list[Datum], subsample: str = "all") -> list[list[Datum]]:
        """The lists with the base, the new or all classes; see ``fewshot.subsample_classes``."""
        return subsample_lists(args, subsample)
