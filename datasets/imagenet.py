"""ImageNet (Russakovsky et al., 2015): 1,000 classes; the validation images serve as validation and test."""

from collections import OrderedDict
from pathlib import Path

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY, Datum
from datasets.fewshot import ClipDataset, Split, draw_shots, shot_rng
from datasets.listing import list_class_folders
from datasets.validation import check_class_folders


def read_classnames(text_file: Path | str) -> "OrderedDict[str, str]":
    """{class folder: class name} of a ``classnames.txt`` with one ``<folder> <class name>`` a line.

    Raises:
        ValueError: a line has no class name, or a folder occurs twice.
    """
    classnames: OrderedDict[str, str] = OrderedDict()
    for number, line in enumerate(Path(text_file).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        folder, _, classname = line.strip().partition(" ")
        if not classname or folder in classnames:
            raise ValueError(f"{text_file}, line {number}: expected a new '<folder> <class name>', found {line!r}")
        classnames[folder] = classname.strip()
    if not classnames:
        raise ValueError(f"{text_file} is empty: it must hold one '<folder> <class name>' a line")
    return classnames


@DATASET_REGISTRY.register()
class ImageNet(ClipDataset):
    """ImageNet in its published layout. Shots are drawn from the sorted listing; val is the test set, in full."""

    dataset_dir = "imagenet"
    dir_aliases = ("ImageNet", "ILSVRC2012", "imagenet-1k")
    layout = "imagenet/{images/train/<wnid>/, images/val/<wnid>/, classnames.txt}"
    by_hand = (
        "log in at https://image-net.org, download ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and "
        "ILSVRC2012_devkit_t12.tar.gz, and pass each to the command above with --archive FILE"
    )
    expected = (1281167, 50000, 50000)
    expected_classes = 1000

    def __init__(self, cfg: CfgNode) -> None:
        folder = self.locate(cfg)
        self.image_dir = self.require(folder / "images", folder)
        names_file = self.require(folder / "classnames.txt")
        train_dir, val_dir = (self.require(self.image_dir / part) for part in ("train", "val"))
        classnames = self.read_classnames(names_file)
        train = list_class_folders(train_dir, folder / "listing_train.json")
        test = list_class_folders(val_dir, folder / "listing_val.json")
        for part, listing in ((train_dir, train), (val_dir, test)):
            check_class_folders(list(listing), classnames, part, names_file)

        if cfg.DATASET.NUM_SHOTS >= 1:
            rng = shot_rng(cfg.SEED)
            train = {name: draw_shots(images, cfg.DATASET.NUM_SHOTS, rng) for name, images in train.items()}
        test_items = to_items(val_dir, test, classnames)
        self.finish(cfg, Split(to_items(train_dir, train, classnames), test_items, test_items), ready=True)

    @staticmethod
    def read_classnames(text_file: Path | str) -> "OrderedDict[str, str]":
        """{class folder: class name}; see the function of the same name."""
        return read_classnames(text_file)


def to_items(folder: Path, listing: dict[str, list[str]], classnames: dict[str, str]) -> list[Datum]:
    """Items of class folders, labelled in the order of the listing."""
    return [
        Datum(f"{folder}/{name}/{image}", label, classname=classnames[name])
        for label, (name, images) in enumerate(listing.items())
        for image in images
    ]
