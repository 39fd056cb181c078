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
from typing import TYPE_CHECKING, Any

from dassl.utils.disk import DISK_FULL, DiskFullError, check_space, readable_size
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
MAX_SIZE = 2**36  # bytes; more than any file that can be downloaded without a login
# Some dataset servers refuse clients that do not look like a browser
HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; dassl)", "Accept-Encoding": "identity"}
SCHEMES = ("http", "https")


class DownloadError(ConnectionError):
    """A file could not be downloaded. The message starts with its address.

    Attributes:
        status: of the hub's answer, such as 404; None if there was no answer.
    """

    status: int | None = None


class _RequestError(Exception):
    """One request failed. ``retry`` says whether a further request may succeed."""

    def __init__(self, reason: str, retry: bool) -> None:
        super().__init__(reason)
        self.retry = retry


class _TooLargeError(_RequestError):
    """The server announces or sends more than the limit."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the server sends {size:,} bytes or more; the limit is {limit:,}", retry=False)


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Follows redirects to web addresses only, not to ftp or files."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urllib.parse.urlsplit(newurl).scheme not in SCHEMES:
            raise urllib.error.HTTPError(newurl, code, f"a redirection to {newurl}, which is not followed", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: urllib.request.Request) -> Any:
    """Send a request; the body of the answer is not decoded, whatever its encoding."""
    return urllib.request.build_opener(_WebOnly).open(request, timeout=TIMEOUT)


def file_checksum(path: Path | str, algorithm: str) -> str:
    """Return the hexadecimal checksum (md5, sha256, …) of a file's content."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def download_url(url: str, dst: str | Path, checksum: str = "", limit: int = MAX_SIZE) -> None:
    """Download ``url`` to the file ``dst``, which appears only when it is complete and verified.

    The bytes received before a connection broke or the process was killed are kept in ``<dst>.part``; the next call
    resumes from there. At most one process at a time may download to a given file: callers hold a lock if needed.

    Args:
        url: an http(s) address or a Google Drive link.
        dst: the file; an existing one is replaced, its folder is made if missing.
        checksum: "md5:…" or "sha256:…"; without one, only the size is checked, if the server reports it.
        limit: largest size in bytes. A server that announces or sends more is refused.

    Raises:
        DownloadError: the file could not be downloaded, is larger than the limit, or has another checksum.
        DiskFullError: there is not enough space; the bytes received are kept.
    """
    if urllib.parse.urlsplit(url).scheme not in SCHEMES:
        raise DownloadError(f"{url}: only {' and '.join(SCHEMES)} addresses are downloaded")
    dst = Path(dst)
    dst.parent.mkdir(parents=True, exist_ok=True)
    part = dst.with_name(f"{dst.name}.part")
    receive = _receive_from_drive if urllib.parse.urlsplit(url).hostname in DRIVE_HOSTS else _receive_all
    print(f"Fetching {url} to {dst}")
    algorithm, _, expected = checksum.partition(":")
    while True:
        resumed = any(part.parent.glob(f"{glob.escape(part.name)}*"))
        receive(url, part, limit)
        if not expected or (found := file_checksum(part, algorithm)) == expected:
            return move_into_place(part, dst)
        size = part.stat().st_size
        part.unlink()
        if not resumed:  # otherwise the earlier bytes may be those of another file
            raise DownloadError(
                f"{url}: the downloaded file ({size:,} bytes) has {algorithm} {found}, expected {expected}"
            )


def _receive_all(url: str, part: Path, limit: int) -> None:
    """Send requests until ``part`` is complete; of a file larger than ``limit``, nothing is left."""
    failures, most = 0, _size(part)
    while True:
        try:
            return _receive(url, part, limit)
        except _TooLargeError as error:
            part.unlink(missing_ok=True)
            raise DownloadError(f"{url}: {error}") from error
        except _RequestError as error:
            if _size(part) > most:
                failures, most = 0, _size(part)
            if not error.retry or failures == len(RETRY_DELAYS):
                raise DownloadError(f"{url}: {error}") from error
            time.sleep(RETRY_DELAYS[failures])
            failures += 1


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(url: str, part: Path, limit: int) -> None:
    """Send one request: append the missing bytes to ``part``, or overwrite it if the server sends the whole file."""
    start = _size(part)
    headers = HEADERS | ({"Range": f"bytes={start}-"} if start else {})
    try:
        response = _open(urllib.request.Request(url, headers=headers))
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
        length = response.headers.get("Content-Length") or ""
        _copy(response, part, start, start + int(length) if length.isdecimal() else None, limit)


