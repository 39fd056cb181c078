"""Downloading files from an address, a Google Drive link or the Hugging Face hub: resumed and verified."""

import glob
import hashlib
import os
import re
import socket
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING

from dassl.utils.files import move_into_place

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

__all__ = [
    "DownloadError",
    "download_url",
    "fetch_from_hub",
    "file_checksum",
    "hub_address",
    "hub_files",
    "through_mirror",
]

HUB_ADDRESS = "https://huggingface.co"
DRIVE_HOSTS = ("drive.google.com", "docs.google.com")
TIMEOUT = 30.0  # seconds without an answer
RETRY_DELAYS = (1.0, 3.0, 9.0)  # seconds before each retry; the count starts again whenever bytes were received
CHUNK = 1 << 20
# Some dataset servers refuse clients that do not look like a browser
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; dassl)", "Accept-Encoding": "identity"}


class DownloadError(ConnectionError):
    """A file could not be downloaded. The message starts with its address."""


class _RequestError(Exception):
    """One request failed. ``retry`` says whether a further request may succeed."""

    def __init__(self, reason: str, retry: bool) -> None:
        super().__init__(reason)
        self.retry = retry


def file_checksum(path: Path | str, algorithm: str) -> str:
    """Return the hexadecimal checksum (md5, sha256, …) of a file's content."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def download_url(url: str, dst: str | Path, checksum: str = "") -> None:
    """Download ``url`` to the file ``dst``, which appears only when it is complete and verified.

    The bytes received before a connection broke or the process was killed are kept in ``<dst>.part``; the next call
    resumes from there. At most one process at a time may download to a given file: callers hold a lock if needed.

    Args:
        url: an http(s) address or a Google Drive link.
        dst: the file; an existing one is replaced, its folder is made if missing.
        checksum: "md5:…" or "sha256:…"; without one, only the size is checked, if the server reports it.

    Raises:
        DownloadError: the file could not be downloaded, or has another checksum.
    """
    dst = Path(dst)
    dst.parent.mkdir(parents=True, exist_ok=True)
    part = dst.with_name(f"{dst.name}.part")
    receive = _receive_from_drive if urllib.parse.urlsplit(url).hostname in DRIVE_HOSTS else _receive_all
    print(f"Fetching {url} to {dst}")
    algorithm, _, expected = checksum.partition(":")
    while True:
        resumed = any(part.parent.glob(f"{glob.escape(part.name)}*"))
        receive(url, part)
        if not expected or (found := file_checksum(part, algorithm)) == expected:
            return move_into_place(part, dst)
        size = part.stat().st_size
        part.unlink()
        if not resumed:  # otherwise the earlier bytes may be those of another file
            raise DownloadError(
                f"{url}: the downloaded file ({size:,} bytes) has {algorithm} {found}, expected {expected}"
            )


def _receive_all(url: str, part: Path) -> None:
    """Send requests until ``part`` is complete."""
    failures, most = 0, _size(part)
    while True:
        try:
            return _receive(url, part)
        except _RequestError as error:
            if _size(part) > most:
                failures, most = 0, _size(part)
            if not error.retry or failures == len(RETRY_DELAYS):
                raise DownloadError(f"{url}: {error}") from error
            time.sleep(RETRY_DELAYS[failures])
            failures += 1


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(url: str, part: Path) -> None:
    """Send one request: append the missing bytes to ``part``, or overwrite it if the server sends the whole file."""
    start = _size(part)
    headers = HEADERS | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there are no bytes from `start` on
            if _total_size(error.headers.get("Content-Range")) == start:
                return
            part.unlink()
            raise _RequestError("the server's file is shorter than the part received earlier", retry=True) from error
        retry = error.code >= 500 or error.code in (408, 429)
        raise _RequestError(f"HTTP {error.code} {error.reason}", retry) from error
    except (OSError, HTTPException) as error:
        raise _connection_error(error) from error
    with response:
        if response.status != 206:
            start = 0
        elif not str(response.headers.get("Content-Range", "")).startswith(f"bytes {start}-"):
            part.unlink()
            raise _RequestError("the server answered with another range than requested", retry=True)
        length = response.headers.get("Content-Length")
        _copy(response, part, start, start + int(length) if length else None)


def _connection_error(error: Exception) -> _RequestError:
    """Describe a failed connection. An unreachable address is not retried: callers have other places to try."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    unreachable = (socket.gaierror, ConnectionRefusedError, TimeoutError, ssl.SSLError)
    return _RequestError(f"cannot connect ({reason})", retry=not isinstance(reason, unreachable))


