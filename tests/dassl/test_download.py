"""Downloads from a local server that drops connections, sends wrong data and disappears."""

import gzip
import hashlib
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from dassl.utils import DiskFullError, download
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


# Servers that harm


def test_endless_data_stop_at_the_limit_and_leave_nothing(either, tmp_path):
    either.endless = True
    with pytest.raises(
        DownloadError, match=r"data\.bin: the server sends 3,\d{3},\d{3} bytes or more; the limit is 3,000,000"
    ):
        download_url(f"{either.address}/data.bin", tmp_path / "data.bin", limit=3_000_000)
    assert list(tmp_path.iterdir()) == []


def test_what_is_announced_to_be_larger_than_the_limit_is_not_downloaded(either, tmp_path):
    with pytest.raises(DownloadError, match=r"the server sends 2,097,152 bytes or more; the limit is 1,000,000"):
        download_url(f"{either.address}/data.bin", tmp_path / "data.bin", limit=1_000_000)
    assert list(tmp_path.iterdir()) == []
    download_url(f"{either.address}/data.bin", tmp_path / "data.bin", limit=len(CONTENT))


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "gopher://127.0.0.1/"])
def test_redirects_lead_to_web_addresses_only(server, tmp_path, target):
    server.redirects = {"/other.bin": "/data.bin", "/moved.bin": target}
    with pytest.raises(DownloadError, match=r"moved\.bin: HTTP 302 .*(which is not followed|not allowed)"):
        download_url(f"{server.address}/moved.bin", tmp_path / "moved.bin")
    assert list(tmp_path.iterdir()) == []
    download_url(f"{server.address}/other.bin", tmp_path / "other.bin", MD5)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/etc/passwd", "data:,x"])
def test_only_web_addresses_are_downloaded(tmp_path, url):
    with pytest.raises(DownloadError, match=r"only http and https addresses are downloaded"):
        download_url(url, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_compressed_answer_is_not_decompressed(server, tmp_path):
    """Servers announce a .tar.gz as an encoded tar. As it is never decoded, it cannot be a bomb, either."""
    server.files["/a.tar.gz"] = packed = gzip.compress(bytes(10**7))
    server.headers = {"Content-Encoding": "gzip"}
    download_url(f"{server.address}/a.tar.gz", tmp_path / "a.tar.gz", limit=len(packed))
    assert (tmp_path / "a.tar.gz").read_bytes() == packed


@pytest.mark.parametrize("length", ["-5", "abc", ""])
def test_a_length_that_is_no_number_is_ignored(server, tmp_path, length):
    server.endless, server.headers = True, {"Content-Length": length}
    with pytest.raises(DownloadError, match=r"the limit is 3,000,000|HTTP|connection"):
        download_url(f"{server.address}/data.bin", tmp_path / "data.bin", limit=3_000_000)


# Full disks


def test_free_space_is_checked_before_a_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**20))
    with pytest.raises(DiskFullError, match=r": downloading data\.bin needs 2\.0 MiB, 1\.0 MiB are free"):
        download_url(f"{server.address}/data.bin", tmp_path / "data.bin")
    assert list(tmp_path.iterdir()) == []


def download_with_little_space(url: str, path: str, queue) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK, CHUNK))
    try:
        download_url(url, path, MD5)
    except DiskFullError as error:
        queue.put(str(error))


def test_what_fitted_on_the_disk_is_continued_when_there_is_space(server, tmp_path):
    arguments = (f"{server.address}/data.bin", str(tmp_path / "data.bin"))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=download_with_little_space, args=(*arguments, queue))
    process.start()
    assert queue.get(timeout=60) == f"{arguments[1]}.part: File too large after 0.5 MiB"
    process.join()
    download_url(*arguments, MD5)
    assert server.gets[-1] == ("/data.bin", f"bytes={CHUNK}-")
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin"]
