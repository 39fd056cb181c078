"""Class folders, their images and their names. Listings are sorted, so that the file system's order never matters."""

import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from dassl.data.datasets import Datum
from dassl.utils import first_few, write_json
from datasets.text import read_json, read_lines, shortened, what_is
from datasets.validation import check_name

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".tif", ".tiff", ".webp"),
)
RARE_SUFFIXES = (".avif", ".jp2", ".heic", ".heif", ".jxl")  # read if the installed Pillow can
# What operating systems and tools leave behind; names with a dot in front are hidden.
LEFT_BEHIND = {
    *("__macosx", "@eadir", "@recycle", "#recycle", "$recycle.bin", "system volume information", "lost+found"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__pycache__"),
}
DEEPEST = 16  # levels of folders in a class folder
MOST_WORDS = 30  # of a folder name with spaces in classnames.txt
CACHE_VERSION = 1
SETTLED_SECONDS = 2  # a more recent change may be followed by another one with the same modification time


def is_left_behind(name: str) -> bool:
    """Whether a file or folder is hidden, or one that operating systems and tools leave behind."""
    return name.startswith(".") or name.lower() in LEFT_BEHIND


@lru_cache
def _is_rare_image(suffix: str) -> bool:
    """Whether the installed Pillow reads the files of one of ``RARE_SUFFIXES``."""
    from PIL import Image  # here, since reading all of Pillow's modules takes a while

    return suffix in RARE_SUFFIXES and Image.registered_extensions().get(suffix) in Image.OPEN


def is_image(name: str) -> bool:
    """Whether a file of this name is an image, by its suffix."""
    lower = name.lower()
    return lower.endswith(IMAGE_SUFFIXES) or (
        lower.endswith(RARE_SUFFIXES) and _is_rare_image(os.path.splitext(lower)[1])
    )


def list_images(folder: Path | str, others: list[str] | None = None) -> list[str]:
    """Sorted names of the images in a folder; those in folders of it as ``<folder>/<name>``.

    Hidden files and what operating systems leave behind are no images.

    Args:
        folder: the folder.
        others: is extended by the names of the files that are not images by their suffix.

    Raises:
        ValueError: an image is a link to nothing, a named pipe, a device or a socket, or a name is not UTF-8.
    """
    images: list[str] = []
    _collect(str(folder), "", images, [] if others is None else others, set())
    images.sort()
    return images


def _collect(folder: str, below: str, images: list[str], others: list[str], seen: set[tuple[int, int]]) -> None:
    """Append the names of the images and of the other files in ``folder/below``, and in the folders in it."""
    folders: list[str] = []
    found: list[str] = []
    with os.scandir(f"{folder}/{below}" if below else folder) as entries:
        for entry in entries:
            name = entry.name
            if is_left_behind(name):
                continue
            if entry.is_file():
                (found if is_image(name) else others).append(below + name)
            elif entry.is_dir():
                folders.append(name)
            elif is_image(name):
                raise ValueError(f"{entry.path} is {what_is(entry.path)}, not an image: remove or replace it")
            else:
                others.append(below + name)
    check_encoding([*found, *folders], f"{folder}/{below}")
    images += found
    if folders and not below:
        seen.add(_identity(folder))
    for name in sorted(folders):
        place = f"{below}{name}/"
        if (identity := _identity(f"{folder}/{place}")) in seen:
            continue  # a link to a folder that is listed already, perhaps to one that contains the link
        seen.add(identity)
        if os.path.islink(f"{folder}/{place}"[:-1]) and _is_inside(folder, f"{folder}/{place}"):
            raise ValueError(f"{folder}/{place} is a link to a folder that contains it, with other classes: remove it")
        if place.count("/") > DEEPEST:
            raise ValueError(f"{folder}/{place} is more than {DEEPEST} levels below its class folder")
        _collect(folder, place, images, others, seen)


def _is_inside(folder: str, other: str) -> bool:
    """Whether a folder is, links resolved, inside another one."""
    return os.path.realpath(folder).startswith(os.path.join(os.path.realpath(other), ""))


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def check_encoding(names: Sequence[str], folder: object) -> None:
    """Raise a ValueError if one of the names in a folder is not UTF-8: it could be neither printed nor written."""
    try:
        os.fsencode("\0".join(names)).decode("utf-8")
    except UnicodeError:
        wrong = next(name for name in names if not _is_utf8(name))
        raise ValueError(
            f"the name {os.fsencode(wrong)!r} in {os.fsencode(str(folder))!r} is not UTF-8: rename it, for example "
            "with `convmv -f latin1 -t utf8 --notest -r FOLDER`"
        ) from None


def _is_utf8(name: str) -> bool:
    try:
        return bool(os.fsencode(name).decode("utf-8"))
    except UnicodeError:
        return False


def list_folders(folder: Path | str) -> list[str]:
    """Sorted names of the folders in a folder, without hidden ones and what operating systems leave behind."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not is_left_behind(entry.name))
    check_encoding(names, folder)
    return names


def loose_images(folder: Path | str) -> list[str]:
    """Sorted names of the images in a folder itself, without those in folders of it."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_image(entry.name) and not is_left_behind(entry.name))


def left_out(others: Sequence[str], where: object) -> str:
    """The sentence about files that are not images by their suffix; "" if there are none."""
    if not others:
        return ""
    suffixes = Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in others)
    counts = ", ".join(f"{count} × {suffix}" for suffix, count in suffixes.most_common(6))
    text = f"{len(others)} files in {where} are not read as images ({counts}): {first_few(sorted(others), 3)}."
    if convert := sorted(suffix for suffix in suffixes if suffix in RARE_SUFFIXES):
        text += f" Pillow cannot read {', '.join(convert)} here: convert these images to JPEG or PNG."
    return text


