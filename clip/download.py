"""Fetching files: from an address, resumed where an earlier try stopped and verified; from the Hugging Face hub."""

import hashlib
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from tqdm import tqdm

TIMEOUT = 20.0  # seconds without an answer
RETRY_DELAYS = (1.0, 3.0, 9.0)  # seconds before each new try
CHUNK = 1 << 20
HUB_ADDRESS = "https://huggingface.co"


class DownloadError(RuntimeError):
    """An address did not give the file. `retry` says whether asking again may help."""

    def __init__(self, reason: str, retry: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def move_into_place(temporary: Path, path: Path) -> None:
    """Put a written file at `path` in one step, its content on disk first."""
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def fetch(url: str, path: Path, sha256: str | None = None) -> None:
    """Download `url` to `path`.

    The bytes gather in `<path>.part`, which a later call continues. One process at a time may fetch a path: the
    caller holds a lock.

    Args:
        sha256: expected checksum; None takes the file as it is.

    Raises:
        DownloadError: why the address did not give this file.
    """
    part = path.with_name(path.name + ".part")
    resumed = part.exists()
    _receive_all(url, part)
    if sha256 is not None and (found := file_sha256(part)) != sha256:
        part.unlink()
        if resumed:  # the earlier part may have been another file's
            return fetch(url, path, sha256)
        raise DownloadError(f"what came has SHA-256 {found}, expected {sha256}")
    move_into_place(part, path)


def _receive_all(url: str, part: Path) -> None:
    """Ask until `part` is whole; give up after a row of tries that brought nothing."""
    failures = 0
    while True:
        before = _size(part)
        try:
            return _receive(url, part)
        except DownloadError as error:
            failures = 0 if _size(part) > before else failures
            if not error.retry or failures == len(RETRY_DELAYS):
                raise
            time.sleep(RETRY_DELAYS[failures])
            failures += 1


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive(url: str, part: Path) -> None:
    """One request: append what is missing to `part`, or write it anew where the server sends the whole."""
    start = _size(part)
    headers = {"User-Agent": "clip", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing lies beyond `start`
            if _total_size(error.headers.get("Content-Range")) == start:
                return
            part.unlink()
            raise DownloadError("the server has less than the part received earlier", retry=True) from error
        retry = error.code >= 500 or error.code in (408, 429)
        raise DownloadError(f"HTTP {error.code} {error.reason}", retry) from error
    except (OSError, HTTPException) as error:
        raise _connection_error(error) from error
    with response:
        if response.status != 206:
            start = 0
        elif not str(response.headers.get("Content-Range", "")).startswith(f"bytes {start}-"):
            part.unlink()
            raise DownloadError("the server answered with another range than asked", retry=True)
        length = response.headers.get("Content-Length")
        _copy(response, part, start, start + int(length) if length else None)


def _connection_error(error: Exception) -> DownloadError:
    """An address that cannot be reached at all is not asked again: the caller has other places to try."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    unreachable = (socket.gaierror, ConnectionRefusedError, TimeoutError, ssl.SSLError)
    return DownloadError(f"cannot connect ({reason})", retry=not isinstance(reason, unreachable))


def _total_size(content_range: str | None) -> int | None:
    match = re.fullmatch(r"bytes .*/(\d+)", content_range or "")
    return int(match[1]) if match else None


def _copy(response: HTTPResponse, part: Path, start: int, total: int | None) -> None:
    """Write a response's body into `part` from byte `start` on; `total` is the file's size when all is there."""
    have = start
    bar = tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None)
    with bar, open(part, "ab" if start else "wb") as file:
        while True:
            try:
                chunk = response.read(CHUNK)
            except (OSError, HTTPException) as error:
                raise DownloadError(f"the connection broke after {have:,} bytes ({error})", retry=True) from error
            if not chunk:
                break
            file.write(chunk)
            have += len(chunk)
            bar.update(len(chunk))
    if total is not None and have < total:
        raise DownloadError(f"the connection closed after {have:,} of {total:,} bytes", retry=True)


def hub_address() -> str:
    """Address of the Hugging Face hub, or of the mirror that `HF_ENDPOINT` names."""
    return os.environ.get("HF_ENDPOINT", HUB_ADDRESS).rstrip("/")


def fetch_from_hub(repository: str, file: str) -> Path:
    """Path of a hub repository's file in the hub client's own cache, downloaded if it is not there.

    Raises:
        DownloadError: why the hub did not give it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import LocalEntryNotFoundError

    address = hub_address()
    try:
        return Path(hf_hub_download(repository, file, local_files_only=True))
    except LocalEntryNotFoundError:
        _check_reachable(address)  # the client itself would retry for half a minute
    print(f"Fetching {file} of {repository} from {address}")
    try:
        return Path(hf_hub_download(repository, file, endpoint=address))
    except Exception as error:  # the client's own errors, its HTTP library's, and the system's
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise DownloadError(reason or type(error).__name__) from error


def _check_reachable(address: str) -> None:
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=TIMEOUT).close()
    except urllib.error.HTTPError:
        return  # refusing is an answer too
    except (OSError, HTTPException) as error:
        raise _connection_error(error) from error
