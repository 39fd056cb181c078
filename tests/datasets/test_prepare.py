"""`prepare` against a local server that drops, lies, sends what it should not, and then the good file."""

import errno
import hashlib
import io
import json
import os
import shutil
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import datasets.sources
import datasets.tool.prepare
from dassl.data.archives import ArchiveError
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import download
from datasets.__main__ import main
from datasets.sources import HUB_COPY
from datasets.tool.prepare import PrepareError, prepare
from tests.datasets import miniatures
from tests.datasets.layouts import build
from tests.datasets.source_server import plain_tar, tar, use_sources

DTD = DATASET_REGISTRY.get("DescribableTextures")
SPLIT = "split_zhou_DescribableTextures.json"
SIZES = (6, 3, 3)


def dtd_split() -> bytes:
    """Two images per class for training, one for validation and for testing."""
    names = ["banded", "blotchy", "braided"]
    numbers = {"train": (1, 2), "val": (3,), "test": (4,)}
    entries = {
        part: [[f"{name}/{name}_{i:04d}.jpg", label, name] for label, name in enumerate(names) for i in wanted]
        for part, wanted in numbers.items()
    }
    return json.dumps(entries).encode()


@pytest.fixture(autouse=True)
def textures(server, monkeypatch, tmp_path):
    """A miniature of Describable Textures on the server, which `prepare` finds there and nowhere else."""
    miniatures.dtd(tmp_path / "original")
    server.files["/dtd-r1.0.1.tar.gz"] = tar(tmp_path / "original" / "dtd", "dtd")
    server.files[f"/{SPLIT}"] = dtd_split()
    use_sources(monkeypatch, DTD, server)
    monkeypatch.setattr(DTD, "hub_copy", "")
    monkeypatch.setattr(DTD, "expected", SIZES)
    monkeypatch.setattr(DTD, "expected_classes", 3)


def assert_ready(root: Path) -> None:
    dataset = build("DescribableTextures", root)
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == SIZES
    assert sorted(path.name for path in (root / "dtd").iterdir()) == ["images", SPLIT]


def prepare_dtd(tmp_path: Path, **options):
    return prepare("DescribableTextures", tmp_path / "data", **options)


def test_everything_arrives_and_a_second_call_asks_for_nothing(server, tmp_path):
    assert prepare_dtd(tmp_path).good
    assert_ready(tmp_path / "data")
    asked = len(server.gets)
    assert prepare_dtd(tmp_path).good
    assert len(server.gets) == asked


def test_a_dropped_connection_is_continued(server, tmp_path):
    server.drop_after = [1000]
    assert prepare_dtd(tmp_path).good
    assert_ready(tmp_path / "data")
    assert [asked for path, asked in server.gets if path.startswith("/dtd")] == [None, "bytes=1000-"]


def test_what_a_broken_call_received_is_continued_by_the_next(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "RETRY_DELAYS", ())
    server.drop_after = [1000]
    with pytest.raises(PrepareError, match=r"the connection closed after 1,000 of [0-9,]+ bytes"):
        prepare_dtd(tmp_path)
    assert sorted(path.name for path in (tmp_path / "data" / "dtd").iterdir()) == [".prepare", SPLIT]
    assert prepare_dtd(tmp_path).good
    assert_ready(tmp_path / "data")
    assert server.gets[-1] == ("/dtd-r1.0.1.tar.gz", "bytes=1000-")


def climbing() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("dtd/images/../../../../evil.jpg")
        archive.addfile(info, io.BytesIO(b""))
    return buffer.getvalue()