def list_class_folders(
    folder: Path,
    cache: Path | None = None,
    check: Callable[[list[str]], None] | None = None,
    note: Callable[[str], None] = print,
) -> dict[str, list[str]]:
    """The image names of every class folder.

    Args:
        folder: contains one folder per class.
        cache: JSON file to store the listing in. It is valid only while the class folders and their modification times
            are those it was made from, and contains names only, no paths.
        check: called with the names of the class folders before anything is stored.
        note: called with a sentence about files that are left out; it is printed by default.

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
    others: list[str] = []
    listing = {}
    for name in stamps:
        start = len(others)
        listing[name] = list_images(folder / name, others)
        others[start:] = [f"{name}/{other}" for other in others[start:]]
    if empty := [name for name, images in listing.items() if not images]:
        raise ValueError(
            f"{len(empty)} of {len(listing)} class folders in {folder} contain no images: {first_few(empty)}. "
            f"Unpack them again, or remove these folders. {left_out(others, folder)}".rstrip()
        )
    if text := left_out(others, folder):
        note(text)
    nested = cache is not None and any("/" in image for images in listing.values() for image in images)
    if cache is not None and not nested and max(stamps.values()) < (time.time() - SETTLED_SECONDS) * 1e9:
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


def read_classnames(text_file: Path | str, folders: Collection[str] = ()) -> "OrderedDict[str, str]":
    """{class folder: class name} of a ``classnames.txt`` with one ``<folder> <class name>`` per line.

    A folder ends at the line's first tab; without a tab, it is the longest of ``folders`` that the line begins with, or
    else the first word.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line has no class name, or a folder occurs twice.
    """
    classnames: OrderedDict[str, str] = OrderedDict()
    known = frozenset(folders)
    for number, line in read_lines(text_file):
        where = f"{text_file}, line {number}"
        folder, classname = _folder_and_name(line, known)
        if not classname or folder in classnames:
            raise ValueError(
                f"{where}: expected a new '<folder> <class name>', found {shortened(line)}. A tab may separate the two"
            )
        classnames[folder] = check_name(classname, where)
    if not classnames:
        raise ValueError(f"{text_file} is empty: it must contain one '<folder> <class name>' per line")
    return classnames


def _folder_and_name(line: str, folders: Collection[str]) -> tuple[str, str]:
    """The two parts of a line of ``classnames.txt``; the second is empty if there is only one."""
    if "\t" in line:
        folder, _, classname = line.partition("\t")
        return folder.strip(), classname.strip()
    words = line.split(" ")
    for count in range(min(len(words) - 1, MOST_WORDS if folders else 0), 0, -1):
        if (folder := " ".join(words[:count])) in folders:
            return folder, " ".join(words[count:]).strip()
    if line in folders:
        return line, ""
    folder, _, classname = line.partition(" ")
    return folder, classname.strip()


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
