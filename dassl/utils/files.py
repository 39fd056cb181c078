"""Files and folders: atomic writes, JSON, locks."""

import errno
import json
import os
import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = [
    "atomic_write",
    "check_isfile",
    "listdir_nohidden",
    "lock_folder",
    "mkdir_if_missing",
    "move_into_place",
    "read_json",
    "remove_temporaries",
    "write_json",
]

_TEMPORARY = ".dassl-tmp"


def mkdir_if_missing(dirname: str | Path) -> None:
    """Make a folder and its parents if they do not exist; safe if several processes do so at once."""
    os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath: str | Path) -> bool:
    """Return whether ``fpath`` is a file, and print a line if it is not."""
    isfile = osp.isfile(fpath)
    if not isfile:
        print(f"No file found at '{fpath}'")
    return isfile


def listdir_nohidden(path: str | Path, sort: bool = False) -> list[str]:
    """Return the names in a folder that do not start with a dot."""
    items = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(items) if sort else items


@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file in the same folder, which replaces ``path`` if the block ends without an error.

    The data reach the disk before the name changes (fsync of the file, rename, fsync of the folder): a process
    killed at any moment leaves either the old file or the new one, never a partial one.
    """
    path = Path(path)
    mkdir_if_missing(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_TEMPORARY}")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        move_into_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def move_into_place(temporary: Path, path: Path) -> None:
    """Rename a file written next to ``path``, which it replaces, once its content is on disk."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk; does nothing on systems that cannot open a folder (Windows)."""
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


def remove_temporaries(folder: str | Path) -> None:
    """Delete the temporary files that killed processes left in a folder and its subfolders (:func:`atomic_write`)."""
    for path in Path(folder).rglob(f".*{_TEMPORARY}"):
        path.unlink(missing_ok=True)


def lock_folder(folder: str | Path) -> "FileLock":
    """Lock a folder until this process ends, if its file system supports locks.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    from filelock import FileLock, Timeout  # here, since it takes as long to import as the rest of the module

    mkdir_if_missing(folder)
    lock = FileLock(Path(folder) / ".lock", blocking=False, is_singleton=True)
    try:
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(
            f"another process is writing to {folder}: wait for it or stop it, or give this run another folder"
        ) from error
    except (NotImplementedError, OSError):
        pass  # a file system without locks; one that cannot be written to raises an error at the first file
    return lock


def read_json(fpath: str | Path, max_bytes: int = 2**30) -> Any:
    """Return the content of a JSON file.

    Args:
        max_bytes: longer files are refused: they take about ten times their size in memory.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is not JSON or too long; the message names it.
    """
    if os.path.exists(fpath) and not os.path.isdir(fpath) and not os.path.isfile(fpath):
        raise ValueError(f"{fpath} is not a regular file")  # reading a pipe would wait for ever
    with open(fpath, "rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"{fpath} is longer than the {max_bytes:,} bytes that are read")
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{fpath} is not valid JSON ({error}): delete it if it is a cache, else restore it") from error


def write_json(obj: Any, fpath: str | Path) -> None:
    """Write ``obj`` as indented JSON, atomically; the folder is made if missing."""
    with atomic_write(fpath, "w") as file:
        json.dump(obj, file, indent=4, separators=(",", ": "))