def other_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "not textures")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("bad", "checked", "message"),
    [
        (lambda good: good[:-1] + b"?", True, r"has md5 \w+, expected \w+"),
        (lambda good: good[: len(good) // 2], False, "is damaged or not an archive"),
        (lambda good: climbing(), False, r"outside the folder it is unpacked into: not unpacked"),
        (lambda good: b"<html>quota exceeded</html>", False, "is damaged or not an archive"),
        (lambda good: other_archive(), False, "contains no folder dtd: it is another archive"),
    ],
    ids=["checksum", "truncated", "climbing", "page", "other"],
)
def test_a_bad_archive_is_named_leaves_nothing_and_the_good_one_then_works(server, tmp_path, bad, checked, message):
    good = server.files["/dtd-r1.0.1.tar.gz"]
    if not checked:
        DTD.sources = (replace(DTD.sources[0], checksum=""), *DTD.sources[1:])
    server.files["/dtd-r1.0.1.tar.gz"] = bad(good)
    with pytest.raises(PrepareError, match=message) as error:
        prepare_dtd(tmp_path)
    assert "run the same command again to continue" in str(error.value)
    assert [path.name for path in (tmp_path / "data" / "dtd").iterdir()] == [SPLIT]
    assert not list(tmp_path.rglob("evil*"))
    server.files["/dtd-r1.0.1.tar.gz"] = good
    assert prepare_dtd(tmp_path).good
    assert_ready(tmp_path / "data")


def test_an_interruption_while_unpacking_leaves_no_half_folder(server, tmp_path, monkeypatch):
    real = datasets.tool.prepare.unpack

    def interrupted(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets.tool.prepare, "unpack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_dtd(tmp_path)
    assert not (tmp_path / "data" / "dtd" / "images").exists()
    monkeypatch.setattr(datasets.tool.prepare, "unpack", real)
    asked = len(server.gets)
    assert prepare_dtd(tmp_path).good  # with the archive that came before
    assert_ready(tmp_path / "data")
    assert [path for path, _ in server.gets[asked:]] == [f"/{SPLIT}"]


def test_another_split_is_refused(server, tmp_path):
    server.files[f"/{SPLIT}"] = json.dumps({"train": [], "val": [], "test": []}).encode()
    with pytest.raises(PrepareError, match=r"it is another split: \(0, 0, 0\) training, validation and test images"):
        prepare_dtd(tmp_path)
    assert [path.name for path in (tmp_path / "data" / "dtd").iterdir()] == ["images"]


def test_the_second_address_is_tried(server, tmp_path):
    first = replace(DTD.sources[0], urls=(f"{server.address}/gone.tar.gz", *DTD.sources[0].urls))
    DTD.sources = (first, *DTD.sources[1:])
    assert prepare_dtd(tmp_path).good
    assert_ready(tmp_path / "data")


def test_images_that_are_there_are_kept_and_only_the_split_is_fetched(server, tmp_path):
    shutil.copytree(tmp_path / "original", tmp_path / "data")
    assert prepare_dtd(tmp_path).good
    assert [path for path, _ in server.gets] == [f"/{SPLIT}"]


def test_two_at_once_fetch_once(server, tmp_path):
    server.delay = 0.1
    threads = [threading.Thread(target=prepare_dtd, args=(tmp_path,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_ready(tmp_path / "data")
    assert len(server.gets) == 2


def test_missing_images_are_brought_and_those_that_are_there_stay(server, tmp_path):
    assert prepare_dtd(tmp_path).good
    images = tmp_path / "data" / "dtd" / "images"
    (images / "banded" / "banded_0001.jpg").unlink()
    (images / "banded" / "banded_0002.jpg").write_bytes(b"mine")
    assert prepare_dtd(tmp_path).good
    assert (images / "banded" / "banded_0001.jpg").exists()
    assert (images / "banded" / "banded_0002.jpg").read_bytes() == b"mine"
    shutil.rmtree(images / "braided")
    archive = tmp_path / "dtd-r1.0.1.tar.gz"
    archive.write_bytes(server.files.pop("/dtd-r1.0.1.tar.gz"))
    assert prepare_dtd(tmp_path, archives=[archive]).good


def test_the_right_folder_with_other_content_is_refused_before_anything_is_moved(server, tmp_path):
    DTD.sources = (replace(DTD.sources[0], checksum=""), *DTD.sources[1:])
    good = server.files["/dtd-r1.0.1.tar.gz"]
    server.files["/dtd-r1.0.1.tar.gz"] = tar(tmp_path / "original" / "dtd" / "images", "dtd/foo")
    with pytest.raises(PrepareError, match="does not contain images: it is another archive"):
        prepare_dtd(tmp_path)
    assert [path.name for path in (tmp_path / "data" / "dtd").iterdir()] == [SPLIT]
    (tmp_path / "dtd.tar.gz").write_bytes(tar(tmp_path / "original" / "dtd" / "images", "cats"))
    with pytest.raises(ValueError, match=r"dtd\.tar\.gz contains none of images, .*it is not the folder of"):
        prepare_dtd(tmp_path, archives=[tmp_path / "dtd.tar.gz"])
    assert [path.name for path in (tmp_path / "data" / "dtd").iterdir()] == [SPLIT]
    server.files["/dtd-r1.0.1.tar.gz"] = good
    assert prepare_dtd(tmp_path).good


def test_the_problem_is_reported_with_the_failed_downloads(server, tmp_path):
    assert prepare_dtd(tmp_path).good
    (tmp_path / "data" / "dtd" / "images" / "banded" / "banded_0001.jpg").unlink()
    del server.files["/dtd-r1.0.1.tar.gz"]
    with pytest.raises(PrepareError, match=r"(?s)1 of 12 images in the split do not exist.*404"):
        prepare_dtd(tmp_path)


# The hub's copy


def offer_copy(server, monkeypatch, content: bytes, name: str = "data/DTD.tar.gz", sha256: str = "") -> None:
    """Let the server speak for the hub, with one archive in the data set."""
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setattr(DTD, "hub_copy", HUB_COPY)
    sha256 = sha256 or hashlib.sha256(content).hexdigest()
    entries = [
        {"type": "directory", "path": "data", "oid": "1" * 40, "size": 0},
        {
            "type": "file",
            "path": name,
            "oid": "2" * 40,
            "size": len(content),
            "lfs": {"oid": sha256, "size": len(content), "pointerSize": 134},
        },
    ]
    server.files[f"/api/datasets/{HUB_COPY}/tree/main"] = json.dumps(entries).encode()
    server.files[f"/datasets/{HUB_COPY}/resolve/main/{name}"] = content


def whole_copy(tmp_path: Path, inside: str) -> bytes:
    folder = tmp_path / "original" / "dtd"
    (folder / SPLIT).write_bytes(dtd_split())
    return tar(folder, inside)


@pytest.mark.parametrize("inside", ["dtd", "DTD", ""])
def test_the_hubs_copy_serves_where_the_addresses_are_dead(server, tmp_path, monkeypatch, inside):
    offer_copy(server, monkeypatch, whole_copy(tmp_path, inside))
    del server.files["/dtd-r1.0.1.tar.gz"], server.files[f"/{SPLIT}"]
    assert prepare_dtd(tmp_path).good
    assert_ready(tmp_path / "data")


def test_all_places_are_listed_where_the_hub_has_none_either(server, tmp_path, monkeypatch):
    offer_copy(server, monkeypatch, b"", name="food-101.zip")
    del server.files["/dtd-r1.0.1.tar.gz"]
    with pytest.raises(PrepareError) as error:
        prepare_dtd(tmp_path)
    message = str(error.value)
    assert "/dtd-r1.0.1.tar.gz: HTTP 404" in message
    assert f"Hugging Face hub {HUB_COPY} holds no archive named" in message
    assert "--archive FILE" in message


def test_a_damaged_hub_copy_is_removed(server, tmp_path, monkeypatch):
    offer_copy(server, monkeypatch, whole_copy(tmp_path, "dtd"), sha256="0" * 64)
    del server.files["/dtd-r1.0.1.tar.gz"]
    with pytest.raises(PrepareError, match="was damaged in the download and deleted"):
        prepare_dtd(tmp_path)
    assert not (tmp_path / "data" / "dtd" / "images").exists()


# Archives that harm, and full disks


def bomb(names: tuple[str, ...], size: int) -> bytes:
    """A zip with files of zeros in the right folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, bytes(size))
    return buffer.getvalue()


BOMBS = {
    "one file": lambda: bomb(("dtd/images/banded/banded_0001.jpg",), 40 * 2**20),
    "many files": lambda: bomb(tuple(f"dtd/images/banded/banded_{i:04d}.jpg" for i in range(10)), 4 * 2**20),
    "nested": lambda: plain_tar({f"dtd/{i}.zip": bomb(("x.jpg",), 12 * 2**20) for i in range(4)}),
    "count": lambda: plain_tar({f"dtd/images/banded/{i}.jpg": b"" for i in range(10_049)}),
}


@pytest.mark.parametrize(
    ("kind", "way"),
    [*((kind, "url") for kind in BOMBS), ("nested", "hub"), ("one file", "hub"), ("many files", "archive")],
)
def test_a_bomb_stops_before_it_is_unpacked_and_the_good_archive_then_works(server, tmp_path, monkeypatch, kind, way):
    DTD.sources = (replace(DTD.sources[0], checksum=""), *DTD.sources[1:])
    good, bad = server.files.pop("/dtd-r1.0.1.tar.gz"), BOMBS[kind]()
    archives = []
    if way == "url":
        server.files["/dtd-r1.0.1.tar.gz"] = bad
    elif way == "hub":
        offer_copy(server, monkeypatch, bad, name="data/DTD.zip")
    else:
        archives.append(tmp_path / "dtd-r1.0.1.tar.gz")
        archives[0].write_bytes(bad)
    most = largest_size_of(tmp_path / "data", monkeypatch)
    with pytest.raises((PrepareError, ArchiveError), match=r" holds (more than )?.*: not unpacked"):
        prepare_dtd(tmp_path, archives=archives)
    assert max(most) < 30 * 2**20
    assert [path.name for path in (tmp_path / "data" / "dtd").rglob("*")] in ([], [SPLIT])
    server.files["/dtd-r1.0.1.tar.gz"] = good
    assert prepare_dtd(tmp_path).good
    assert_ready(tmp_path / "data")


def largest_size_of(folder: Path, monkeypatch) -> list[int]:
    """The size of a folder before each time that unpacked files are removed from it, filled as that happens."""
    sizes, real = [0], shutil.rmtree

    def rmtree(path, *args, **kwargs):
        sizes.append(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()))
        real(path, *args, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    return sizes


@pytest.mark.parametrize("at", ["copyfileobj", "copyfile"])
def test_a_full_disk_is_one_message_and_the_next_call_continues(server, tmp_path, monkeypatch, capsys, at):
    real = getattr(shutil, at)

    def full(*args, **kwargs):
        real(*args, **kwargs)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, at, full)
    command = ["prepare", "dtd", "--root", str(tmp_path / "data")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert (
        error.startswith("error: DescribableTextures could not be prepared: /") and "No space left on device" in error
    )
    assert "needs up to 1.2 GiB while it is prepared" in error and "run the same command again to continue" in error
    left = {path.name for path in (tmp_path / "data" / "dtd").rglob("*")}
    assert not [name for name in left if name == "unpacked" or name.startswith(("placed-", ".unpack-"))]
    monkeypatch.setattr(shutil, at, real)
    assert main(command) == 0
    assert_ready(tmp_path / "data")
    assert [path for path, _ in server.gets].count("/dtd-r1.0.1.tar.gz") == 1


def test_too_little_space_is_found_before_anything_is_written(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5))
    with pytest.raises(PrepareError, match=r": downloading dtd-r1\.0\.1\.tar\.gz needs .*, 0\.0 MiB are free"):
        prepare_dtd(tmp_path)
    assert not (tmp_path / "data" / "dtd").exists()


def test_endless_data_stop_at_a_limit(server, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.sources, "EXTRA", 2**20)
    monkeypatch.setitem(datasets.sources.SIZES, "dtd-r1.0.1.tar.gz", 1)
    server.endless = True
    with pytest.raises(PrepareError, match=r"dtd-r1\.0\.1\.tar\.gz: the server sends .*; the limit is 4,048,576"):
        prepare_dtd(tmp_path)


# Files that the user has


def test_an_archive_of_the_user_is_taken_checked_and_kept(server, tmp_path):
    archive = tmp_path / "dtd-r1.0.1.tar.gz"
    archive.write_bytes(server.files.pop("/dtd-r1.0.1.tar.gz"))
    assert prepare_dtd(tmp_path, archives=[archive]).good
    assert archive.exists()
    shutil.rmtree(tmp_path / "data" / "dtd" / "images")
    archive.write_bytes(b"?")
    with pytest.raises(ValueError, match=r"dtd-r1\.0\.1\.tar\.gz \(1 bytes\) has md5 \w+, expected"):
        prepare_dtd(tmp_path, archives=[archive])


def test_an_archive_of_the_whole_folder_is_taken(server, tmp_path):
    archive = tmp_path / "DTD.tar.gz"
    archive.write_bytes(whole_copy(tmp_path, "dtd"))
    server.files.clear()
    assert prepare_dtd(tmp_path, archives=[archive]).good
    assert_ready(tmp_path / "data")


def test_archives_that_are_absent_or_of_another_dataset_are_errors(server, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--archive: .*x\.tar does not exist"):
        prepare_dtd(tmp_path, archives=[tmp_path / "x.tar"])
    (tmp_path / "SUN397.tar.gz").touch()
    with pytest.raises(ValueError, match=r"SUN397\.tar\.gz is not one of this dataset's files: dtd-r1\.0\.1\.tar\.gz"):
        prepare_dtd(tmp_path, archives=[tmp_path / "SUN397.tar.gz"])


@pytest.mark.parametrize("name", ["Emoji", "ImageFolder", "SplitFile"])
def test_data_without_sources_have_nothing_to_prepare(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} has nothing to prepare"):
        prepare(name, tmp_path)


def test_the_command_says_what_is_wrong_and_ends_with_2(server, tmp_path, capsys):
    server.files.clear()
    assert main(["prepare", "dtd", "--root", str(tmp_path / "data")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: DescribableTextures is incomplete.\n") and "Could not get:\n  - " in error
    assert not (tmp_path / "data" / "dtd").exists()  # not even an empty folder
