"""Splits of a dataset into train, val and test: read, write and make them, and find their files."""

import os
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from dassl.data.datasets import Datum
from dassl.utils import first_few, write_json
from datasets.listing import loose_images
from datasets.text import read_json
from datasets.validation import missing_files, split_entry

SPLIT_SEED = 0  # of splits made here: they depend on the files only, not on SEED


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
        ValueError: not a valid split; the message names the list and the entry.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not {"train", "test"} <= content.keys():
        raise ValueError(f'{path} must be an object with the lists "train", "val" (optional) and "test"')
    if unknown := [key for key, value in content.items() if key not in Split._fields and isinstance(value, list)]:
        raise ValueError(f'{path} has the unknown lists {first_few(unknown)}; known are "train", "val" and "test"')
    parts = {}
    for name in Split._fields:
        entries = content.get(name, [])
        if not isinstance(entries, list):
            raise ValueError(f'{path}: "{name}" must be a list, not {type(entries).__name__}')
        checked = [split_entry(entry, f"{path}: {name}[{i}]") for i, entry in enumerate(entries)]
        parts[name] = [Datum(f"{image_dir}/{rel}", label, classname=cname) for rel, label, cname in checked]
    return Split(**parts)


def write_split(path: Path | str, split: Split, image_dir: Path | str) -> None:
    """Write a split as ``read_split`` reads it, with paths relative to ``image_dir``, atomically.

    Raises:
        ValueError: an item is outside ``image_dir``.
    """

    def entry(item: Datum) -> list[str | int]:
        try:
            return [Path(item.impath).relative_to(image_dir).as_posix(), item.label, item.classname]
        except ValueError as error:
            raise ValueError(f"{item.impath} is not below {image_dir}: a split contains relative paths") from error

    write_json({name: [entry(item) for item in items] for name, items in split._asdict().items()}, path)


def by_label(items: Sequence[Datum]) -> dict[int, list[Datum]]:
    """The items of each label, in order of first appearance."""
    groups: dict[int, list[Datum]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    return groups


def split_trainval(trainval: Sequence[Datum], p_val: float = 0.2) -> tuple[list[Datum], list[Datum]]:
    """Split items into train and val, class by class, with a fixed seed.

    Args:
        trainval: the items.
        p_val: fraction of each class for val, at least one item.

    Raises:
        ValueError: a class has fewer than two items.
    """
    rng = random.Random(SPLIT_SEED)
    train, val = [], []
    for items in by_label(trainval).values():
        if len(items) < 2:
            raise ValueError(f"Class {items[0].classname!r} has one image: too few for training and validation")
        shuffled = rng.sample(items, len(items))
        n_val = max(1, round(len(items) * p_val))
        val += shuffled[:n_val]
        train += shuffled[n_val:]
    return train, val


def split_three(items: Sequence[Datum], p_trn: float = 0.5, p_val: float = 0.2) -> Split:
    """Split items into train, val and test, class by class, with a fixed seed.

    Args:
        items: the items.
        p_trn, p_val: fractions of each class for train and val; the rest is test.

    Raises:
        ValueError: a class has too few items for one of the three.
    """
    rng = random.Random(SPLIT_SEED)
    split = Split([], [], [])
    for group in by_label(items).values():
        n_train, n_val = round(len(group) * p_trn), round(len(group) * p_val)
        if not (n_train and n_val and len(group) - n_train - n_val > 0):
            raise ValueError(
                f"Class {group[0].classname!r} has {len(group)} images: too few for training, validation and test "
                f"({p_trn:.0%}, {p_val:.0%} and the rest). Add images, or provide a split"
            )
        shuffled = rng.sample(group, len(group))
        split.train.extend(shuffled[:n_train])
        split.val.extend(shuffled[n_train : n_train + n_val])
        split.test.extend(shuffled[n_train + n_val :])
    return split


def relocate(split: Split, image_dir: Path, folder: Path, ignored: Sequence[str] = ()) -> Split:
    """The split with the paths of files that a mirror keeps elsewhere in the dataset's folder, found by file name.

    A file is searched for only if its published folder contains no images at all: one missing among others is missing.
    Of the files with its name, the one whose folders share the most words with the published path is taken. It must be
    unique and not in the split as another item; otherwise the published path stays.

    Args:
        split: the published split.
        image_dir: folder that its paths are relative to.
        folder: the dataset's folder, which is searched.
        ignored: names of folders whose files are not part of the dataset.
    """
    named = {os.path.normpath(item.impath) for items in split for item in items}
    missing = missing_files(named)
    without = {f for f in map(os.path.dirname, missing) if not (os.path.isdir(f) and loose_images(f))}
    lost = {path for path in missing if os.path.dirname(path) in without}
    if not lost:
        return split
    places: dict[str, list[str]] = {}
    wanted = {os.path.basename(path) for path in lost}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in ignored and not name.startswith(".")]
        for name in wanted.intersection(names):
            if (place := os.path.normpath(f"{parent}/{name}")) not in named:
                places.setdefault(name, []).append(place)

    def found(path: str) -> str:
        published = _folder_words(path, image_dir)
        shared = [(len(published & _folder_words(c, folder)), c) for c in places.get(os.path.basename(path), [])]
        best = [candidate for count, candidate in shared if count == max(shared)[0] and (count or not published)]
        return best[0] if len(best) == 1 else path

    moved = {path: found(path) for path in lost}
    uses = Counter(moved.values())
    moved = {old: new for old, new in moved.items() if uses[new] == 1 and old != new}
    if len(moved) == len(lost):
        print(f"{len(moved)} images are not in their published folders; found by name in {folder}")
    return Split(*([_moved(item, moved) for item in items] for items in split))


def _moved(item: Datum, moved: Mapping[str, str]) -> Datum:
    place = moved.get(os.path.normpath(item.impath))
    return item if place is None else Datum(place, item.label, item.domain, item.classname)


def _folder_words(path: str, folder: Path) -> set[str]:
    """The words in the folder names between ``folder`` and the file: ``cars_train/05266.jpg`` → cars, train."""
    return set(re.split(r"[/_\s-]+", os.path.relpath(os.path.dirname(path), folder))) - {".", ""}
