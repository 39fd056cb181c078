"""Unpacking a downloaded archive: inside one folder, up to a limit, completely or not at all."""

import bz2
import errno
import gzip
import io
import lzma
import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from dassl.utils.disk import check_space, readable_size
from dassl.utils.progress import progress

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
CHUNK = 1 << 20
RATIO, FREE = 100, 1 << 24  # an archive of n bytes may unpack to RATIO * n + FREE bytes; images take about n
MAX_NAME, MAX_PATH = 255, 4095  # bytes, as on Linux; other systems allow about as much


class ArchiveError(ValueError):
    """An archive is damaged, or must not be unpacked."""


@dataclass(frozen=True)
class Limits:
    """What unpacking may write. An archive beyond a limit is refused before anything is written.

    Attributes:
        size: bytes in all.
        files: number of files and folders.
        largest: bytes of one file that is not itself an archive.
    """

    size: int = 2**40
    files: int = 5_000_000
    largest: int = 2**40

    def within(self, archive: Path) -> "Limits":
        """These limits, and what an archive of this size may unpack to."""
        return replace(self, size=min(self.size, RATIO * archive.stat().st_size + FREE))

    def without(self, written: Iterable[Path]) -> "Limits":
        """What is left after files have been written."""
        sizes = [path.stat().st_size for path in written]
        return replace(self, size=self.size - sum(sizes), files=self.files - len(sizes))


def is_archive(path: str | Path) -> bool:
    """Return whether a file has the name of an archive."""
    return str(path).lower().endswith(SUFFIXES)


