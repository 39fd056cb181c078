"""Checks that turn wrong data into errors: every message names what is wrong, where, and what to do."""

import os
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dassl.data.datasets import DatasetBase, Datum
from dassl.data.datasets.base_dataset import first_few

if TYPE_CHECKING:
    from datasets.fewshot import Split


def split_entry(entry: Any, where: str) -> tuple[str, int, str]:
    """One entry of a split file: (relative path, label, class name).

    Raises:
        ValueError: it is not that, or the path is absolute or climbs out of the image folder.
    """
    if not isinstance(entry, (list, tuple)) or len(entry) != 3:
        raise ValueError(f"{where} must be [relative path, label, class name], not {entry!r}")
    path, label, classname = entry
    if not isinstance(path, str) or not isinstance(classname, str) or not path or not classname:
        raise ValueError(f"{where}: path and class name must be non-empty text, not {entry!r}")
    if isinstance(label, bool) or not isinstance(label, int):
        raise ValueError(f"{where}: the label must be a whole number, not {label!r}")
    if path.startswith(("/", "\\")) or posixpath.normpath(path).startswith(".."):
        raise ValueError(f"{where}: {path!r} must be relative to the image folder and stay inside it")
    return path, label, classname


def check_split(split: "Split", name: str) -> None:
    """Raise unless train and test hold items and all three lists agree on labels and class names.

    Raises:
        ValueError: an empty list, a gap in the labels, a label with two names, or a label of val or test that train
            does not have or names differently.
    """
    for part, items in (("training", split.train), ("test", split.test)):
        if not items:
            raise ValueError(f"{name} has no {part} images: its folder or split file is empty")
    try:
        lab2cname, _ = DatasetBase.get_lab2cname(split.train)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    for part, items in (("validation", split.val), ("test", split.test)):
        _check_labels(items, lab2cname, f"{name}: the {part} images")
    if untested := sorted(set(lab2cname) - {item.label for item in split.test}):
        listed = first_few(f"{label} ({lab2cname[label]})" for label in untested)
        raise ValueError(f"{name}: {len(untested)} of {len(lab2cname)} classes have no test images: {listed}")


def _check_labels(items: Sequence[Datum], lab2cname: Mapping[int, str], where: str) -> None:
    found = {(item.label, item.classname) for item in items}
    if unknown := sorted(pair for pair in found if pair[0] not in lab2cname):
        listed = first_few(f"{label} ({cname})" for label, cname in unknown)
        raise ValueError(f"{where} have labels without training images: {listed}")
    if renamed := sorted(pair for pair in found if lab2cname[pair[0]] != pair[1]):
        listed = first_few(f"{label} is {cname!r}, in training {lab2cname[label]!r}" for label, cname in renamed)
        raise ValueError(f"{where} have other class names than the training images: label {listed}")


def missing_files(paths: Iterable[str]) -> list[str]:
    """Those paths that are not there. Folders are listed once, which is faster than a look at each file."""
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
    """Images that a split names and that are not there; ``paths`` has all of them."""

    def __init__(self, paths: Sequence[str], listed: int, name: str, remedy: str) -> None:
        super().__init__(
            f"{name}: {len(paths)} of {listed} images that the split names are not there, "
            f"the first: {first_few(paths, 3)}\n"
            f"  {remedy}, or use the split of the images that are there"
        )
        self.paths = list(paths)


def check_files_exist(paths: Iterable[str], name: str, remedy: str) -> None:
    """Raise a MissingImagesError if any of the files is not there."""
    paths = list(paths)
    if missing := missing_files(paths):
        raise MissingImagesError(missing, len(set(paths)), name, remedy)


def check_class_folders(
    folders: Sequence[str], classnames: Mapping[str, str], where: object, names_file: object
) -> None:
    """Raise unless the class folders are exactly those that the class-name file lists.

    Raises:
        ValueError: the file is another dataset's, or folders are missing, or there are more.
    """
    absent = [folder for folder in classnames if folder not in set(folders)]
    extra = [folder for folder in folders if folder not in classnames]
    if folders and len(extra) * 2 >= len(folders):
        raise ValueError(
            f"{names_file} looks like the class-name file of another dataset: it does not name {len(extra)} of the "
            f"{len(folders)} class folders in {where} ({first_few(extra)}). Put this dataset's own file there"
        )
    if absent:
        raise ValueError(
            f"{len(absent)} of {len(classnames)} class folders are missing in {where}: {first_few(absent)}. "
            "Every later class would get another label: unpack them"
        )
    if extra:
        raise ValueError(
            f"{where} holds {len(extra)} folders that {names_file} does not name: {first_few(extra)}. Move them away"
        )
