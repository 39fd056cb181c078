"""Few-shot subsets, base and new classes, and the base class whose ending applies both to every dataset."""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from yacs.config import CfgNode

from dassl.config import setting
from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import check_availability
from datasets.sources import Source
from datasets.splits import Split, by_label, read_split, relocate, write_split
from datasets.validation import check_files_exist, check_split

__all__ = [
    "ClipDataset",
    "Split",
    "draw_shots",
    "few_shot",
    "read_split",
    "shot_rng",
    "subsample_classes",
    "subsample_lists",
    "write_split",
]

T = TypeVar("T")
SUBSAMPLES = ("all", "base", "new")
DEFAULT_ROOT = "./data"


def shot_rng(seed: int) -> random.Random:
    """The generator of the shots; a negative seed (none) gives one that Python's main generator seeds."""
    return random.Random(seed if seed >= 0 else random.getrandbits(64))


def draw_shots(items: Sequence[T], num_shots: int, rng: random.Random) -> list[T]:
    """``num_shots`` items of one class; all of them, without a draw, if there are fewer."""
    return rng.sample(items, num_shots) if len(items) >= num_shots else list(items)


def few_shot(split: Split, num_shots: int, seed: int) -> Split:
    """The K-shot subset: K items of each class of train, then min(K, 4) of val; test stays.

    One ``random.Random(seed)`` draws over train and then over val, for each class in order of first appearance.
    This gives the subsets that the published numbers were measured on. It takes milliseconds and is never cached.

    Args:
        split: the full split.
        num_shots: K; below 1 the split is returned as it is.
        seed: 0 and up; negative: not reproducible by itself.
    """
    if num_shots < 1:
        return split
    rng = shot_rng(seed)

    def draw(items: list[Datum], shots: int) -> list[Datum]:
        return [item for group in by_label(items).values() for item in draw_shots(group, shots, rng)]

    train = draw(split.train, num_shots)
    return Split(train, draw(split.val, min(num_shots, 4)), split.test)


def subsample_lists(lists: Sequence[list[Datum]], subsample: str) -> list[list[Datum]]:
    """``subsample_classes`` for any number of lists; the first one defines the classes."""
    check_availability(subsample, SUBSAMPLES, "DATASET.SUBSAMPLE_CLASSES")
    if subsample == "all":
        return list(lists)
    labels = sorted({item.label for item in lists[0]})
    half = math.ceil(len(labels) / 2)
    chosen = labels[:half] if subsample == "base" else labels[half:]
    if not chosen:
        raise ValueError(f"{len(labels)} class cannot be parted into base and new: DATASET.SUBSAMPLE_CLASSES all")
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
    ignored_folders: tuple[str, ...] = ()  # class folders that are no part of the dataset
    sources: tuple[Source, ...] = ()  # where `prepare` gets its files
    on_published_split = True  # False where the split was made of the original annotations
    hub_copy = ""  # Hugging Face data set that holds an archive of it, where the sources fail

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
        pickle = found / "split_fewshot" / f"shot_{cfg.DATASET.NUM_SHOTS}-seed_{cfg.SEED}.pkl"
        if pickle.exists():
            print(f"{pickle} is not read (a pickle can run code): the subset is drawn again from the split")
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

    def published_split(self, image_dir: Path, build: Callable[[], Split]) -> Split:
        """The published split, ``split_zhou_<Name>.json`` in the dataset's folder.

        If it is not there, what ``build`` makes of the original annotations, as CoOp does.
        """
        folder, name = Path(self.dataset_dir), type(self).__name__
        path = folder / f"split_zhou_{name}.json"
        if path.exists():
            return relocate(read_split(path, image_dir), image_dir, folder, self.ignored_folders)
        self.on_published_split = False
        print(
            f"{path} is not there: the split is made from the original annotations. Accuracies are comparable with "
            f"published ones only on the published split: python -m datasets prepare {name}"
        )
        try:
            split = build()
        except FileNotFoundError:
            raise
        except Exception as error:  # a damaged annotation file can fail in any way
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{name}: the annotations in {folder} are damaged ({reason}). Get them again") from error
        return relocate(split, image_dir, folder, self.ignored_folders)

    def finish(self, cfg: CfgNode, split: Split, ready: bool = False) -> None:
        """Check the split, draw the shots, choose base or new classes, and initialise the dataset.

        Args:
            cfg: DATASET.NUM_SHOTS, DATASET.SUBSAMPLE_CLASSES and SEED.
            split: all items.
            ready: the files are known to exist and the shots are drawn.

        Raises:
            FileNotFoundError: the split names files that are not there.
            ValueError: the split is inconsistent.
        """
        name = type(self).__name__
        check_split(split, name)
        self._check_number_of_classes(split)
        sizes = tuple(len(items) for items in split)
        first = 1 if ready else 0  # drawn shots say nothing about the dataset's size
        if self.expected and sizes[first:] != self.expected[first:]:
            print(
                f"Note: {name} has {sizes[0]:,} training, {sizes[1]:,} validation and {sizes[2]:,} test images here, "
                f"as published {' / '.join(f'{size:,}' for size in self.expected)}: python -m datasets check {name}"
            )
        if not ready:
            remedy = f"unpack them again (python -m datasets prepare {name})" if self.sources else "restore them"
            check_files_exist([item.impath for items in split for item in items], name, remedy)
            split = few_shot(split, cfg.DATASET.NUM_SHOTS, cfg.SEED)
        split = subsample_classes(split, setting(cfg, "DATASET.SUBSAMPLE_CLASSES"))
        super().__init__(train_x=split.train, val=split.val, test=split.test)

    def _check_number_of_classes(self, split: Split) -> None:
        """A class folder too few or too many would give every later class another label."""
        classes = len({item.label for item in split.train})
        if self.expected_classes and classes != self.expected_classes:
            name = type(self).__name__
            raise ValueError(
                f"{name} has {classes} classes here, {self.expected_classes} as published: class folders are missing "
                "or too many, and every later class would get another label. Unpack them again; images of your own "
                "are for DATASET.NAME ImageFolder"
            )