def unpack(archive: str | Path, folder: str | Path, limits: Limits | None = None) -> list[Path]:
    """Unpack a zip or tar (plain, gz, bz2, xz) into ``folder``; every entry is checked before anything is written.

    Args:
        archive: path of the archive.
        folder: folder for its files; made if missing. Files of the same names are replaced.
        limits: what may be written; by default 1 TiB, and in any case RATIO times the archive's size.

    Returns:
        The files written.

    Raises:
        ArchiveError: the archive is damaged or encrypted; contains a link, a device, or a sparse file; names that are
            outside the folder, too long, or there twice; or more than the limits allow. The folder is as before.
        DiskFullError: there is not enough space.
    """
    archive, folder = Path(archive), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".unpack-", dir=folder))
    try:
        with archive.open("rb") as file:
            # A tar whose last file is a zip ends like a zip, so that the end alone does not tell
            zipped = file.read(4) in (b"PK\3\4", b"PK\5\6") and zipfile.is_zipfile(file)
            names = (_unpack_zip if zipped else _unpack_tar)(file, _Plan(archive, staged, limits or Limits()))
        _move(staged, folder)
    except ArchiveError:
        raise
    except Exception as error:  # damage makes the standard library fail in any way
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a negative offset
            raise  # such as a full disk: not the archive's fault
        raise ArchiveError(
            f"{archive} ({archive.stat().st_size:,} bytes) is damaged or not an archive ({error}): "
            "delete it and download it again"
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return [folder / name for name in names]


class _Plan:
    """The entries of an archive, checked one after the other, and then written to a folder."""

    def __init__(self, archive: Path, folder: Path, limits: Limits) -> None:
        self.archive, self.folder, self.limits = archive, folder, limits.within(archive)
        self.files: dict[str, tuple[Any, int]] = {}  # name: the archive's entry, size in bytes
        self.size = self.entries = 0
        self._taken: dict[str, bool] = {}  # key of a name (_key): whether it is a folder
        self._ignores_case = _ignores_case(folder)

    def refuse(self, what: str) -> ArchiveError:
        return ArchiveError(f"{self.archive} {what}: not unpacked")

    def count(self) -> None:
        """Count an entry of whatever kind."""
        self.entries += 1
        if self.entries > self.limits.files:
            raise self.refuse(f"holds more than {self.limits.files:,} files, the limit for this dataset")

    def add(self, name: str, size: int, entry: Any) -> None:
        """Add a file.

        Raises:
            ArchiveError: its name or size is not allowed.
        """
        clean = self._safe_name(name)
        self._take(name, clean)
        if size < 0 or (size > self.limits.largest and not is_archive(name)):
            raise self.refuse(f"holds {name!r} with {size:,} bytes; the limit is {self.limits.largest:,}")
        self.size += size
        if self.size > self.limits.size:
            raise self.refuse(
                f"holds more than {readable_size(self.limits.size)}, the limit for this dataset and for an archive of "
                f"{readable_size(self.archive.stat().st_size)}, up to {name!r}"
            )
        self.files[clean] = entry, size

    def _safe_name(self, name: str) -> str:
        """The path relative to the folder."""
        clean = posixpath.normpath(name.replace("\\", "/"))
        if clean.startswith(("/", "../")) or clean == ".." or (len(clean) > 1 and clean[1] == ":"):
            raise self.refuse(f"holds the path {name!r}, which is outside the folder it is unpacked into")
        if "\\" in name or "\0" in name or clean == ".":
            raise self.refuse(f"holds the name {name!r}, which is no file name")
        try:
            parts = [len(part) for part in clean.encode().split(b"/")]
        except UnicodeEncodeError:
            raise self.refuse(f"holds the name {name!r}, which is not UTF-8") from None
        if max(parts) > MAX_NAME or sum(parts) + len(parts) + len(os.fsencode(self.folder)) > MAX_PATH:
            raise self.refuse(f"holds a name of {len(clean):,} characters, {clean[:40]!r}…, which is too long")
        return clean

    def _take(self, name: str, clean: str) -> None:
        """Reserve a name, and those of its folders."""
        key = self._key(clean)
        if key in self._taken:
            raise self.refuse(f"holds the name {name!r} twice")
        self._taken[key] = False
        while key := posixpath.dirname(key):
            if not self._taken.setdefault(key, True):
                raise self.refuse(f"holds {name!r} inside of a file")

    def _key(self, name: str) -> str:
        return unicodedata.normalize("NFC", name).casefold() if self._ignores_case else name

    def write(self, open_entry: Callable[[Any], IO[bytes]]) -> list[str]:
        """Write all files to the folder; returns their names."""
        if not self.files:
            raise ArchiveError(f"{self.archive} holds no files: download it again")
        check_space(self.folder, self.size + 2048 * len(self.files), f"unpacking {self.archive.name}")
        made = set()
        for name, (entry, size) in progress(self.files.items(), f"unpack {self.archive.name}", unit="file"):
            target = self.folder / name
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            with open_entry(entry) as source, open(target, "xb") as file:
                shutil.copyfileobj(source, file, CHUNK)
                if file.tell() != size:
                    raise self.refuse(f"announces {name!r} with {size:,} bytes and holds {file.tell():,}")
        return list(self.files)


def _ignores_case(folder: Path) -> bool:
    """Whether an existing folder's file system takes "a" and "A" for the same name."""
    return folder.with_name(folder.name.swapcase()).exists()


def _unpack_zip(file: IO[bytes], plan: _Plan) -> list[str]:
    with zipfile.ZipFile(file) as zipped:
        infos = sorted(zipped.infolist(), key=lambda info: info.header_offset)
        for info in infos:
            plan.count()
            if info.flag_bits & 1:
                raise plan.refuse(f"is encrypted ({info.filename!r})")
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise plan.refuse(f"holds a link or device, {info.filename!r}")
            if not info.is_dir():
                plan.add(info.orig_filename, info.file_size, info)
        starts = [*(info.header_offset for info in infos[1:]), zipped.start_dir]
        for info, start in zip(infos, starts, strict=False):
            if info.header_offset + 30 + info.compress_size > start:  # 30: the smallest header
                raise plan.refuse(f"holds {info.filename!r}, which overlaps the next entry")
        return plan.write(zipped.open)


def _unpack_tar(file: IO[bytes], plan: _Plan) -> list[str]:
    with _decompressed(file) as plain:
        stream = _TarStream(plain, plan)
        with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload]
            for member in tar:
                plan.count()
                if member.isdir():
                    continue
                if not member.isfile() or member.issparse():
                    raise plan.refuse(f"holds a link or device, {member.name!r}")
                plan.add(member.name, member.size, member)
            while stream.read(CHUNK):
                pass  # to the end of the compressed stream, which verifies its checksum
            return plan.write(tar.extractfile)  # type: ignore[arg-type]


def _decompressed(file: IO[bytes]) -> Any:
    """The plain tar in a file, which may be compressed."""
    file.seek(0)
    start = file.read(6)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(file)
    if start.startswith(b"BZh"):
        return bz2.open(file)
    if start == b"\xfd7zXZ\0":
        return lzma.open(file)
    return file


class _TarStream(io.RawIOBase):
    """A tar's bytes, up to a limit and never many at once: a header can claim to have any size."""

    def __init__(self, file: IO[bytes], plan: _Plan) -> None:
        self.file, self.plan, self.position = file, plan, 0
        self.end = plan.limits.size + FREE  # headers and padding included

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= CHUNK:
            raise self.plan.refuse(f"holds a header of {size:,} bytes")
        content = self.file.read(size)
        self._at(self.position + len(content))
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == 0  # the one way in which tarfile seeks
        self._at(offset)
        return self.file.seek(offset)

    def tell(self) -> int:
        return self.position

    def _at(self, position: int) -> None:
        self.position = position
        if position > self.end:
            raise self.plan.refuse(f"holds more than {readable_size(self.end)}")


def _move(source: Path, target: Path) -> None:
    """Move what a folder contains into another one; files of the same names are replaced."""
    for entry in source.iterdir():
        if entry.is_dir() and (target / entry.name).is_dir():
            _move(entry, target / entry.name)
        else:
            os.replace(entry, target / entry.name)
