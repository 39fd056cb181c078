"""Checks that turn wrong data into errors: each message says what is wrong, where, and how to fix it."""

import os
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import first_few


def split_entry(entry: Any, where: str) -> tuple[str, int, str]:
    """One entry of a split file: (relative path, label, class name).

    Raises:
        ValueError: not such an entry, or the path is absolute or leads out of the image folder.
    """
    if not isinstance(entry, (list, tuple)) or len(entry) != 3:
        raise ValueError(f"{where} must be [relative path, label, class name], not {entry!r}")
    path, label, classname = entry
    if not isinstance(path, str) or not isinstance(classname, str) or not path or not classname:
        raise ValueError(f"{where}: path and class name must be non-empty text, not {entry!r}")
    if isinstance(label, bool) or not isinstance(label, int):
        raise ValueError(f"{where}: the label must be an integer, not {label!r}")
    if path.startswith(("/", "\\")) or posixpath.normpath(path).startswith(".."):
        raise ValueError(f"{where}: {path!r} must be relative to the image folder and stay inside it")
    return path, label, classname


def check_split(
    train: Sequence[Datum],
    val: Sequence[Datum],
    test: Sequence[Datum],
    name: str,
    expected_classes: int | None = None,
) -> None:
    """Check that train and test are not empty and that all three lists agree on labels and class names.

    Args:
        train, val, test: the items; ``val`` may be empty.
        name: the dataset's, for messages.
        expected_classes: the published number of classes, if there is one.

    Raises:
        ValueError: an empty list, a gap in the labels, a label with two names, a label of val or test that train
            does not have or names differently, a class without test images, or another number of classes.
    """
    for part, items in (("training", train), ("test", test)):
        if not items:
            raise ValueError(f"{name} has no {part} images: its folder or split file is empty")
    try:
        lab2cname, _ = DatasetBase.get_lab2cname(train)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    for part, items in (("validation", val), ("test", test)):
        _check_labels(items, lab2cname, f"{name}: the {part} images")
    if untested := sorted(set(lab2cname) - {item.label for item in test}):
        listed = first_few(f"{label} ({lab2cname[label]})" for label in untested)
        raise ValueError(f"{name}: {len(untested)} of {len(lab2cname)} classes have no test images: {listed}")
    if expected_classes and len(lab2cname) != expected_classes:
        raise ValueError(
            f"{name} has {len(lab2cname)} classes here, published: {expected_classes}. Missing or extra class folders "
            "shift the label of every later class: unpack the images again. For your own images use DATASET.NAME "
            "ImageFolder"
        )


def _check_labels(items: Sequence[Datum], lab2cname: Mapping[int, str], where: str) -> None:
    found = {(item.label, item.classname) for item in items}
    if unknown := sorted(pair for pair in found if pair[0] not in lab2cname):
        listed = first_few(f"{label} ({cname})" for label, cname in unknown)
        raise ValueError(f"{where} have labels without training images: {listed}")
    if renamed := sorted(pair for pair in found if lab2cname[pair[0]] != pair[1]):
        listed = first_few(f"{label} is {cname!r}, in training {lab2cname[label]!r}" for label, cname in renamed)
        raise ValueError(f"{where} have other class names than the training images: label {listed}")


def missing_files(paths: Iterable[str]) -> list[str]:
    """The paths that do not exist. Each folder is listed once, which is faster than a stat of each file."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        by_folder[os.path.dirname(path)].append(path)
    missing = []
    for folder, members in by_folder.items():
        try:
            present = set(os.listdir(folder))
        except OSError:
            present = set()
        missing += [path for path in members if os.path.basename(path) not in present]
    return missing


class MissingImagesError(FileNotFoundError):
    """A split lists images that do not exist; ``paths`` has all of them."""

    def __init__(self, paths: Sequence[str], listed: int, name: str, remedy: str) -> None:
        super().__init__(
            f"{name}: {len(paths)} of {listed} images in the split do not exist, the first: {first_few(paths, 3)}\n"
            f"  {remedy}, or use a split of the existing images"
        )
        self.paths = list(paths)


def check_files_exist(paths: Iterable[str], name: str, remedy: str) -> None:
    """Raise a MissingImagesError if any of the files does not exist."""
    paths = list(paths)
    if missing := missing_files(paths):
        raise MissingImagesError(missing, len(set(paths)), name, remedy)


def check_class_folders(
    folders: Sequence[str], classnames: Mapping[str, str], where: object, names_file: object
) -> None:
    """Check that the class folders are exactly those that the class-name file lists.

    Raises:
        ValueError: the file belongs to another dataset, or folders are missing, or there are extra ones.
    """
    absent = [folder for folder in classnames if folder not in set(folders)]
    extra = [folder for folder in folders if folder not in classnames]
    if folders and len(extra) * 2 >= len(folders):
        raise ValueError(
            f"{names_file} looks like the class-name file of another dataset: it does not list {len(extra)} of the "
            f"{len(folders)} class folders in {where} ({first_few(extra)}). Replace it with this dataset's file"
        )
    if absent:
        raise ValueError(
            f"{len(absent)} of {len(classnames)} class folders are missing in {where}: {first_few(absent)}. "
            "Unpack them: without them every later class would get another label"
        )
    if extra:
        raise ValueError(
            f"{where} contains {len(extra)} folders that {names_file} does not list: {first_few(extra)}. "
            "Move them out of it"
        )
