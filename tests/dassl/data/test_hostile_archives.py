"""Archives made to harm: refused by name before anything is written, and the folder stays as it was."""

import errno
import gzip
import io
import os
import shutil
import stat
import struct
import tarfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dassl.data import archives
from dassl.data.archives import ArchiveError, Limits, unpack
from dassl.utils import DISK_FULL, DiskFullError

MEBI = 2**20


def tar_bytes(*members: tuple[tarfile.TarInfo, bytes], mode="w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for info, content in members:
            info.size = info.size or len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def file(name: str, content: bytes = b"hello") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def special(name: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "good"
    return info, b""


def zip_bytes(*names: str, content=b"hello", method=zipfile.ZIP_STORED, mode=0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as zipped:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, method
            zipped.writestr(info, content)
    return buffer.getvalue()


@pytest.fixture
def refused(tmp_path):
    """Check that an archive is refused, and that a folder with other files stays as it was."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "good").write_text("earlier")

    def check(content: bytes, message: str, limits: Limits | None = None) -> None:
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ArchiveError, match=message) as caught:
            unpack(tmp_path / "x", folder, limits)
        assert str(tmp_path / "x") in str(caught.value) and "\n" not in str(caught.value)
        assert [path.name for path in folder.iterdir()] == ["good"] and (folder / "good").read_text() == "earlier"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x"]

    return check


# Names


@pytest.mark.parametrize("make", [lambda *names: tar_bytes(*map(file, names)), zip_bytes], ids=["tar", "zip"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["../evil"], "outside the folder"),
        (["a/../../evil"], "outside the folder"),
        (["/tmp/evil"], "outside the folder"),
        (["C:/evil"], "outside the folder"),
        (["c:evil"], "outside the folder"),
        (["a\\b"], r"holds the name 'a\\\\b', which is no file name"),
        (["."], "holds the name '.', which is no file name"),
        (["x" * 256], "holds a name of 256 characters, 'xxx.*…, which is too long"),
        (["é" * 128], "holds a name of 128 characters, .* too long"),
        (["a/" * 2100 + "b"], "holds a name of 4,201 characters, .* too long"),
        (["a", "b", "a"], "holds the name 'a' twice"),
        (["a/b", "./a//b"], "twice"),
        (["a", "a/b"], "holds 'a/b' inside of a file"),
        (["a/b", "a"], "holds the name 'a' twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_are_not_unpacked(refused, make, names, message) -> None:
    refused(make("good", *names), f"{message}.*: not unpacked")


def test_a_null_character_is_refused(refused) -> None:
    refused(zip_bytes("good", "aX.jpg").replace(b"aX.jpg", b"a\0.jpg"), r"holds the name 'a\\x00\.jpg'")
    info = tarfile.TarInfo("placeholder")
    info.pax_headers = {"path": "a\0.jpg"}
    refused(tar_bytes(file("good"), (info, b"")), r"holds the name 'a\\x00\.jpg'|twice|not an archive")


def test_a_name_that_is_not_utf_8_is_refused(refused) -> None:
    refused(tar_bytes(file("aXb")).replace(b"aXb", b"a\xffb"), "is damaged or not an archive")  # the header's sum
    info = tarfile.TarInfo("a\udcffb")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        tar.addfile(info)
    refused(buffer.getvalue(), r"holds the name 'a\\udcffb', which is not UTF-8")


@pytest.mark.parametrize("names", [("a/Photo.jpg", "a/photo.JPG"), ("A/x", "a/X"), ("caf\u00e9", "cafe\u0301")])
def test_names_that_differ_in_case_alone_are_refused_where_the_file_system_ignores_it(
    refused, monkeypatch, names
) -> None:
    monkeypatch.setattr(archives, "_ignores_case", lambda folder: True)
    refused(zip_bytes("good", *names), "twice")


def test_names_that_differ_in_case_alone_are_unpacked_elsewhere(tmp_path) -> None:
    (tmp_path / "x.zip").write_bytes(zip_bytes("A/b", "a/b"))
    (tmp_path / "out").mkdir()
    if not archives._ignores_case(tmp_path / "out"):
        assert len(unpack(tmp_path / "x.zip", tmp_path / "out")) == 2


# Kinds of entries


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_devices_and_pipes_in_a_tar(refused, kind) -> None:
    refused(tar_bytes(file("good"), special("evil", kind)), "holds a link or device, 'evil': not unpacked")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_devices_and_pipes_in_a_zip(refused, kind) -> None:
    refused(zip_bytes("evil", mode=kind | 0o644), "holds a link or device, 'evil': not unpacked")


def test_a_sparse_file_in_a_tar(refused) -> None:
    info, content = file("evil", b"x" * 512)
    info.pax_headers = {"GNU.sparse.size": str(2**40), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,512"}
    refused(tar_bytes((info, content)), "holds a link or device, 'evil'|is damaged")


def test_an_encrypted_zip(refused) -> None:
    content = bytearray(zip_bytes("good", "evil"))
    at = content.rindex(b"PK\1\2")
    content[at + 8] |= 1
    refused(bytes(content), r"is encrypted \('evil'\): not unpacked")


# Sizes


def bomb(size: int) -> bytes:
    return zip_bytes("evil.jpg", content=bytes(size), method=zipfile.ZIP_DEFLATED)


def test_bombs_are_refused_by_their_ratio(refused) -> None:
    content = bomb(24 * MEBI)
    assert len(content) < MEBI / 10
    refused(content, r"holds more than 1\d\.\d MiB, the limit for .*, up to 'evil\.jpg': not unpacked")
    for mode in ("w:gz", "w:bz2", "w:xz"):
        refused(tar_bytes(file("evil.jpg", bytes(24 * MEBI)), mode=mode), r"holds more than .*'evil\.jpg'")


def test_an_ordinary_ratio_is_unpacked(tmp_path) -> None:
    (tmp_path / "x.zip").write_bytes(bomb(16 * MEBI))
    (written,) = unpack(tmp_path / "x.zip", tmp_path / "out")
    assert written.stat().st_size == 16 * MEBI


@pytest.mark.parametrize("make", [lambda *names: tar_bytes(*map(file, names)), zip_bytes], ids=["tar", "zip"])
def test_limits_in_all_by_count_and_per_file(refused, tmp_path, make) -> None:
    content = make("good", "a", "b/c")  # 5 bytes each
    refused(content, "holds more than 0.0 MiB, .*, up to 'b/c': not unpacked", Limits(size=14))
    refused(content, "holds more than 2 files", Limits(files=2))
    refused(content, "holds 'good' with 5 bytes; the limit is 4", Limits(largest=4))
    assert len(unpack(tmp_path / "x", tmp_path / "out", Limits(size=15, files=3, largest=5))) == 3


def test_a_zip_whose_sizes_lie(refused) -> None:
    whole = zip_bytes("good", content=bytes(1000), method=zipfile.ZIP_DEFLATED)
    at = whole.rindex(b"PK\1\2") + 24  # size when unpacked, in the directory
    for claimed in (10, 2000, 2**32 - 2):
        content = whole[:at] + struct.pack("<I", claimed) + whole[at + 4 :]
        refused(content, r"announces 'good' with 2,000 bytes and holds 1,000|is damaged|holds more than")


def test_overlapping_entries(refused) -> None:
    """Two names for one content, as in bombs that need no nesting."""
    content = bytearray(zip_bytes("one", "two"))
    first, second = (i for i in range(len(content)) if content[i : i + 4] == b"PK\1\2")
    content[second + 42 : second + 46] = content[first + 42 : first + 46]  # offset of its content
    refused(bytes(content), "holds 'one', which overlaps the next entry: not unpacked")


def test_a_header_that_claims_a_gibibyte_is_not_read(refused) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 2**30
    refused(info.tobuf() + bytes(4096), "holds a header of 1,073,741,824 bytes")


def test_endless_zeros_after_the_end_are_not_read(refused) -> None:
    content = gzip.compress(tar_bytes(file("good")) + bytes(50 * MEBI))
    started = time.monotonic()
    refused(content, r"holds more than \d\d\.\d MiB: not unpacked")
    assert time.monotonic() - started < 5


# Disks


def test_free_space_is_checked_before_anything_is_written(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    (tmp_path / "x.zip").write_bytes(zip_bytes("a", content=bytes(5000)))
    monkeypatch.setattr("builtins.open", lambda *args: pytest.fail("written"))
    with pytest.raises(DiskFullError, match=r"out/\S+: unpacking x\.zip needs 0\.0 MiB, 0\.0 MiB are free") as caught:
        unpack(tmp_path / "x.zip", tmp_path / "out")
    assert caught.value.errno in DISK_FULL
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_while_unpacking_leaves_nothing(tmp_path, monkeypatch) -> None:
    def full(source, target, length):
        target.write(b"some")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfileobj", full)
    (tmp_path / "x.zip").write_bytes(zip_bytes("a"))
    with pytest.raises(OSError, match="No space left on device"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


# Anything at all

NAMES = st.one_of(
    st.text(max_size=12),
    st.lists(st.sampled_from(["a", "b", "..", ".", "", "C:", "x" * 200]), max_size=6).map("/".join),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES, max_size=5), as_zip=st.booleans())
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_whatever_the_names_nothing_is_written_outside(tmp_path, names, as_zip) -> None:
    try:
        content = zip_bytes(*names) if as_zip else tar_bytes(*map(file, names))
    except (UnicodeError, ValueError):
        return  # not a name for an archive
    check_any(tmp_path, content)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    whole=st.sampled_from(
        [zip_bytes("a/b", "c"), tar_bytes(file("a/b"), file("c")), tar_bytes(file("a/b"), file("c"), mode="w:gz")]
    ),
    start=st.integers(0, 2000),
    length=st.integers(0, 40),
    replacement=st.binary(max_size=40),
)
def test_whatever_the_damage_it_is_one_error(tmp_path, whole, start, length, replacement) -> None:
    start %= len(whole)
    check_any(tmp_path, whole[:start] + replacement + whole[start + length :])


def check_any(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    try:
        written = unpack(tmp_path / "x", tmp_path / "out", Limits(size=MEBI, files=100))
    except ArchiveError as error:
        assert str(tmp_path / "x") in str(error)
    else:
        assert all(path.is_file() and path.resolve().is_relative_to(tmp_path / "out") for path in written)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "x"}
    assert not list((tmp_path / "out").glob(".unpack-*"))
    for path in (tmp_path / "out").iterdir():
        path.unlink() if path.is_file() else shutil.rmtree(path)
