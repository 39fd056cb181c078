"""ImageNet (Russakovsky et al., 2015): 1,000 classes; the validation images are used for validation and test."""

import re
from collections import OrderedDict
from pathlib import Path

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import first_few
from datasets.base import ClipDataset
from datasets.fewshot import draw_shots, shot_rng
from datasets.listing import list_class_folders, list_folders, loose_images, read_classnames, to_items
from datasets.matlab import read_structures
from datasets.sources import CLASSNAMES, Source, tool_command
from datasets.splits import Split
from datasets.text import read_lines
from datasets.validation import MissingFoldersError, check_class_folders

_WNID = re.compile(r"n\d{8}")
PLACES = ("images", ".", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")  # of train/ and val/; the last two are Kaggle's
DEVKIT = "ILSVRC2012_devkit_t12"  # the development kit's folder


def sort_validation_images(unpacked: Path, folder: Path) -> None:
    """Move the validation images, which are in one folder in their archive, into class folders.

    Args:
        unpacked: the folder with the images.
        folder: the dataset's folder; the development kit in it lists the class of the n-th image.

    Raises:
        FileNotFoundError: the development kit is missing.
        ValueError: it lists another number of images.
    """
    kit = folder / DEVKIT / "data"
    truth = kit / "ILSVRC2012_validation_ground_truth.txt"
    if not truth.exists():
        raise FileNotFoundError(
            f"{truth}, which lists the classes of the validation images, does not exist: pass "
            "ILSVRC2012_devkit_t12.tar.gz with --archive, too"
        )
    synsets = read_structures(kit / "meta.mat", "synsets", {"ILSVRC2012_ID": int, "WNID": str})
    wnids = {str(synset["ILSVRC2012_ID"]): synset["WNID"] for synset in synsets}
    labels = [label for _, label in read_lines(truth)]
    if unknown := sorted({label for label in labels if not _WNID.fullmatch(wnids.get(label, ""))}):
        raise ValueError(f"{truth} has the labels {first_few(unknown)}, which {kit / 'meta.mat'} does not list")
    images = loose_images(unpacked)
    if len(images) != len(labels):
        raise ValueError(
            f"the archive contains {len(images)} validation images, {truth} lists {len(labels)}: download both again"
        )
    for image, label in zip(images, labels, strict=True):
        class_folder = unpacked / wnids[label]
        class_folder.mkdir(exist_ok=True)
        (unpacked / image).rename(class_folder / image)


@DATASET_REGISTRY.register()
class ImageNet(ClipDataset):
    """ImageNet in its published layout. Shots are drawn from the sorted listing; val is the whole test set."""

    dataset_dir = "imagenet"
    dir_aliases = ("ImageNet", "ILSVRC2012", "imagenet-1k", "imagenet-object-localization-challenge")
    layout = (
        "imagenet/{images/train/<wnid>/, images/val/<wnid>/, classnames.txt}; classnames.txt has one "
        "'<wnid> <class name>' per line, in the order of the sorted wnids"
    )
    by_hand = (
        "log in at https://image-net.org, download ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and "
        "ILSVRC2012_devkit_t12.tar.gz, and pass all three to `prepare` with --archive"
    )
    expected = (1281167, 50000, 50000)
    expected_classes = 1000
    sources = (
        Source(
            "ILSVRC2012_devkit_t12.tar.gz",
            gives=DEVKIT,
            checksum="md5:fa75699e90414af021442c21a62c3abf",
            instead=tuple(f"{place}/val" for place in PLACES),  # it is for sorting the validation images
        ),
        Source(
            "ILSVRC2012_img_val.tar",
            gives="images/val",
            checksum="md5:29b22e2961454d5413ddabcf34fc5622",
            into="images/val",
            arrange=sort_validation_images,
            instead=tuple(f"{place}/val" for place in PLACES[1:]),
        ),
        Source(
            "ILSVRC2012_img_train.tar",
            gives="images/train",
            checksum="md5:1d675b47d978889d74fa0da5fadfb00e",
            into="images/train",
            instead=tuple(f"{place}/train" for place in PLACES[1:]),
        ),
        CLASSNAMES,
    )

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        names_file = self.require(folder / "classnames.txt")
        train_dir, val_dir = self._part("train"), self._part("val")
        self.image_dir = train_dir.parent
        classnames = self.read_classnames(names_file)

        def listing(part: Path) -> dict[str, list[str]]:
            def check(folders: list[str]) -> None:
                try:
                    check_class_folders(folders, classnames, part, names_file)
                except MissingFoldersError as error:
                    raise ValueError(f"{error}{self.as_own_data(self.image_dir)}") from error

            return list_class_folders(part, folder / f"listing_{part.name}.json", check)

        train, test = listing(train_dir), listing(val_dir)

        held_out: dict[str, list[str]] = {}  # val are the test images, as published: nothing may be chosen on them
        if (shots := cfg.DATASET.NUM_SHOTS) >= 1:
            rng, everything = shot_rng(cfg.SEED), train
            train = {name: draw_shots(images, shots, rng) for name, images in everything.items()}
            for name, images in everything.items():
                drawn = set(train[name])
                held_out[name] = draw_shots([image for image in images if image not in drawn], min(shots, 4), rng)
        test_items = to_items(val_dir, test, classnames)
        split = Split(to_items(train_dir, train, classnames), test_items, test_items)
        self.finish(cfg, split, ready=True, held_out=to_items(train_dir, held_out, classnames))

    def as_own_data(self, folder: Path) -> str:
        advice, names_file = super().as_own_data(folder), Path(self.dataset_dir) / "classnames.txt"
        if not advice or folder == names_file.parent:
            return advice
        command = f"ls {folder / 'train'} | grep -F -f - {names_file} > {folder / 'classnames.txt'}"
        return f"{advice}\n  its class names: {command}"

    def _part(self, part: str) -> Path:
        """The folder of train or val, in any of the places that mirrors have it in.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it contains images, but no class folders.
        """
        folder = Path(self.dataset_dir)
        found = [path for place in PLACES if (path := folder / place / part).is_dir()]
        if not found:
            raise self.missing(folder.parent, *(folder / place / part for place in PLACES))
        sorted_part = next((path for path in found if list_folders(path)), None)
        if sorted_part is None and (images := loose_images(found[0])):
            move = f", move this folder to {found[0]}.unsorted," if found[0] == folder / "images" / part else ""
            raise ValueError(
                f"{found[0]} contains {len(images):,} images but no class folders, as ILSVRC2012_img_val.tar has them. "
                f"To sort them{move} and run: {tool_command('prepare', 'ImageNet', folder.parent)} "
                "--archive ILSVRC2012_devkit_t12.tar.gz ILSVRC2012_img_val.tar"
            )
        return sorted_part or found[0]

    @staticmethod
    def read_classnames(text_file: Path | str) -> "OrderedDict[str, str]":
        """{class folder: class name}; see ``listing.read_classnames``."""
        return read_classnames(text_file)
