"""Free space on disks."""

import errno
import os
import shutil
from pathlib import Path

__all__ = ["DISK_FULL", "DiskFullError", "check_space", "readable_size"]

# What a write raises on a full disk, beyond a quota, and beyond the largest size of a file
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG} if os.name != "nt" else {errno.ENOSPC, errno.EFBIG})


class DiskFullError(OSError):
    """A file does not fit on the disk."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.ENOSPC


def readable_size(size: int) -> str:
    """A number of bytes in MiB, or in GiB."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"


def check_space(folder: Path, size: int, purpose: str) -> None:
    """Raise a DiskFullError unless ``size`` bytes are free on the disk of an existing folder.

    Args:
        folder: where the files will be written.
        size: their size in bytes.
        purpose: what needs the space, for the message.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DiskFullError(f"{folder}: {purpose} needs {readable_size(size)}, {readable_size(free)} are free")
