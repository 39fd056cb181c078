"""Splits of a dataset: reading and writing them, few-shot subsets, base and new classes, and the class that ends so."""

import gzip
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from yacs.config import CfgNode

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import check_availability, write_json
from datasets.validation import check_files_exist, check_split, split_entry

T = TypeVar("T")
SUBSAMPLES = ("all", "base", "new")
DEFAULT_ROOT = "./data"


class Split(NamedTuple):
    """The items of a dataset. ``val`` may be empty."""

    train: list[Datum]
    val: list[Datum]
    test: list[Datum]


def read_split(path: Path | str, image_dir: Path | str) -> Split:
    """Read a split file: JSON (or JSON.gz), lists ``train``, ``val``, ``test`` of [relative path, label, class name].

    Args:
        path: the file.
        image_dir: folder that the paths are relative to.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a split; the message names the list and the entry.
    """
    path, image_dir = Path(path), Path(image_dir)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        try:
            content = json.load(file)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not valid JSON ({error}): get it again") from error
    if not isinstance(content, dict) or not {"train", "test"} <= content.keys():
        raise ValueError(f'{path} must be an object with the lists "train", "val" (may be missing) and "test"')
    prefix = str(image_dir)
    parts = {}
    for name in Split._fields:
        entries = content.get(name, [])
        if not isinstance(entries, list):
            raise ValueError(f'{path}: "{name}" must be a list, not {type(entries).__name__}')
        checked = [split_entry(entry, f"{path}: {name}[{i}]") for i, entry in enumerate(entries)]
        parts[name] = [Datum(f"{prefix}/{rel}", label, classname=cname) for rel, label, cname in checked]
    return Split(**parts)


def write_split(path: Path | str, split: Split, image_dir: Path | str) -> None:
    """Write a split as ``read_split`` reads it, with paths relative to ``image_dir``, atomically.

    Raises:
        ValueError: an item lies outside ``image_dir``.
    """

    def relative(item: Datum) -> str:
        try:
            return Path(item.impath).relative_to(image_dir).as_posix()
        except ValueError as error:
            raise ValueError(f"{item.impath} is not below {image_dir}: a split holds relative paths") from error

    write_json(
        {name: [[relative(i), i.label, i.classname] for i in items] for name, items in split._asdict().items()}, path
    )


def shot_rng(seed: int) -> random.Random:
    """The generator of the shots; a negative seed (none) gives one that Python's main generator seeds."""
    return random.Random(seed if seed >= 0 else random.getrandbits(64))


def draw_shots(items: Sequence[T], num_shots: int, rng: random.Random) -> list[T]:
    """``num_shots`` items of one class; all of them, without a draw, if there are fewer."""
    return rng.sample(items, num_shots) if len(items) >= num_shots else list(items)


def few_shot(split: Split, num_shots: int, seed: int) -> Split:
    """The K-shot subset: K items of each class of train, then min(K, 4) of val; test stays.

    One ``random.Random(seed)`` draws over train and then over val, for each class in order of first appearance.
    This gives the subsets that the published numbers were measured on.

    Args:
        split: the full split.
        num_shots: K; below 1 the split is returned as it is.
        seed: 0 and up; negative: not reproducible by itself.
    """
    if num_shots < 1:
        return split
    rng = shot_rng(seed)

    def draw(items: list[Datum], shots: int) -> list[Datum]:
        by_label: dict[int, list[Datum]] = {}
        for item in items:
            by_label.setdefault(item.label, []).append(item)
        return [item for group in by_label.values() for item in draw_shots(group, shots, rng)]

    train = draw(split.train, num_shots)
    return Split(train, draw(split.val, min(num_shots, 4)), split.test)


def subsample_lists(lists: Sequence[list[Datum]], subsample: str) -> list[list[Datum]]:
    """``subsample_classes`` for any number of lists; the first one defines the classes."""
    check_availability(subsample, SUBSAMPLES)
    if subsample == "all":
        return list(lists)
    labels = sorted({item.label for item in lists[0]})
    half = math.ceil(len(labels) / 2)
    chosen = labels[:half] if subsample == "base" else labels[half:]
    relabel = {label: new for new, label in enumerate(chosen)}
    return [
        [Datum(i.impath, relabel[i.label], i.domain, i.classname) for i in items if i.label in relabel]
        for items in lists
    ]


