"""Copies of the published datasets as mirrors have them: other folder names, more levels, other arrangements."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from dassl.utils.names import bare
from datasets.listing import is_image, is_left_behind, list_folders

DEEPEST = 4  # levels that are searched
PART_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
PART_OF = {name: part for part, names in PART_NAMES.items() for name in names}


class SortedCopyError(ValueError):
    """A copy with class folders in train/ and test/ and without the published split."""


def folder_names(dataset: Any) -> tuple[str, ...]:
    """The names that the folder of a dataset (a class) may have, the published one first."""
    return (str(dataset.dataset_dir), *dataset.dir_aliases)


def same_folder(root: Path, names: Collection[str]) -> Path | None:
    """The only folder in ``root`` with one of ``names``, whatever its case and punctuation."""
    wanted = {bare(name) for name in names}
    found = [name for name in list_folders(root) if bare(name) in wanted] if root.is_dir() else []
    return root / found[0] if len(found) == 1 else None


def holds(folder: Path, names: Collection[str]) -> bool:
    """Whether one of ``names`` is a folder in ``folder``."""
    return any((folder / name).is_dir() for name in names)


def find_class_folders(folder: Path, names: Collection[str]) -> list[Path]:
    """The folders from ``folder`` downwards that contain one of the class folders ``names``, nearest first."""
    found, level = [], [folder]
    for _ in range(DEEPEST):
        found += [place for place in level if holds(place, names)]
        level = [place / name for place in level if place not in found for name in list_folders(place)]
    return found


def contains_images(folder: Path) -> bool:
    """Whether there is an image in the folder or in a folder of it."""
    return any(is_image(name) for name in _files(folder))


def _files(folder: Path) -> Iterator[str]:
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_left_behind(name)]
        yield from (name for name in names if not is_left_behind(name))
