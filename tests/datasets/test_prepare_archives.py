"""`prepare` of datasets whose archives need sorting or hold archives, and the facts that the sources state."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from dassl.data.datasets import DATASET_REGISTRY
from datasets.__main__ import main
from datasets.tool.prepare import PrepareError, prepare
from tests.datasets import miniatures
from tests.datasets.source_server import plain_tar, tar, use_sources
from tests.file_server import FileServer
from tests.paths import PUBLISHED, needs_published


def imagenet_archives(tmp_path: Path) -> list[Path]:
    """Miniatures of the three archives: a tar of tars, a flat tar, and the development kit with MATLAB synsets."""
    miniatures.imagenet(tmp_path / "original")
    images = tmp_path / "original" / "imagenet" / "images"
    wnids = list(miniatures.WNIDS)
    kit = tmp_path / "kit"
    kit.mkdir()
    synsets = np.zeros((4, 1), dtype=[(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "num_children")])
    for i, wnid in enumerate([*wnids, "n00001740"]):  # the last one is no class: an inner node of WordNet
        synsets[i, 0] = (np.uint16(i + 1), wnid, "words", np.uint8(i == 3))
    savemat(kit / "meta.mat", {"synsets": synsets})
    order = [2, 0, 1, 1, 0, 2]  # classes of the validation images, whose names do not tell them
    val = {
        f"ILSVRC2012_val_{number:08d}.JPEG": (images / "val" / wnids[k] / f"{wnids[k]}_0001.JPEG").read_bytes()
        for number, k in enumerate(order, start=1)
    }
    train = {
        f"{wnid}.tar": plain_tar({path.name: path.read_bytes() for path in sorted((images / "train" / wnid).iterdir())})
        for wnid in wnids
    }
    kit_files = {
        "ILSVRC2012_devkit_t12/data/meta.mat": (kit / "meta.mat").read_bytes(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"".join(b"%d\n" % (k + 1) for k in order),
    }
    contents = {
        "ILSVRC2012_devkit_t12.tar.gz": kit_files,
        "ILSVRC2012_img_val.tar": val,
        "ILSVRC2012_img_train.tar": train,
    }
    for name, files in contents.items():
        (tmp_path / name).write_bytes(plain_tar(files))
    return [tmp_path / name for name in contents]


def use_miniature_imagenet(monkeypatch, server: FileServer, archives: list[Path]) -> None:
    imagenet = DATASET_REGISTRY.get("ImageNet")
    server.files.update({f"/{path.name}": path.read_bytes() for path in archives})
    names = "".join(f"{wnid} {name}\n" for wnid, name in miniatures.WNIDS.items())
    server.files["/classnames.txt"] = names.encode()
    use_sources(monkeypatch, imagenet, server)
    monkeypatch.setattr(imagenet, "expected", (9, 6, 6))
    monkeypatch.setattr(imagenet, "expected_classes", 3)


def test_imagenet_from_the_archives_of_a_login(server, tmp_path, monkeypatch):
    archives = imagenet_archives(tmp_path)
    use_miniature_imagenet(monkeypatch, server, archives)
    report = prepare("ImageNet", tmp_path / "data", archives)
    assert report.good and report.sizes == (9, 6, 6)
    val = tmp_path / "data" / "imagenet" / "images" / "val"
    numbers = {wnid: sorted(int(path.stem[-8:]) for path in (val / wnid).iterdir()) for wnid in miniatures.WNIDS}
    assert numbers == dict(zip(miniatures.WNIDS, ([2, 5], [3, 4], [1, 6]), strict=True))
    assert all(path.exists() for path in archives)
    assert [path for path, _ in server.gets] == ["/classnames.txt"]


def test_imagenet_without_archives_says_how_to_get_them(server, tmp_path, monkeypatch):
    archives = imagenet_archives(tmp_path)
    use_miniature_imagenet(monkeypatch, server, archives)
    with pytest.raises(PrepareError) as error:
        prepare("ImageNet", tmp_path / "data")
    for part in ("ILSVRC2012_img_train.tar must be downloaded manually", "Manually: log in at https://image-net.org"):
        assert part in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"pass ILSVRC2012_devkit_t12\.tar\.gz with --archive, too"):
        prepare("ImageNet", tmp_path / "data", [archives[1]])
    assert not (tmp_path / "data" / "imagenet" / "images").exists()


def test_caltech_comes_as_archives_in_an_archive(server, tmp_path, monkeypatch):
    caltech = DATASET_REGISTRY.get("Caltech101")
    miniatures.caltech101(tmp_path / "original")
    inner = tar(tmp_path / "original" / "caltech-101")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("caltech-101/101_ObjectCategories.tar.gz", inner)
        archive.writestr("__MACOSX/caltech-101/._x", b"")
    server.files["/caltech-101.zip"] = buffer.getvalue()
    classes = ["face", "leopard", "motorbike", "accordion", "airplane"]
    folders = ["Faces", "Leopards", "Motorbikes", "accordion", "airplanes"]
    entries = [[f"{folder}/{folder}_0001.jpg", k, classes[k]] for k, folder in enumerate(folders)]
    server.files["/split_zhou_Caltech101.json"] = json.dumps({"train": entries, "val": [], "test": entries}).encode()
    use_sources(monkeypatch, caltech, server)
    monkeypatch.setattr(caltech, "expected", (5, 0, 5))
    monkeypatch.setattr(caltech, "expected_classes", 5)
    assert prepare("Caltech101", tmp_path / "data").good
    assert (tmp_path / "data" / "caltech-101" / "101_ObjectCategories" / "Faces" / "Faces_0001.jpg").exists()


def test_the_command_takes_several_archives(server, tmp_path, monkeypatch, capsys):
    archives = imagenet_archives(tmp_path)
    use_miniature_imagenet(monkeypatch, server, archives)
    assert main(["prepare", "imagenet", "--root", str(tmp_path / "data"), "--archive", *map(str, archives)]) == 0
    assert "9 / 6 / 6 training / validation / test images, 3 classes\n  good" in capsys.readouterr().out


def test_a_page_in_the_place_of_the_class_names_is_refused(server, tmp_path, monkeypatch):
    archives = imagenet_archives(tmp_path)
    use_miniature_imagenet(monkeypatch, server, archives)
    good = server.files["/classnames.txt"]
    server.files["/classnames.txt"] = b"<html>\n<body>quota</body>\n"
    with pytest.raises(PrepareError, match=r"classnames\.txt: .*expected a new '<folder> <class name>'"):
        prepare("ImageNet", tmp_path / "data", archives)
    server.files["/classnames.txt"] = good
    assert prepare("ImageNet", tmp_path / "data", archives).good


# The facts


@needs_published
def test_the_documented_addresses_and_drive_files_are_the_sources():
    """All but pages and the addresses that are known to be dead or to have moved."""
    documented = json.loads((PUBLISHED / "dataset_sources.json").read_text())
    urls = {url for name in DATASET_REGISTRY.registered_names() for url in all_urls(name)}
    moved = {"http://www.vision.caltech.edu/Image_Datasets/Caltech101/101_ObjectCategories.tar.gz"}
    archives = (".tgz", ".tar.gz", ".zip", ".mat")
    for entries in documented.values():
        for entry in entries:
            if "drive_id" in entry:
                assert any(entry["drive_id"] in url for url in urls), entry
            elif entry["url"].endswith(archives) and entry["url"] not in moved:
                assert entry["url"] in urls, entry


def test_the_size_of_every_source_is_known():
    """So that what is far larger is refused; the sizes are those of the published pages, rounded up."""
    for name in DATASET_REGISTRY.registered_names():
        for source in getattr(DATASET_REGISTRY.get(name), "sources", ()):
            assert source.size, f"{name}: {source.file}"


def all_urls(name: str) -> list[str]:
    return [url for source in getattr(DATASET_REGISTRY.get(name), "sources", ()) for url in source.urls]


def test_checksums_are_those_that_torchvision_holds():
    import torchvision.datasets as tv
    from torchvision.datasets.imagenet import ARCHIVE_META

    ours = {
        source.file: source.checksum.removeprefix("md5:")
        for name in DATASET_REGISTRY.registered_names()
        for source in getattr(DATASET_REGISTRY.get(name), "sources", ())
        if source.checksum
    }
    theirs = {
        "dtd-r1.0.1.tar.gz": tv.DTD._MD5,
        "food-101.tar.gz": tv.Food101._MD5,
        "SUN397.tar.gz": tv.SUN397._DATASET_MD5,
        **{url.rpartition("/")[2]: md5 for url, md5 in tv.OxfordIIITPet._RESOURCES},
        **{file: md5 for file, md5 in tv.Flowers102._file_dict.values() if file != "setid.mat"},
        **dict(ARCHIVE_META.values()),
    }
    assert {file: ours[file] for file in theirs} == theirs
    assert set(ours) - set(theirs) == {"caltech-101.zip", "EuroSAT.zip"}  # torchvision has them in its code only
