"""Unpacking a downloaded archive, without letting it write outside one folder."""

import lzma
import posixpath
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dassl.utils.progress import progress

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
# What the standard library raises for truncated, corrupt or encrypted archives and unknown compression methods
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError)


class ArchiveError(ValueError):
    """An archive is damaged, or must not be unpacked."""


def is_archive(path: str | Path) -> bool:
    """Return whether a file has the name of an archive."""
    return str(path).lower().endswith(SUFFIXES)


def unpack(archive: str | Path, folder: str | Path) -> list[Path]:
    """Unpack a zip or tar (plain, gz, bz2, xz) into ``folder``; every name is checked before anything is written.

    Args:
        archive: path of the archive.
        folder: folder for its files; made if missing.

    Returns:
        The files written.

    Raises:
        ArchiveError: the archive is damaged, or contains a link, a device, or a path outside the folder. Files
            unpacked before the error are kept, so unpack into a temporary folder.
    """
    archive, folder = Path(archive), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                return _write(archive, folder, _zip_members(archive, zipped))
        with tarfile.open(archive) as tar:
            return _write(archive, folder, _tar_members(archive, tar))
    except (*DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # such as a full disk: not the archive's fault
        raise ArchiveError(
            f"{archive} ({archive.stat().st_size:,} bytes) is damaged or not an archive ({error}): "
            "delete it and download it again"
        ) from error


def _safe_name(archive: Path, name: str) -> str:
    """Return the member's path relative to the folder, or raise an ArchiveError if it is outside."""
    clean = posixpath.normpath(name.replace("\\", "/"))
    if clean.startswith(("/", "../")) or clean == ".." or (len(clean) > 1 and clean[1] == ":"):
        raise ArchiveError(
            f"{archive} holds the path {name!r}, which is outside the folder it is unpacked into: not unpacked"
        )
    return clean


def _zip_members(archive: Path, zipped: zipfile.ZipFile) -> Iterator[tuple[str, IO[bytes]]]:
    infos = [info for info in zipped.infolist() if not info.is_dir()]
    for info in infos:
        _safe_name(archive, info.filename)
        if (info.external_attr >> 28) == 0o12:  # the file type bits of a symbolic link
            raise ArchiveError(f"{archive} holds a link, {info.filename!r}: not unpacked")
    for info in infos:
        with zipped.open(info) as source:
            yield _safe_name(archive, info.filename), source


def _tar_members(archive: Path, tar: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    members = [member for member in tar if not member.isdir()]
    while tar.fileobj is not None and tar.fileobj.read(1 << 20):
        pass  # read to the end of the compressed stream, which verifies its checksum
    for member in members:
        _safe_name(archive, member.name)
        if not member.isfile():
            raise ArchiveError(f"{archive} holds a link or device, {member.name!r}: not unpacked")
    for member in members:
        source = tar.extractfile(member)
        assert source is not None  # a regular file
        with source:
            yield _safe_name(archive, member.name), source


def _write(archive: Path, folder: Path, members: Iterator[tuple[str, IO[bytes]]]) -> list[Path]:
    written = []
    for name, source in progress(members, f"unpack {archive.name}", unit="file"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        written.append(target)
    if not written:
        raise ArchiveError(f"{archive} holds no files: download it again")
    return written
