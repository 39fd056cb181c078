"""Files and folders: atomic writes, JSON, locks."""

import errno
import glob
import io
import json
import os
import os.path as osp
import re
import stat
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = [
    "WriteError",
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
_ABANDONED = 3600.0  # seconds without a write after which a temporary file of another machine has no writer any more

_REMEDIES = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space within your quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or use a disk that holds larger ones",
    errno.EROFS: "use a folder on a disk that can be written to",
    errno.EACCES: "use a folder that you may write to",
    errno.EPERM: "use a folder that you may write to",
    errno.EIO: "the disk reports an error: use another one",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
}


class WriteError(OSError):
    """A file cannot be written: a full disk, a quota, a read-only folder. Its text is one line that names the file."""

    def __str__(self) -> str:
        remedy = _REMEDIES.get(self.errno or 0, "use another folder")
        kept = ", its former version is unchanged" if osp.isfile(self.filename) and osp.getsize(self.filename) else ""
        return f"{self.filename} cannot be written ({self.strerror}){kept}: {remedy}"


class _RecordingFile(io.FileIO):
    """A file whose writes never fail: the first error is kept, and what follows it is dropped.

    Code between the caller and the file, such as PyTorch's writer of zip files, hides an error from below behind its
    own, and may not end well after it. This holds for a signal's exception too, which can come at any moment.
    """

    error: BaseException | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                return super().write(data) or 0
            except BaseException as error:
                self.error = error
        return memoryview(data).nbytes


def open_recording(path: str | Path, mode: str) -> tuple[IO[Any], _RecordingFile]:
    """Open a file to write (``wb``, ``w``, ``a``) as UTF-8 or binary; returns it and the record of its first error."""
    record = _RecordingFile(os.fspath(path), mode.replace("b", ""))
    binary = io.BufferedWriter(record, max(io.DEFAULT_BUFFER_SIZE, 1 << 16))
    if "b" in mode:
        return binary, record
    return io.TextIOWrapper(binary, encoding="utf-8", errors="backslashreplace"), record


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
def atomic_write(path: str | Path, mode: str = "wb", sync: bool = True) -> Iterator[IO[Any]]:
    """Open a temporary file in the same folder, which replaces ``path`` if the block ends without an error.

    The data reach the disk before the name changes (fsync of the file, rename, fsync of the folder): a process
    killed at any moment leaves either the old file or the new one, never a partial one. Its temporary file is deleted
    by the next call for the same path.

    Args:
        sync: False skips the waiting for the disk, tens of milliseconds on some: only after a power cut may the file
            then be empty.

    Raises:
        WriteError: the disk is full, the folder is read-only, or the like; ``path`` is unchanged.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{_machine()}{_TEMPORARY}")
    try:
        with _naming(path):
            mkdir_if_missing(path.parent)
            remove_temporaries(path.parent, path.name)
            file, record = open_recording(temporary, mode)
        with file:
            yield file
        with _naming(path):
            if record.error is not None:
                raise record.error
            move_into_place(temporary, path) if sync else os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a WriteError about ``path``."""
    try:
        yield
    except OSError as error:
        raise write_error(error, path) from error


def write_error(error: OSError, path: str | Path) -> WriteError:
    """What an error of the operating system means for the file to be written."""
    return WriteError(error.errno, error.strerror or str(error), str(path))


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


def remove_temporaries(folder: str | Path, name: str | None = None) -> None:
    """Delete the temporary files that killed processes left in a folder (:func:`atomic_write`).

    A file is left alone while its writer may live: a process of this machine that exists, or one of another machine
    that shares the disk and has written within the last hour.

    Args:
        name: only those of the file of this name; without it, those of all files in the folder and its subfolders.
    """
    folder = Path(folder)
    found = folder.rglob(f".*{_TEMPORARY}") if name is None else folder.glob(f".{glob.escape(name)}.*{_TEMPORARY}")
    for path in found:
        with suppress(OSError):  # another process deleted it, or may; on Windows, its writer has it open
            if _is_abandoned(path):
                path.unlink()


def _is_abandoned(path: Path) -> bool:
    writer = re.search(r"\.(\d+)(?:-([0-9a-f]{8}))?" + re.escape(_TEMPORARY), path.name)
    if writer is None or writer[2] not in (None, _machine()) or os.name == "nt":
        return time.time() - path.stat().st_mtime > _ABANDONED
    return not _is_alive(int(writer[1]))


def _is_alive(pid: int) -> bool:
    """Whether a process of this machine exists (POSIX: elsewhere ``os.kill`` ends it)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; a number that no process has
        pass
    return True


def _machine() -> str:
    """Eight digits for what a process id is unique in: this machine, or on Linux this container."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    name = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    return f"{zlib.crc32(f'{name} {space}'.encode()):08x}"


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
    found = os.stat(fpath)
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise ValueError(f"{fpath} is not a regular file")  # reading a pipe would wait for ever
    if stat.S_ISREG(found.st_mode) and found.st_size > max_bytes:
        raise ValueError(f"{fpath} is longer than the {max_bytes:,} bytes that are read")
    with open(fpath, "rb") as file:
        content = file.read()
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{fpath} is not valid JSON ({error}): delete it if it is a cache, else restore it") from error


def write_json(obj: Any, fpath: str | Path, sync: bool = True) -> None:
    """Write ``obj`` as indented JSON with :func:`atomic_write`; the folder is made if missing."""
    with atomic_write(fpath, "w", sync) as file:
        json.dump(obj, file, indent=4, separators=(",", ": "))
