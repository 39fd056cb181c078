"""The user's own images without code: a folder of class folders, or a list of files."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils import first_few
from dassl.utils.console import printable, utf8_text
from dassl.utils.names import fill
from datasets.base import ClipDataset
from datasets.listing import list_class_folders, list_folders, loose_images, read_classnames, to_items
from datasets.mirrors import PART_OF
from datasets.splits import Split, read_split, split_three
from datasets.text import read_table, shortened
from datasets.validation import check_class_folders, check_name, same_names, split_entry, unfit_names

COLUMNS = ("path", "label", "classname")
_INTEGER = re.compile("-?[0-9]{1,30}")


class OwnData(ClipDataset):
    """Base of the two: DATASET.ROOT is the dataset itself, and classes and sample prompts are printed."""

    def announce(self) -> None:
        """Print the class names and sample prompts."""
        prompts = fill(self.template, self.classnames[:3])
        print(printable(f"{type(self).__name__}: {self.num_classes} classes: {first_few(self.classnames, 20)}"))
        print(printable(f"  sample prompts: {' | '.join(prompts)}"))
        if unfit := unfit_names(self.classnames):
            self.note(
                f"{unfit}: CLIP knows words, not identifiers. Write a classnames.txt with one '<folder> <class name>' "
                "per line into DATASET.ROOT (ImageFolder), or put words into the list (SplitFile)"
            )

    def no_data(self, problem: str) -> FileNotFoundError:
        """The error for a DATASET.ROOT that does not contain such a dataset."""
        return FileNotFoundError(
            f"{type(self).__name__}: {problem}\n  expected: {self.layout}\n"
            "  set DATASET.ROOT (train.py --root, DATA for the scripts) to it; docs/DATASETS.md has examples"
        )


@DATASET_REGISTRY.register()
class ImageFolder(OwnData):
    """Class folders in DATASET.ROOT: ``train/<class>/`` and ``test/<class>/`` (and ``val/<class>/``), or one tree.

    A single tree of class folders is split 50/20/30 with a fixed seed. Images may be in folders of a class folder.
    Class names are the folder names, or those in ``classnames.txt`` in DATASET.ROOT (one ``<folder> <class name>`` per
    line).
    """

    layout = "<root>/{train,test}/<class>/*.jpg (val/ is optional), or <root>/<class>/*.jpg to be split"

    def __init__(self, cfg: CfgNode) -> None:
        root = self.data_root(cfg)
        if not root.is_dir():
            raise self.no_data(f"{root} is not a folder")
        self.dataset_dir = root
        folders = self._folders(root)
        listings = {part: list_class_folders(folder, note=self.note) for part, folder in folders.items()}
        for part, listing in listings.items():
            self._check_depth(folders[part], listing)
            self._name_loose_files(folders[part])
        names = {name: utf8_text(name) for name in listings["train"]}
        names_file = root / "classnames.txt"
        if os.path.lexists(names_file):
            names = dict(sorted(read_classnames(names_file, names).items()))
            check_class_folders(list(listings["train"]), names, folders["train"], names_file)
        for name in names.values():
            check_name(name, str(folders["train"]))
        same_names(names, "folders")
        parts = {}
        for part, listing in listings.items():
            check_class_folders(list(listing), names, folders[part], folders["train"])
            parts[part] = to_items(folders[part], listing, names)
        one_tree = "test" not in parts
        if one_tree:
            print(f"{root} is a single tree of class folders: its images are split 50/20/30 with a fixed seed")
        split = split_three(parts["train"]) if one_tree else Split(parts["train"], parts.get("val", []), parts["test"])
        self.finish(cfg, split, files_exist=True)
        self.announce()

    def _folders(self, root: Path) -> dict[str, Path]:
        """The folders of train, test and val; a tree without these is train as a whole."""
        parts: dict[str, Path] = {}
        for name in list_folders(root):
            if part := PART_OF.get(name.lower()):
                if part in parts:
                    raise self.no_data(f"{root} contains both {parts[part].name}/ and {name}/: keep one of them")
                parts[part] = root / name
        if not parts:
            return {"train": root}
        if unused := [name for name in list_folders(root) if name.lower() not in PART_OF]:
            self.note(f"{root} also contains folders that are not used: {first_few(unused)}")
        if "train" not in parts:
            raise self.no_data(f"{root} contains {next(iter(parts.values())).name}/ but no train/")
        if "test" in parts:
            return {part: parts[part] for part in ("train", "test", "val") if part in parts}
        if "val" not in parts:
            raise self.no_data(f"{root} contains {parts['train'].name}/ but neither test/ nor val/")
        print(f"{root} contains no test/: the images of {parts['val'].name}/ are the test set")
        return {"train": parts["train"], "test": parts["val"]}

    def _check_depth(self, folder: Path, listing: Mapping[str, list[str]]) -> None:
        """Raise an error if the class folders are deeper than they should be, or contain folders of train and test."""
        if len(listing) == 1:
            ((only, images),) = listing.items()
            places = {os.path.dirname(image) for image in images}
            if len(places) > 1 and "" not in places:
                deeper = (folder / only / os.path.commonpath(places)).resolve()
                inner = f"{folder} contains one folder, {only}/, with the class folders deeper in it"
                if folder == self.dataset_dir:
                    raise self.no_data(f"{inner}: use --root {deeper}")
                raise self.no_data(f"{inner}: move the folders in {deeper} to {folder}")
        for name, images in listing.items() if folder == self.dataset_dir else ():
            first = {image.partition("/")[0] for image in images if "/" in image}
            if parts := sorted(part for part in first if part.lower() in PART_OF):
                raise self.no_data(
                    f"{folder / name} contains {first_few(f'{part}/' for part in parts)}: use --root {folder / name} "
                    f"if class folders are in it; if {name} is a class, move its images to {folder}/{parts[0]}/{name}/"
                )

    def _name_loose_files(self, folder: Path) -> None:
        """Note the images that are in no class folder."""
        if loose := loose_images(folder):
            self.note(f"{len(loose)} images in {folder} are in no class folder and are not used: {first_few(loose, 3)}")


@DATASET_REGISTRY.register()
class SplitFile(OwnData):
    """A list of files: DATASET.ROOT is a split JSON or a table, or a folder with ``split.json``, ``.csv`` or ``.tsv``.

    JSON: ``{"train": [[path, label, class name], …], "val": […], "test": […]}``, ``val`` optional. A table has the
    columns ``path,label,classname`` and, optional, ``split`` (train, val or test), separated by commas, semicolons or
    tabs. Without the latter, images are split 50/20/30 with a fixed seed. Paths are relative to the file's folder, or
    to ``images`` in it.
    """

    layout = "<root> is a .json, .csv or .tsv file, or a folder with split.json, split.csv or split.tsv"

    def __init__(self, cfg: CfgNode) -> None:
        path = self._find(self.data_root(cfg))
        self.dataset_dir = path.parent
        self.image_dir = path.parent
        split = self._read(path, self.image_dir)
        first = next((item.impath for items in split for item in items), "")
        if not Path(first).exists() and (path.parent / "images").is_dir():
            self.image_dir = path.parent / "images"
            split = self._read(path, self.image_dir)
        refuse_repetitions(split, path)
        same_names({item.label: item.classname for items in split for item in items}, "labels")
        self.finish(cfg, split)
        self.announce()

    def _find(self, root: Path) -> Path:
        if root.is_file():
            if root.suffix.lower() not in (".json", ".csv", ".tsv"):
                raise self.no_data(f"{root} is neither .json nor .csv nor .tsv")
            return root
        found = [root / f"split{suffix}" for suffix in (".json", ".csv", ".tsv") if (root / f"split{suffix}").is_file()]
        if not found:
            raise self.no_data(f"{root} contains neither split.json nor split.csv nor split.tsv")
        if len(found) > 1:
            raise self.no_data(f"{root} contains both {found[0].name} and {found[1].name}")
        return found[0]

    @staticmethod
    def _read(path: Path, image_dir: Path) -> Split:
        return read_split(path, image_dir) if path.suffix.lower() == ".json" else read_csv(path, image_dir)


def read_csv(path: Path, image_dir: Path) -> Split:
    """The split of a table with the columns path, label, classname and, optional, split; see ``text.read_table``.

    Raises:
        ValueError: a column is missing, or a line is invalid; the message has its number.
    """
    split = Split([], [], [])
    everything: list[Datum] = []
    for where, cells in read_table(path, COLUMNS, ("split",)):
        label = cells["label"]
        number = int(label) if _INTEGER.fullmatch(label) else label
        rel, number, classname = split_entry([cells["path"], number, cells["classname"]], where)
        part = cells.get("split", "")
        if "split" in cells and part not in Split._fields:
            raise ValueError(f"{where}: split must be train, val or test, not {shortened(part)}")
        item = Datum(f"{image_dir}/{rel}", number, classname=classname)
        (getattr(split, part) if part else everything).append(item)
    if everything:
        print(f"{path} has no column split: its images are split 50/20/30 with a fixed seed")
        return split_three(everything)
    return split


def refuse_repetitions(split: Split, path: Path) -> None:
    """Raise a ValueError if an image is listed more than once: an image in both train and test leaks."""
    counts = Counter(item.impath for items in split for item in items)
    if repeated := [impath for impath, count in counts.items() if count > 1]:
        raise ValueError(f"{path} lists {len(repeated)} images more than once, the first: {first_few(repeated, 3)}")
