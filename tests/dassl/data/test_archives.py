"""Archives are unpacked inside the target folder only; errors name damaged ones."""

import io
import tarfile
import zipfile

import pytest

from dassl.data.archives import ArchiveError, is_archive, unpack


def make_tar(path, names, mode="w:gz", link=None, size=5):
    with tarfile.open(path, mode) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(b"hello"[:1] * size))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info)
    return path


def make_zip(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"hello")
    return path


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tgz", "w:gz"), ("a.tar.bz2", "w:bz2")])
def test_tars_are_unpacked(tmp_path, name, mode):
    written = unpack(make_tar(tmp_path / name, ["a/b.txt", "./c.txt"], mode), tmp_path / "out")
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in written) == ["a/b.txt", "c.txt"]
    assert (tmp_path / "out" / "c.txt").read_bytes() == b"hhhhh"


def test_zips_are_unpacked(tmp_path):
    unpack(make_zip(tmp_path / "a.zip", ["a/b.txt", "c.txt"]), tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b.txt").read_bytes() == b"hello"


@pytest.mark.parametrize("bad", ["../evil", "a/../../evil", "/abs/evil", "..", "C:\\evil", "a\\..\\..\\evil"])
@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_a_path_that_climbs_out_stops_everything(tmp_path, make, bad):
    archive = make(tmp_path / ("x.tgz" if make is make_tar else "x.zip"), ["good", bad])
    with pytest.raises(ArchiveError, match="outside the folder it is unpacked into: not unpacked"):
        unpack(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_links_are_refused(tmp_path):
    with pytest.raises(ArchiveError, match="holds a link or device, 'link'"):
        unpack(make_tar(tmp_path / "x.tar", ["good"], "w", link="/etc/passwd"), tmp_path / "out")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_truncated_tar_is_named(tmp_path, mode):
    archive = make_tar(tmp_path / "x.tar", ["a", "b"], mode, size=50_000)
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(ArchiveError, match=r"x\.tar .* is damaged or not an archive .*download it again"):
        unpack(archive, tmp_path / "out")


def test_a_truncated_zip_and_a_web_page_are_named(tmp_path):
    archive = make_zip(tmp_path / "x.zip", ["a", "b"])
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(ArchiveError, match="is damaged or not an archive"):
        unpack(archive, tmp_path / "out")
    (tmp_path / "page.tgz").write_text("<html>quota exceeded</html>")
    with pytest.raises(ArchiveError, match="is damaged or not an archive"):
        unpack(tmp_path / "page.tgz", tmp_path / "out")


def test_an_empty_archive_is_an_error(tmp_path):
    with pytest.raises(ArchiveError, match="holds no files"):
        unpack(make_zip(tmp_path / "x.zip", []), tmp_path / "out")


def test_names_of_archives():
    assert [is_archive(n) for n in ("a.tar.gz", "B.TGZ", "a.zip", "a.mat", "a.txt")] == [True, True, True, False, False]


def test_a_flipped_byte_in_a_tar_gz_is_found_by_its_checksum(tmp_path):
    archive = make_tar(tmp_path / "x.tgz", ["a"], "w:gz", size=100)
    content = bytearray(archive.read_bytes())
    content[-8] ^= 1  # the first byte of the stream's CRC-32
    archive.write_bytes(content)
    with pytest.raises(ArchiveError, match="is damaged or not an archive"):
        unpack(archive, tmp_path / "out")


def test_a_damaged_tar_xz_is_named(tmp_path):
    archive = make_tar(tmp_path / "x.tar.xz", ["a"], "w:xz", size=50_000)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    archive.write_bytes(content)
    with pytest.raises(ArchiveError, match="is damaged or not an archive"):
        unpack(archive, tmp_path / "out")


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path):
    inner = make_zip(tmp_path / "inner.zip", ["a"])
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(inner, "inner.zip")
    assert [path.name for path in unpack(tmp_path / "x.tar", tmp_path / "out")] == ["inner.zip"]