def _connection_error(error: Exception) -> _RequestError:
    """Describe a failed connection. An unreachable address is not retried: callers have other places to try."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    unreachable = (socket.gaierror, ConnectionRefusedError, TimeoutError, ssl.SSLError)
    return _RequestError(f"cannot connect ({reason})", retry=not isinstance(reason, unreachable))


def _total_size(content_range: str | None) -> int | None:
    match = re.fullmatch(r"bytes .*/(\d+)", content_range or "")
    return int(match[1]) if match else None


def _copy(response: HTTPResponse, part: Path, start: int, total: int | None, limit: int) -> None:
    """Write a response's body to ``part`` from byte ``start`` on; ``total`` is the size of the complete file."""
    from tqdm import tqdm

    received = start
    if total is not None and total > limit:
        raise _TooLargeError(total, limit)
    check_space(part.parent, (total or 0) - start, f"downloading {part.stem}")
    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None)
    with _full_disk_named(part), bar, open(part, "ab" if start else "wb") as file:
        while True:
            try:
                chunk = response.read(CHUNK)
            except (OSError, HTTPException) as error:
                raise _RequestError(f"the connection broke after {received:,} bytes ({error})", retry=True) from error
            if not chunk:
                break
            received += len(chunk)
            if received > limit:
                raise _TooLargeError(received, limit)
            file.write(chunk)
            bar.update(len(chunk))
    if total is not None and received < total:
        raise _RequestError(f"the connection closed after {received:,} of {total:,} bytes", retry=True)


@contextmanager
def _full_disk_named(part: Path) -> Iterator[None]:
    """Name the file in errors of a full disk; what was received is kept for the next call."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        size = _size(part)
        if not size:
            part.unlink(missing_ok=True)
        raise DiskFullError(f"{part}: {error.strerror} after {readable_size(size)}") from error


def _receive_from_drive(url: str, part: Path, limit: int) -> None:
    """Download a Google Drive link with gdown, which keeps unfinished bytes in ``<part><8 characters>.part``."""
    import gdown
    from gdown.exceptions import DownloadError as GdownError

    earlier = {path: path.stat().st_size for path in part.parent.glob(f"{glob.escape(part.name)}????????.part")}
    quiet, retries = not sys.stderr.isatty(), len(RETRY_DELAYS)

    def watch(received: int, total: int | None) -> None:
        if max(received, total or 0) > limit:
            raise _TooLargeError(max(received, total or 0), limit)

    try:
        with _full_disk_named(part):
            gdown.download(url, str(part), quiet=quiet, resume=True, retries=retries, timeout=TIMEOUT, progress=watch)
    except DiskFullError:
        raise
    except _TooLargeError as error:
        for path in part.parent.glob(f"{glob.escape(part.name)}*"):
            path.unlink()
        raise DownloadError(f"{url}: {error}") from error
    except (GdownError, OSError) as error:  # the errors of its HTTP library are OSErrors
        if any(_size(path) > size for path, size in earlier.items()) or not earlier:
            raise DownloadError(f"{url}: {' '.join(str(error).split())}") from error
        for path in earlier:  # the server may not be able to resume
            path.unlink(missing_ok=True)
        _receive_from_drive(url, part, limit)


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
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise
        reason = " ".join(str(error.__cause__ or error).split())[:300] or type(error).__name__
        failure = DownloadError(f"Hugging Face hub {repository} at {hub_address()}: {reason}")
        answers = (getattr(one, "response", None) for one in (error, error.__cause__))
        failure.status = next((answer.status_code for answer in answers if answer is not None), None)
        raise failure from error


def _check_reachable(address: str) -> None:
    try:
        _open(urllib.request.Request(address, method="HEAD")).close()
    except urllib.error.HTTPError:
        return  # an error status is an answer, too
    except (OSError, HTTPException) as error:
        raise _connection_error(error) from None
