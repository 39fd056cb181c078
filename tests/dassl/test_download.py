"""Downloads from a local server that drops connections, sends wrong data and disappears."""

import hashlib
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from filelock import FileLock

from dassl.utils import download
from dassl.utils.download import DownloadError, download_url, file_checksum
from tests.file_server import FileServer, serve

CHUNK = 512 * 1024  # gdown keeps whole chunks
CONTENT = bytes(range(256)) * 8192  # four of them
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "RETRY_DELAYS", (0.0, 0.0))
    monkeypatch.setattr("random.uniform", lambda a, b: 0.0)  # gdown's delay before a retry
    with serve() as running:
        running.files["/data.bin"] = CONTENT
        yield running


@pytest.fixture(params=["address", "drive"])
def either(request, server, monkeypatch):
    """The server, asked by each of the two clients: that of plain addresses, and gdown."""
    if request.param == "drive":
        monkeypatch.setattr(download, "DRIVE_HOSTS", ("127.0.0.1",))
    return server


def no_retries(monkeypatch) -> None:
    monkeypatch.setattr(download, "RETRY_DELAYS", ())


def fetch(server: FileServer, folder, checksum=MD5):
    download_url(f"{server.address}/data.bin", folder / "new" / "data.bin", checksum)
    assert [path.name for path in (folder / "new").iterdir()] == ["data.bin"]  # nothing else is left
    assert (folder / "new" / "data.bin").read_bytes() == CONTENT