def subsample_classes(split: Split, subsample: str) -> Split:
    """The items of the base classes (first ⌈n/2⌉ by label), of the new ones (the rest), or all; labels from 0.

    Raises:
        ValueError: ``subsample`` is none of "all", "base", "new".
    """
    return Split(*subsample_lists(split, subsample))


class ClipDataset(DatasetBase):
    """Base of the datasets here: where they lie, what is wrong with them, and the ending that all share.

    A subclass sets ``dataset_dir`` and, where they differ, the other class attributes; its ``__init__(cfg)`` makes a
    Split and calls ``finish``.
    """

    template = "a photo of a {}."  # hand-written prompt of zero-shot CLIP
    dataset_dir: str | Path = ""  # published folder name below DATASET.ROOT
    dir_aliases: tuple[str, ...] = ()  # names that mirrors give the folder
    layout = ""  # what lies in the folder, for messages
    by_hand = ""  # what the user must do where `prepare` cannot
    expected: tuple[int, int, int] | None = None  # published sizes: train, val, test
    expected_classes: int | None = None

    @classmethod
    def data_root(cls, cfg: CfgNode) -> Path:
        """DATASET.ROOT as an absolute path; ./data if it is empty."""
        return Path(cfg.DATASET.ROOT or DEFAULT_ROOT).expanduser().absolute()

    def locate(self, cfg: CfgNode) -> Path:
        """The dataset's folder; sets ``self.dataset_dir`` to it.

        Raises:
            FileNotFoundError: there is none; the message says what was looked for, where, and how to get it.
        """
        root = self.data_root(cfg)
        candidates = [root / name for name in (self.dataset_dir, *self.dir_aliases)]
        found = next((folder for folder in candidates if folder.is_dir()), None)
        if found is None:
            raise self.missing(root, *candidates)
        self.dataset_dir = found
        self._name_pickles(cfg, found)
        return found

    def missing(self, root: Path, *looked_for: Path) -> FileNotFoundError:
        """The error for a dataset, or a part of it, that is in none of the places."""
        name = type(self).__name__
        lines = [
            f"{name} is not there or not complete.",
            f"  looked for: {' or '.join(str(path) for path in looked_for)}",
            f"  expected:   {self.layout}",
            f"  get it:     python -m datasets prepare {name} --root {root}",
        ]
        if self.by_hand:
            lines.append(f"  by hand:    {self.by_hand}")
        lines.append(
            "  elsewhere:  set DATASET.ROOT (train.py --root, DATA for the scripts) to the folder that holds it"
        )
        return FileNotFoundError("\n".join(lines))

    def require(self, *candidates: Path) -> Path:
        """The first of the paths that exists.

        Raises:
            FileNotFoundError: none does.
        """
        for path in candidates:
            if path.exists():
                return path
        raise self.missing(Path(self.dataset_dir).parent, *candidates)

    def finish(self, cfg: CfgNode, split: Split, ready: bool = False) -> None:
        """Check the split, draw the shots, choose base or new classes, and initialise the dataset.

        Args:
            cfg: DATASET.NUM_SHOTS, DATASET.SUBSAMPLE_CLASSES and SEED.
            split: all items.
            ready: the files are known to exist and the shots are drawn.

        Raises:
            ValueError: the split is inconsistent, or names files that are not there.
        """
        check_split(split, type(self).__name__)
        if not ready:
            check_files_exist([item.impath for items in split for item in items], type(self).__name__)
            split = few_shot(split, cfg.DATASET.NUM_SHOTS, cfg.SEED)
        split = subsample_classes(split, cfg.DATASET.SUBSAMPLE_CLASSES)
        super().__init__(train_x=split.train, val=split.val, test=split.test)

    @staticmethod
    def _name_pickles(cfg: CfgNode, folder: Path) -> None:
        """Say that a published few-shot pickle is not read: unpickling runs code, and the draw repeats it exactly."""
        pickle = folder / "split_fewshot" / f"shot_{cfg.DATASET.NUM_SHOTS}-seed_{cfg.SEED}.pkl"
        if pickle.exists():
            print(f"{pickle} is not read (a pickle can run code): the subset is drawn again from the split")


def sizes(dataset: Any) -> tuple[int, int, int]:
    """Number of training, validation and test items of a dataset."""
    return len(dataset.train_x or []), len(dataset.val or []), len(dataset.test or [])
