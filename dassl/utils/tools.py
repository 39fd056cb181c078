"""Files, seeds, names and the description of the machine."""

import difflib
import errno
import json
import os
import os.path as osp
import platform
import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL
import torch
from filelock import FileLock, Timeout
from PIL import Image

from dassl.utils.download import download_url

__all__ = [
    "atomic_write",
    "check_availability",
    "check_isfile",
    "closest_hint",
    "collect_env_info",
    "download_url",
    "get_most_similar_str_to_a_from_b",
    "listdir_nohidden",
    "lock_folder",
    "mkdir_if_missing",
    "read_image",
    "read_json",
    "remove_temporaries",
    "set_random_seed",
    "tolist_if_not",
    "write_json",
]


def mkdir_if_missing(dirname: str | Path) -> None:
    """Make a folder and its parents; an existing one, also one just made by another process, is fine."""
    os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath: str | Path) -> bool:
    """Whether ``fpath`` is a file; says so on stdout if not."""
    isfile = osp.isfile(fpath)
    if not isfile:
        print(f"No file found at '{fpath}'")
    return isfile


_TEMPORARY = ".dassl-tmp"


def remove_temporaries(folder: str | Path) -> None:
    """Delete what killed processes left of :func:`atomic_write` in a folder and below."""
    for path in Path(folder).rglob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` that takes its place when the block ends without an error.

    The data reach the disk before the name changes (fsync of the file, rename, fsync of the folder): a process
    killed at any moment leaves the old file or the new one, never a part of one.
    """
    path = Path(path)
    mkdir_if_missing(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries; systems that cannot open a folder (Windows) do without."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def lock_folder(folder: str | Path) -> FileLock:
    """Hold a folder for this process until it ends, where its file system has locks.

    Raises:
        BlockingIOError: another process holds it.
    """
    mkdir_if_missing(folder)
    lock = FileLock(Path(folder) / ".lock", blocking=False, is_singleton=True)
    try:
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(
            f"another process is writing to {folder}: wait for it or stop it, or give this run another folder"
        ) from error
    except (NotImplementedError, OSError):
        pass  # a file system without locks; one that cannot be written to says so at the first file
    return lock


def read_json(fpath: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: the file is not JSON; the message names it.
    """
    with open(fpath, encoding="utf-8") as file:
        try:
            return json.load(file)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{fpath} is not valid JSON ({error}): delete it if it is a cache, else restore it"
            ) from error


def write_json(obj: Any, fpath: str | Path) -> None:
    """Write ``obj`` as indented JSON, atomically; makes the folder."""
    with atomic_write(fpath, "w") as file:
        json.dump(obj, file, indent=4, separators=(",", ": "))


def set_random_seed(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators (torch's on every device)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def read_image(path: str | Path, draft: tuple[int, int] | None = None) -> Image.Image:
    """The image as RGB; of 16 bits a channel the upper eight count.

    Args:
        path: the file.
        draft: the size that is enough: a JPEG is then decoded at a fraction of its own, which changes its pixels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not an image that can be read to its end.
    """
    if not osp.exists(path):
        raise FileNotFoundError(f"No image at {path}: check DATASET.ROOT and that the dataset is complete")
    try:
        with Image.open(path) as image:
            if draft is not None:
                image.draft("RGB", draft)
            if image.mode == "F":
                raise ValueError("its pixels are floating-point numbers: save it with 8 bits a channel")
            if image.mode.startswith("I"):
                return Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8)).convert("RGB")
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} ({osp.getsize(path)} bytes) cannot be read as an image: {error}") from error


def collect_env_info() -> str:
    """Versions and devices of this machine, several lines."""
    import torchvision

    cuda = torch.version.cuda or "not built in"
    lines = [
        f"Python: {platform.python_version()} ({sys.executable})",
        f"Platform: {platform.platform()}",
        f"PyTorch: {torch.__version__} (CUDA {cuda}, {torch.get_num_threads()} threads)",
        f"torchvision: {torchvision.__version__}",
        f"numpy: {np.__version__}",
        f"Pillow: {PIL.__version__}",
    ]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        lines.append(f"GPU {index}: {properties.name}, {properties.total_memory / 2**30:.1f} GiB")
    return "\n".join(lines)


def listdir_nohidden(path: str | Path, sort: bool = False) -> list[str]:
    """Names in a folder that do not start with a dot."""
    items = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(items) if sort else items


def get_most_similar_str_to_a_from_b(a: str, b: Iterable[str]) -> str | None:
    """The string of ``b`` that is most similar to ``a``, None if ``b`` is empty."""
    return max(b, key=lambda text: difflib.SequenceMatcher(None, a, text).ratio(), default=None)


def closest_hint(name: str, available: Iterable[str]) -> str:
    """`` (did you mean X or Y?).`` for up to three similar names, else ``.``: the end of an error's first sentence."""
    by_lower: dict[str, str] = {}
    for candidate in available:
        by_lower.setdefault(candidate.lower(), candidate)
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=3, cutoff=0.5)
    return f" (did you mean {' or '.join(by_lower[text] for text in close)}?)." if close else "."


def check_availability(requested: str, available: Iterable[str], key: str = "") -> None:
    """Raise a ValueError with the closest names unless ``requested`` (the value of ``key``) is one of ``available``."""
    available = list(available)
    if requested not in available:
        raise ValueError(
            f"{key + ' ' if key else ''}'{requested}' is not available{closest_hint(requested, available)}"
            f" It should be one of: {', '.join(sorted(available)) or 'nothing yet'}"
        )


def tolist_if_not(x: Any) -> list[Any]:
    """``x`` itself if it is a list, else a list of it alone."""
    return x if isinstance(x, list) else [x]
