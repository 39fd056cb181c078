"""Downloads against a local server that drops connections, lies and disappears."""

import hashlib

import pytest

import dassl.utils.download as download
from dassl.utils.download import DownloadError, download_url, file_checksum
from tests.file_server import FileServer, serve

CHUNK = 512 * 1024  # gdown keeps whole chunks of what came
CONTENT = bytes(range(256)) * 8192  # four of them
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("random.uniform", lambda a, b: 0.0)  # gdown's wait between tries
    with serve() as running:
        running.files["/data.bin"] = CONTENT
        yield running


def fetch(server: FileServer, folder, checksum=MD5):
    download_url(f"{server.address}/data.bin", folder / "new" / "data.bin", checksum)
    assert [path.name for path in (folder / "new").iterdir()] == ["data.bin"]  # nothing else is left
    assert (folder / "new" / "data.bin").read_bytes() == CONTENT


def test_checksum_of_a_file(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # RFC 1321 and FIPS 180-2 give these
    assert file_checksum(tmp_path / "abc", "md5") == "900150983cd24fb0d6963f7d28e17f72"
    assert file_checksum(tmp_path / "abc", "sha256").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_a_file_arrives_with_and_without_a_checksum(server, tmp_path):
    fetch(server, tmp_path)
    fetch(server, tmp_path, checksum="")  # an older file is replaced


def test_a_dropped_connection_is_continued(server, tmp_path):
    server.drop_after = [CHUNK + 1000, 2 * CHUNK + 1000]
    fetch(server, tmp_path)
    assert [asked for _, asked in server.gets] == [None, f"bytes={CHUNK}-", f"bytes={3 * CHUNK}-"]


def test_the_next_call_continues_what_was_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 0)
    server.drop_after = [CHUNK + 1000]
    with pytest.raises(DownloadError, match=rf"data\.bin: Download is incomplete: received {CHUNK} bytes"):
        fetch(server, tmp_path)
    assert not (tmp_path / "new" / "data.bin").exists()
    fetch(server, tmp_path)
    assert server.gets[-1] == ("/data.bin", f"bytes={CHUNK}-")


def test_a_server_that_does_not_continue_is_asked_for_the_whole(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 0)
    server.drop_after = [CHUNK + 1000]
    server.ranges = False
    with pytest.raises(DownloadError, match="incomplete"):
        fetch(server, tmp_path)
    fetch(server, tmp_path)


def test_the_rest_of_another_file_is_given_up_and_fetched_anew(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 0)
    server.files["/data.bin"] = b"x" * len(CONTENT)
    server.drop_after = [CHUNK + 1000]
    with pytest.raises(DownloadError, match="incomplete"):
        fetch(server, tmp_path)
    server.files["/data.bin"] = CONTENT
    fetch(server, tmp_path)


def test_a_wrong_checksum_leaves_nothing_and_keeps_the_old_file(server, tmp_path):
    fetch(server, tmp_path)
    server.files["/data.bin"] = CONTENT[:-1] + b"?"
    with pytest.raises(DownloadError, match=rf"the 2,097,152 bytes that came have md5 \w+, expected {MD5[4:]}"):
        download_url(f"{server.address}/data.bin", tmp_path / "new" / "data.bin", MD5)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["data.bin"]
    assert (tmp_path / "new" / "data.bin").read_bytes() == CONTENT


def test_an_absent_file_and_an_absent_server_are_named(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 1)
    with pytest.raises(DownloadError, match=r"/other\.bin: 404"):
        download_url(f"{server.address}/other.bin", tmp_path / "other.bin")
    with pytest.raises(DownloadError, match=r"http://127\.0\.0\.1:9/x: .*refused"):
        download_url("http://127.0.0.1:9/x", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
