"""The user's own images without code: a folder of class folders, or a list of files."""

import csv
import io
from collections import Counter
from pathlib import Path

from yacs.config import CfgNode

from dassl.data.datasets import DATASET_REGISTRY, Datum
from dassl.utils import first_few
from dassl.utils.console import printable, utf8_text
from datasets.base import ClipDataset, fill_template
from datasets.listing import list_class_folders, read_classnames, to_items
from datasets.splits import Split, read_split, split_three
from datasets.validation import check_class_folders, split_entry

COLUMNS = ("path", "label", "classname")
VAL_NAMES = ("val", "valid", "validation", "dev")


class OwnData(ClipDataset):
    """Base of the two: DATASET.ROOT is the dataset itself, and classes and sample prompts are printed."""

    def announce(self) -> None:
        """Print the class names and sample prompts."""
        prompts = [fill_template(self.template, name) for name in self.classnames[:3]]
        print(printable(f"{type(self).__name__}: {self.num_classes} classes: {first_few(self.classnames, 20)}"))
        print(printable(f"  sample prompts: {' | '.join(prompts)}"))

    def no_data(self, problem: str) -> FileNotFoundError:
        """The error for a DATASET.ROOT that does not contain such a dataset."""
        return FileNotFoundError(
            f"{type(self).__name__}: {problem}\n  expected: {self.layout}\n"
            "  set DATASET.ROOT (train.py --root, DATA for the scripts) to it; docs/DATASETS.md has examples"
        )


@DATASET_REGISTRY.register()
class ImageFolder(OwnData):
    """Class folders in DATASET.ROOT: ``train/<class>/`` and ``test/<class>/`` (and ``val/<class>/``), or one tree.

    A single tree of class folders is split 50/20/30 with a fixed seed. Class names are the folder names, or those in
    ``classnames.txt`` in DATASET.ROOT (one ``<folder> <class name>`` per line).
    """

    layout = "<root>/{train,test}/<class>/*.jpg (val/ is optional), or <root>/<class>/*.jpg to be split"

    def __init__(self, cfg: CfgNode) -> None:
        root = self.data_root(cfg)
        if not root.is_dir():
            raise self.no_data(f"{root} is not a folder")
        self.dataset_dir = root
        folders = self._folders(root)
        listings = {part: list_class_folders(folder) for part, folder in folders.items()}
        names = {name: utf8_text(name) for name in listings["train"]}
        names_file = root / "classnames.txt"
        if names_file.exists():
            names = dict(sorted(read_classnames(names_file).items()))
            check_class_folders(list(listings["train"]), names, folders["train"], names_file)
        parts = {}
        for part, listing in listings.items():
            check_class_folders(list(listing), names, folders[part], folders["train"])
            parts[part] = to_items(folders[part], listing, names)
        one_tree = "test" not in parts
        if one_tree:
            print(f"{root} is a single tree of class folders: its images are split 50/20/30 with a fixed seed")
        self.finish(
            cfg, split_three(parts["train"]) if one_tree else Split(parts["train"], parts.get("val", []), parts["test"])
        )
        self.announce()

    def _folders(self, root: Path) -> dict[str, Path]:
        """The folders of train, test and val, in upper or lower case; a tree without these is train as a whole."""
        parts = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
        train, test = parts.get("train"), parts.get("test")
        val = next((parts[name] for name in VAL_NAMES if name in parts), None)
        if train is None:
            if test or val:
                raise self.no_data(f"{root} contains {(test or val or root).name}/ but no train/")
            return {"train": root}
        if test is not None:
            return {"train": train, "test": test} | ({"val": val} if val else {})
        if val is None:
            raise self.no_data(f"{root} contains train/ but neither test/ nor val/")
        print(f"{root} contains no test/: the images of {val.name}/ are the test set")
        return {"train": train, "test": val}


@DATASET_REGISTRY.register()
class SplitFile(OwnData):
    """A list of files: DATASET.ROOT is a split JSON or CSV, or a folder with ``split.json`` or ``split.csv``.

    JSON: ``{"train": [[path, label, class name], …], "val": […], "test": […]}``, ``val`` optional. CSV: the columns
    ``path,label,classname`` and, optional, ``split`` (train, val or test). Without it, images are split 50/20/30 with a
    fixed seed. Paths are relative to the file's folder, or to ``images`` in it.
    """

    layout = "<root> is a .json or .csv file, or a folder with split.json or split.csv"

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
        self.finish(cfg, split)
        self.announce()

    def _find(self, root: Path) -> Path:
        if root.is_file():
            if root.suffix.lower() not in (".json", ".csv"):
                raise self.no_data(f"{root} is neither .json nor .csv")
            return root
        found = [root / name for name in ("split.json", "split.csv") if (root / name).is_file()]
        if len(found) != 1:
            raise self.no_data(
                f"{root} contains {'both' if found else 'neither'} split.json {'and' if found else 'nor'} split.csv"
            )
        return found[0]

    @staticmethod
    def _read(path: Path, image_dir: Path) -> Split:
        return read_csv(path, image_dir) if path.suffix.lower() == ".csv" else read_split(path, image_dir)


def read_csv(path: Path, image_dir: Path) -> Split:
    """The split of a CSV with the columns path, label, classname and, optional, split.

    Raises:
        ValueError: a column is missing, or a line is invalid; the message has its number.
    """
    split = Split([], [], [])
    everything: list[Datum] = []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): save it as UTF-8") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    header = [name.strip().lower() for name in reader.fieldnames or []]
    reader.fieldnames = header
    if absent := [name for name in COLUMNS if name not in header]:
        raise ValueError(f"{path} must have the columns {','.join(COLUMNS)}[,split]; {','.join(absent)} is missing")
    if unknown := [name for name in header if name not in (*COLUMNS, "split")]:
        raise ValueError(f"{path} has the unknown columns {','.join(unknown)}; known are {','.join(COLUMNS)},split")
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        cells = {name: (row[name] or "").strip() for name in header}
        number: int | str = int(cells["label"]) if cells["label"].removeprefix("-").isdecimal() else cells["label"]
        rel, label, classname = split_entry([cells["path"], number, cells["classname"]], where)
        part = cells.get("split", "")
        if "split" in header and part not in Split._fields:
            raise ValueError(f"{where}: split must be train, val or test, not {part!r}")
        item = Datum(f"{image_dir}/{rel}", label, classname=classname)
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
