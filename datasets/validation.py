"""Checks that turn wrong data into errors: each message says what is wrong, where, and how to fix it."""

import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import first_few
from dassl.utils.names import is_template, readable
from datasets.text import shortened, what_is

LONGEST_NAME, LONGEST_PATH = 1000, 4096  # characters; CLIP reads at most 77 tokens of a name
MOST_CLASSES = 1_000_000
_NO_TEXT = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_INVISIBLE = " \u200b\u200c\u200d\u2060\ufeff"
_DRIVE = re.compile("[A-Za-z]:")
_IDENTIFIERS = {
    "WordNet ids": re.compile(r"n\d{8}($|[-_ ])"),
    "WordNet synsets": re.compile(r"[^ ]+\.[nvasr]\.\d\d$"),
    "numbers": re.compile(r"\d+$"),
}


def check_name(name: str, where: str) -> str:
    """The class name, unchanged.

    Raises:
        ValueError: it is blank, very long, or contains characters that are no text.
    """
    if _is_plain(name):
        return name
    if _NO_TEXT.search(name):
        raise ValueError(f"{where}: the class name {shortened(name)} contains characters that are not text")
    if len(name) > LONGEST_NAME:
        raise ValueError(
            f"{where}: the class name {shortened(name)} has {len(name)} characters: CLIP reads a few words"
        )
    raise ValueError(f"{where}: the class name {shortened(name)} is blank: write what the images show")


@lru_cache
def _is_plain(name: str) -> bool:
    return len(name) <= LONGEST_NAME and not _NO_TEXT.search(name) and bool(readable(name).strip().strip(_INVISIBLE))


def relative_path(path: str, where: str) -> str:
    """A path below the image folder, in its shortest spelling: ``./x\\\\..\\\\a.jpg`` → ``a.jpg``.

    Backslashes, as Windows writes them, become slashes.

    Raises:
        ValueError: it is absolute, leads out of the image folder, or is no path.
    """
    if len(path) > LONGEST_PATH or _NO_TEXT.search(path):
        raise ValueError(f"{where}: {shortened(path)} is not a path")
    short = posixpath.normpath(path.replace("\\", "/"))
    if short.startswith(("/", "../")) or short == ".." or _DRIVE.match(short):
        raise ValueError(f"{where}: {path!r} must be relative to the image folder and stay inside it")
    if short == ".":
        raise ValueError(f"{where}: {path!r} is the image folder itself, not an image")
    return short


def split_entry(entry: Any, where: str) -> tuple[str, int, str]:
    """One entry of a split file: (relative path, label, class name).

    Raises:
        ValueError: not such an entry.
    """
    if not isinstance(entry, (list, tuple)) or len(entry) != 3:
        raise ValueError(f"{where} must be [relative path, label, class name], not {shortened(entry)}")
    path, label, classname = entry
    if not isinstance(path, str) or not isinstance(classname, str) or not path or not classname:
        raise ValueError(f"{where}: path and class name must be non-empty text, not {shortened(entry)}")
    if isinstance(label, bool) or not isinstance(label, int):
        raise ValueError(f"{where}: the label must be an integer, not {shortened(label)}")
    if not 0 <= label < MOST_CLASSES:
        raise ValueError(f"{where}: the label must be 0 to the number of classes - 1, not {shortened(label)}")
    return relative_path(path, where), label, check_name(classname, where)


def same_names(names: Mapping[Any, str], what: str) -> None:
    """Raise a ValueError if two classes have one name: CLIP ignores case, and underscores are spaces in a prompt.

    Args:
        names: {class folder or label: class name}.
        what: what its keys are, for the message.
    """
    seen: dict[str, Any] = {}
    for key, name in names.items():
        plain = " ".join(unicodedata.normalize("NFC", readable(name)).casefold().split())
        if plain in seen:
            other = seen[plain]
            raise ValueError(
                f"The {what} {other!r} and {key!r} have the same class name: {names[other]!r} and {name!r} give one "
                "prompt, so that CLIP cannot tell the classes apart. Merge them, or give them other names"
            )
        seen[plain] = key


def unfit_names(names: Sequence[str]) -> str:
    """What CLIP cannot make sense of: the kind of those class names, and the first of them; "" if there are none."""
    for kind, pattern in _IDENTIFIERS.items():
        if found := [name for name in names if pattern.match(name)]:
            return f"{len(found)} of {len(names)} class names are {kind} ({first_few(found, 3)})"
    return ""


def check_template(template: str) -> str:
    """A prompt with one place for the class name, unchanged.

    Raises:
        ValueError: ``{}`` does not occur exactly once, or there are other braces.
    """
    if not is_template(template) or _NO_TEXT.search(template):
        raise ValueError(
            f"DATASET.TEMPLATE is {shortened(template)}, but must contain {{}} once, where the class name goes, and no "
            "other braces, for example 'an X-ray of a {}.'"
        )
    return template


class ClassCountError(ValueError):
    """A dataset with another number of classes than published."""


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
        raise ClassCountError(
            f"{name} has {len(lab2cname)} classes here, published: {expected_classes}. Missing or extra class folders "
            "shift the label of every later class: unpack the images again"
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
    """The paths that are not files. Each folder is listed once, which is faster than a stat of each file."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        by_folder[os.path.dirname(path)].append(path)
    missing = []
    for folder, members in by_folder.items():
        try:
            with os.scandir(folder) as entries:
                present = {entry.name for entry in entries if entry.is_file()}
        except OSError:
            present = set()
        missing += [path for path in members if os.path.basename(path) not in present]
    return missing


def described(paths: Sequence[str]) -> str:
    """The first of some paths that are not files, with what they are instead."""
    kinds = [(path, what_is(path)) for path in paths[:3]]
    listed = [path if kind in ("nothing", "") else f"{path} ({kind})" for path, kind in kinds]
    return first_few([*listed, *paths[3:]], 3)


class MissingImagesError(FileNotFoundError):
    """A split lists images that do not exist; ``paths`` has all of them."""

    def __init__(self, paths: Sequence[str], listed: int, name: str, remedy: str) -> None:
        super().__init__(
            f"{name}: {len(paths)} of {listed} images in the split do not exist, the first: {described(paths)}\n"
            f"  {remedy}, or use a split of the existing images"
        )
        self.paths = list(paths)


def check_files_exist(paths: Iterable[str], name: str, remedy: str) -> None:
    """Raise a MissingImagesError if any of the files does not exist."""
    paths = list(paths)
    if missing := missing_files(paths):
        raise MissingImagesError(missing, len(set(paths)), name, remedy)


class MissingFoldersError(ValueError):
    """Class folders are missing that the class-name file, or the training images, have."""


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
        raise MissingFoldersError(
            f"{len(absent)} of {len(classnames)} class folders are missing in {where}: {first_few(absent)}. "
            "Unpack them: without them every later class would get another label"
        )
    if extra:
        raise ValueError(
            f"{where} contains {len(extra)} folders that {names_file} does not list: {first_few(extra)}. "
            "Move them out of it"
        )