def test_checksum_of_a_file(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the values are those of RFC 1321 and FIPS 180-2
    assert file_checksum(tmp_path / "abc", "md5") == "900150983cd24fb0d6963f7d28e17f72"
    assert file_checksum(tmp_path / "abc", "sha256").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_a_file_is_downloaded_with_and_without_a_checksum(either, tmp_path):
    fetch(either, tmp_path)
    fetch(either, tmp_path, checksum="")  # an older file is replaced


def test_only_drive_links_go_to_gdown(server, tmp_path, monkeypatch):
    asked = []

    def gdown(url, path, **_):
        asked.append(url)
        Path(path).write_bytes(b"x")

    monkeypatch.setattr("gdown.download", gdown)
    fetch(server, tmp_path)
    for url in ("https://drive.google.com/uc?id=1-61f", "https://docs.google.com/document/d/1-61f/edit"):
        download_url(url, tmp_path / "drive")
        assert (asked.pop(), (tmp_path / "drive").read_bytes()) == (url, b"x")
    assert asked == []


def test_a_dropped_connection_is_resumed(server, tmp_path):
    server.drop_after = [CHUNK + 1000, 2 * CHUNK + 1000]
    fetch(server, tmp_path)
    assert [asked for _, asked in server.gets] == [None, f"bytes={CHUNK + 1000}-", f"bytes={3 * CHUNK + 2000}-"]


def test_a_dropped_connection_is_resumed_by_gdown(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "DRIVE_HOSTS", ("127.0.0.1",))
    server.drop_after = [CHUNK + 1000, 2 * CHUNK + 1000]
    fetch(server, tmp_path)
    assert [asked for _, asked in server.gets] == [None, f"bytes={CHUNK}-", f"bytes={3 * CHUNK}-"]


def test_the_next_call_resumes_what_was_left(either, tmp_path, monkeypatch):
    no_retries(monkeypatch)
    either.drop_after = [CHUNK]
    with pytest.raises(DownloadError, match=r"data\.bin: .*(524,288|524288)"):
        fetch(either, tmp_path)
    assert not (tmp_path / "new" / "data.bin").exists()
    fetch(either, tmp_path)
    assert either.gets[-1] == ("/data.bin", f"bytes={CHUNK}-")


def download_slowly(url: str, path: str) -> None:
    """A process that receives a chunk, and hangs in the middle of the next."""
    download.CHUNK = 1000
    download_url(url, path, MD5)


def test_a_killed_process_is_resumed(server, tmp_path):
    server.pause_at = CHUNK
    (tmp_path / "new").mkdir()
    arguments = (f"{server.address}/data.bin", str(tmp_path / "new" / "data.bin"))
    process = multiprocessing.get_context("spawn").Process(target=download_slowly, args=arguments)
    process.start()
    part = tmp_path / "new" / "data.bin.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    left = part.stat().st_size
    assert 0 < left <= CHUNK
    server.pause_at = 0
    fetch(server, tmp_path)
    assert server.gets[-1] == ("/data.bin", f"bytes={left}-")


def download_locked(url: str, path: str) -> None:
    with FileLock(f"{path}.lock"):
        if not os.path.exists(path):
            download_url(url, path, MD5)


def test_two_processes_under_a_lock_download_once(server, tmp_path):
    server.delay = 1.0
    arguments = (f"{server.address}/data.bin", str(tmp_path / "data.bin"))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=download_locked, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert server.gets == [("/data.bin", None)]


def test_a_server_that_cannot_resume_is_asked_for_the_whole_file(either, tmp_path, monkeypatch):
    no_retries(monkeypatch)
    either.drop_after = [CHUNK + 1000]
    either.ranges = False
    with pytest.raises(DownloadError, match=r"connection closed|incomplete"):
        fetch(either, tmp_path)
    fetch(either, tmp_path)


@pytest.mark.parametrize("claimed", ["bytes 0-2097151/2097152", "bytes 524289-2097151/2097152", "none"])
def test_another_range_than_requested_is_not_appended(server, tmp_path, monkeypatch, claimed):
    server.drop_after = [CHUNK]
    server.content_range = claimed
    fetch(server, tmp_path)
    assert server.gets[-1] == ("/data.bin", None)


def test_the_part_of_another_file_is_discarded_and_downloaded_again(either, tmp_path, monkeypatch):
    no_retries(monkeypatch)
    either.files["/data.bin"] = b"x" * len(CONTENT)
    either.drop_after = [CHUNK + 1000]
    with pytest.raises(DownloadError, match=r"connection closed|incomplete"):
        fetch(either, tmp_path)
    either.files["/data.bin"] = CONTENT
    fetch(either, tmp_path)


def test_a_server_that_drops_all_connections_is_given_up(server, tmp_path):
    """Without ranges each request starts from the beginning: receiving fewer bytes than before is no progress."""
    server.ranges = False
    server.drop_after = [3000, 2000] * 5
    with pytest.raises(DownloadError, match=r"the connection closed after 3,000 of 2,097,152 bytes"):
        fetch(server, tmp_path)
    assert len(server.gets) == 3


def test_a_wrong_checksum_leaves_nothing_and_keeps_the_old_file(either, tmp_path):
    fetch(either, tmp_path)
    either.files["/data.bin"] = CONTENT[:-1] + b"?"
    message = rf"the downloaded file \(2,097,152 bytes\) has md5 \w+, expected {MD5[4:]}"
    with pytest.raises(DownloadError, match=message):
        download_url(f"{either.address}/data.bin", tmp_path / "new" / "data.bin", MD5)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["data.bin"]
    assert (tmp_path / "new" / "data.bin").read_bytes() == CONTENT


def test_a_missing_file_and_an_absent_server_are_named(either, tmp_path, monkeypatch):
    no_retries(monkeypatch)
    with pytest.raises(DownloadError, match=r"/other\.bin: (HTTP )?404"):
        download_url(f"{either.address}/other.bin", tmp_path / "other.bin")
    with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:9/x: .*refused"):
        download_url("http://127.0.0.1:9/x", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_an_absent_server_is_asked_once(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("waited for an address that cannot be reached"))
    with pytest.raises(DownloadError, match=r"cannot connect .*refused"):
        download_url("http://127.0.0.1:9/x", tmp_path / "x")


def test_addresses_of_the_hub_go_through_its_mirror(monkeypatch):
    url = "https://huggingface.co/datasets/a/b/resolve/main/c.zip"
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert download.through_mirror(url) == url
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror/")
    assert download.through_mirror(url) == "http://mirror/datasets/a/b/resolve/main/c.zip"
    assert download.through_mirror("https://example.org/c.zip") == "https://example.org/c.zip"
