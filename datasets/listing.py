"""Class folders, their images and their names. Listings are sorted, so that the file system's order never matters."""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dassl.data.datasets import Datum
from dassl.utils import first_few, read_json, write_json

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")
CACHE_VERSION = 1
SETTLED_SECONDS = 2  # a more recent change may be followed by another one with the same modification time


def list_images(folder: Path | str) -> list[str]:
    """Sorted names of the image files in a folder, without hidden ones."""
    names = os.listdir(folder)
    return sorted(name for name in names if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."))


def list_folders(folder: Path | str) -> list[str]:
    """Sorted names of the folders in a folder, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def list_class_folders(
    folder: Path, cache: Path | None = None, check: Callable[[list[str]], None] | None = None
) -> dict[str, list[str]]:
    """The image names of every class folder.

    Args:
        folder: contains one folder per class.
        cache: JSON file to store the listing in. It is valid only while the class folders and their modification times
            are those it was made from, and contains names only, no paths.
        check: called with the names of the class folders before anything is stored.

    Returns:
        {class folder: image names}, both sorted.

    Raises:
        ValueError: there are no class folders, or some contain no images.
    """
    stamps = {name: os.stat(folder / name).st_mtime_ns for name in list_folders(folder)}
    if not stamps:
        raise ValueError(f"{folder} contains no class folders: it must contain one folder of images per class")
    if check is not None:
        check(list(stamps))
    if cache is not None and (known := _read_cache(cache, stamps)) is not None:
        return known
    listing = {name: list_images(folder / name) for name in stamps}
    if empty := [name for name, images in listing.items() if not images]:
        raise ValueError(
            f"{len(empty)} of {len(listing)} class folders in {folder} contain no images: {first_few(empty)}. "
            "Unpack them again"
        )
    if cache is not None and max(stamps.values()) < (time.time() - SETTLED_SECONDS) * 1e9:
        _write_cache(cache, stamps, listing)
    return listing


def _read_cache(cache: Path, stamps: dict[str, int]) -> dict[str, list[str]] | None:
    """The cached listing, or None if it is damaged or was made from other folders."""
    try:
        content = read_json(cache)
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("version") != CACHE_VERSION or content.get("folders") != stamps:
        return None
    images = content.get("images")
    if not isinstance(images, dict) or list(images) != list(stamps):
        return None
    for names in images.values():
        if not isinstance(names, list) or not names or not all(isinstance(n, str) and "/" not in n for n in names):
            return None
    return images


def _write_cache(cache: Path, stamps: dict[str, int], listing: dict[str, list[str]]) -> None:
    """Store the listing. Where that fails, the folders are listed again next time."""
    try:
        write_json({"version": CACHE_VERSION, "folders": stamps, "images": listing}, cache)
    except OSError as error:
        print(f"The listing is not cached: cannot write {cache} ({error.strerror})")


def read_classnames(text_file: Path | str) -> "OrderedDict[str, str]":
    """{class folder: class name} of a ``classnames.txt`` with one ``<folder> <class name>`` per line.

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
        raise ValueError(f"{text_file} is empty: it must contain one '<folder> <class name>' per line")
    return classnames


def to_items(folder: Path | str, listing: Mapping[str, Sequence[str]], classnames: Mapping[str, str]) -> list[Datum]:
    """Items of class folders, labelled in the order of the listing."""
    return [
        Datum(f"{folder}/{name}/{image}", label, classname=classnames[name])
        for label, (name, images) in enumerate(listing.items())
        for image in images
    ]


def class_folder_items(
    image_dir: Path | str, ignored: Sequence[str] = (), new_cnames: Mapping[str, str] | None = None
) -> list[Datum]:
    """The images of a folder of class folders, labelled in sorted order.

    Args:
        image_dir: the folder.
        ignored: class folders to leave out.
        new_cnames: class names that differ from the folder's.
    """
    listing = {name: images for name, images in list_class_folders(Path(image_dir)).items() if name not in ignored}
    return to_items(image_dir, listing, {name: (new_cnames or {}).get(name, name) for name in listing})