def _total_size(content_range: str | None) -> int | None:
    match = re.fullmatch(r"bytes .*/(\d+)", content_range or "")
    return int(match[1]) if match else None


def _copy(response: HTTPResponse, part: Path, start: int, total: int | None) -> None:
    """Write a response's body to ``part`` from byte ``start`` on; ``total`` is the size of the complete file."""
    from tqdm import tqdm

    received = start
    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None)
    with bar, open(part, "ab" if start else "wb") as file:
        while True:
            try:
                chunk = response.read(CHUNK)
            except (OSError, HTTPException) as error:
                raise _RequestError(f"the connection broke after {received:,} bytes ({error})", retry=True) from error
            if not chunk:
                break
            file.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    if total is not None and received < total:
        raise _RequestError(f"the connection closed after {received:,} of {total:,} bytes", retry=True)


def _receive_from_drive(url: str, part: Path) -> None:
    """Download a Google Drive link with gdown, which keeps unfinished bytes in ``<part><8 characters>.part``."""
    import gdown
    from gdown.exceptions import DownloadError as GdownError

    earlier = {path: path.stat().st_size for path in part.parent.glob(f"{glob.escape(part.name)}????????.part")}
    quiet = not sys.stderr.isatty()
    try:
        gdown.download(url, str(part), quiet=quiet, resume=True, retries=len(RETRY_DELAYS), timeout=TIMEOUT)
    except (GdownError, OSError) as error:  # the errors of its HTTP library are OSErrors
        if any(_size(path) > size for path, size in earlier.items()) or not earlier:
            raise DownloadError(f"{url}: {' '.join(str(error).split())}") from error
        for path in earlier:  # the server may not be able to resume
            path.unlink(missing_ok=True)
        _receive_from_drive(url, part)


def hub_address() -> str:
    """Return the address of the Hugging Face hub, or of the mirror given by ``HF_ENDPOINT``."""
    return (os.environ.get("HF_ENDPOINT") or HUB_ADDRESS).rstrip("/")


def through_mirror(url: str) -> str:
    """Return ``url``, at the mirror given by ``HF_ENDPOINT`` if it is an address of the hub."""
    return hub_address() + url.removeprefix(HUB_ADDRESS) if url.startswith(f"{HUB_ADDRESS}/") else url


def hub_files(repository: str, repo_type: str = "model") -> "list[RepoFile]":
    """Return the files of a hub repository, those in folders included.

    Raises:
        DownloadError: the hub cannot be reached, or has no such repository.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with _hub(repository):
        entries = HfApi(endpoint=hub_address()).list_repo_tree(repository, repo_type=repo_type, recursive=True)
        return [entry for entry in entries if isinstance(entry, RepoFile)]


def fetch_from_hub(repository: str, file: str, folder: Path | None = None, repo_type: str = "model") -> Path:
    """Return the path of a hub repository's file, downloaded if necessary.

    Args:
        repository: "owner/name".
        file: path in the repository.
        folder: where the file goes; by default it is read from, or downloaded to, the hub client's own cache.
        repo_type: "model" or "dataset".

    Raises:
        DownloadError: the hub cannot be reached, or has no such file.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import LocalEntryNotFoundError

    if folder is None:
        with suppress(LocalEntryNotFoundError):
            return Path(hf_hub_download(repository, file, repo_type=repo_type, local_files_only=True))
    with _hub(repository):
        print(f"Fetching {file} of {repository} from {hub_address()}")
        return Path(hf_hub_download(repository, file, repo_type=repo_type, local_dir=folder, endpoint=hub_address()))


@contextmanager
def _hub(repository: str) -> Iterator[None]:
    """Check that the hub can be reached, and turn the client's errors into DownloadErrors."""
    try:
        _check_reachable(hub_address())  # the client itself retries for half a minute
        yield
    except Exception as error:  # the client's own errors, its HTTP library's, and the system's
        reason = " ".join(str(error.__cause__ or error).split())[:300] or type(error).__name__
        raise DownloadError(f"Hugging Face hub {repository} at {hub_address()}: {reason}") from error


def _check_reachable(address: str) -> None:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT).close()
    except urllib.error.HTTPError:
        return  # an error status is an answer, too
    except (OSError, HTTPException) as error:
        raise _connection_error(error) from None
