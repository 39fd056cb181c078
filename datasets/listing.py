"""Lists of class folders and their images: sorted, so that the filesystem never decides, and cached."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from dassl.data.datasets.base_dataset import first_few
from dassl.utils import read_json, write_json

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")
CACHE_VERSION = 1
SETTLED_SECONDS = 2  # a folder changed more recently may change again within one tick of its time stamp


def list_images(folder: Path | str) -> list[str]:
    """Sorted names of the image files in a folder, hidden ones left out."""
    names = os.listdir(folder)
    return sorted(name for name in names if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."))


def list_folders(folder: Path | str) -> list[str]:
    """Sorted names of the folders in a folder, hidden ones left out."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def list_class_folders(
    folder: Path, cache: Path | None = None, check: Callable[[list[str]], None] | None = None
) -> dict[str, list[str]]:
    """The image names of every class folder.

    Args:
        folder: holds one folder a class.
        cache: JSON file to keep the listing in. It counts only while the class folders and their modification times
            are those that it was made from, and holds names only, no paths.
        check: called with the names of the class folders before anything is kept.

    Returns:
        {class folder: image names}, both sorted.

    Raises:
        ValueError: there are no class folders, or some hold no images.
    """
    stamps = {name: os.stat(folder / name).st_mtime_ns for name in list_folders(folder)}
    if not stamps:
        raise ValueError(f"{folder} holds no class folders: it must hold one folder of images for each class")
    if check is not None:
        check(list(stamps))
    if cache is not None and (known := _read_cache(cache, stamps)) is not None:
        return known
    listing = {name: list_images(folder / name) for name in stamps}
    if empty := [name for name, images in listing.items() if not images]:
        raise ValueError(
            f"{len(empty)} of {len(listing)} class folders in {folder} hold no images: {first_few(empty)}. "
            "Unpack them again"
        )
    if cache is not None and max(stamps.values()) < (time.time() - SETTLED_SECONDS) * 1e9:
        _write_cache(cache, stamps, listing)
    return listing


def _read_cache(cache: Path, stamps: dict[str, int]) -> dict[str, list[str]] | None:
    """The cached listing, None unless it is whole and of these folders."""
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
    """Keep the listing; a folder that cannot be written to is listed again the next time."""
    try:
        write_json({"version": CACHE_VERSION, "folders": stamps, "images": listing}, cache)
    except OSError as error:
        print(f"The listing is not kept: {cache} cannot be written ({error.strerror})")
