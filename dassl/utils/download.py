"""Fetching files, from any address or a Google Drive link: continued, verified, and there only when complete."""

import hashlib
import sys
from pathlib import Path

__all__ = ["DownloadError", "download_url", "file_checksum"]

RETRIES = 5  # new tries after a broken connection, each continuing where the last one stopped
TIMEOUT = 60.0  # seconds without an answer
CHUNK = 1 << 20


class DownloadError(ConnectionError):
    """An address did not give the file."""


def file_checksum(path: Path | str, algorithm: str) -> str:
    """Hexadecimal checksum (md5, sha256, …) of a file's content."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def download_url(url: str, dst: str | Path, checksum: str = "") -> None:
    """Download ``url`` to the file ``dst``, which appears only when it is complete and right.

    What came before a connection broke is kept beside ``dst``; the next call continues it. One process at a time may
    fetch a file.

    Args:
        url: address, or Google Drive link.
        dst: the file; an older one is replaced.
        checksum: "md5:…" or "sha256:…"; without one only the size is checked, where the server tells it.

    Raises:
        DownloadError: why the address did not give the file.
    """
    dst = Path(dst)
    dst.parent.mkdir(parents=True, exist_ok=True)
    staging = dst.with_name(f".{dst.name}.download")
    print(f"Fetching {url} to {dst}")
    _fetch(url, staging, checksum)
    staging.replace(dst)


def _fetch(url: str, staging: Path, checksum: str) -> None:
    """The whole, verified file at ``staging``; what an earlier try left is given up once if it does not fit."""
    left = _partial_bytes(staging)
    try:
        _receive(url, staging)
        _verify(url, staging, checksum)
    except DownloadError:
        if not left or _partial_bytes(staging) > left:
            raise
        _remove_partial(staging)
        _fetch(url, staging, checksum)


def _receive(url: str, staging: Path) -> None:
    import gdown
    from gdown.exceptions import DownloadError as GdownError

    quiet = not sys.stderr.isatty()
    try:
        gdown.download(url, str(staging), quiet=quiet, resume=True, retries=RETRIES, timeout=TIMEOUT)
    except (GdownError, OSError) as error:  # its HTTP library's errors are OSErrors
        raise DownloadError(f"{url}: {' '.join(str(error).split())}") from error


def _verify(url: str, staging: Path, checksum: str) -> None:
    if not checksum:
        return
    algorithm, _, expected = checksum.partition(":")
    found = file_checksum(staging, algorithm)
    if found != expected:
        size = staging.stat().st_size
        staging.unlink()
        raise DownloadError(f"{url}: the {size:,} bytes that came have {algorithm} {found}, expected {expected}")


def _partial_files(staging: Path) -> list[Path]:
    """What gdown keeps of an unfinished download: the name and eight random characters."""
    return [*staging.parent.glob(f"{staging.name}????????.part"), *staging.parent.glob(staging.name)]


def _partial_bytes(staging: Path) -> int:
    return sum(path.stat().st_size for path in _partial_files(staging))


def _remove_partial(staging: Path) -> None:
    for path in _partial_files(staging):
        path.unlink(missing_ok=True)
