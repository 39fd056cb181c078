"""Copies of the datasets as mirrors have them: found, or named as what they are with commands that work."""

import json
import re
import subprocess

import pytest

from datasets.tool.build import registered
from datasets.tool.check import check
from tests.datasets import miniatures
from tests.datasets.layouts import build, pictures
from tests.paths import ROOT

SHUFFLED = {
    "EuroSAT": (miniatures.eurosat, "eurosat/2750"),
    "DescribableTextures": (miniatures.dtd, "dtd/images"),
    "Food101": (miniatures.food101, "food-101/images"),
    "Caltech101": (miniatures.caltech101, "caltech-101/101_ObjectCategories"),
}


def move(root, old, new):
    (root / "kept").parent.mkdir(exist_ok=True)
    (root / old).rename(root / "kept")
    (root / new).parent.mkdir(parents=True, exist_ok=True)
    (root / "kept").rename(root / new)


@pytest.mark.parametrize("name", SHUFFLED)
@pytest.mark.parametrize("place", ["", "{0}", "{1}/{1}", "Some copy/{0}"])
def test_class_folders_are_found_where_mirrors_have_them(tmp_path, name, place):
    make, images = SHUFFLED[name]
    make(tmp_path / "one")
    make(tmp_path / "two")
    folder, _, inner = images.partition("/")
    if place:
        move(tmp_path / "two", images, f"{folder}/{place.format(name, inner)}")
    else:
        move(tmp_path / "two", images, "moved")
        (tmp_path / "two" / folder).rmdir()
        move(tmp_path / "two", "moved", folder)
    first, second = (build(name, tmp_path / side) for side in ("one", "two"))
    files = [[item.impath.rpartition("/")[2] for item in dataset.train_x] for dataset in (first, second)]
    assert files[0] == files[1] and first.classnames == second.classnames


def test_eurosat_as_kaggle_has_it_with_the_published_split(tmp_path, monkeypatch):
    parts = {"train": [], "val": [], "test": []}
    for label, name in enumerate(miniatures.EUROSAT_FOLDERS):
        pictures(tmp_path / "EuroSAT" / "EuroSAT" / name, [f"{name}_{i}.jpg" for i in (1, 2)])
        for i, part in ((1, "train"), (2, "test")):
            parts[part].append([f"{name}/{name}_{i}.jpg", label, name])
    (tmp_path / "EuroSAT" / "split_zhou_EuroSAT.json").write_text(json.dumps(parts))
    dataset = build("EuroSAT", tmp_path)
    assert (len(dataset.train_x), len(dataset.test), dataset.on_published_split) == (10, 10, True)


@pytest.mark.parametrize("folder", ["Dtd", "DTD", "describable-textures", "Describable Textures"])
def test_the_datasets_folder_in_other_spellings(tmp_path, folder):
    miniatures.dtd(tmp_path)
    (tmp_path / "dtd").rename(tmp_path / folder)
    assert build("DescribableTextures", tmp_path).num_classes == 3


def test_a_root_that_is_the_dataset_itself_is_named(tmp_path):
    miniatures.oxford_pets(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=f"seems to be the dataset itself: use --root {re.escape(str(tmp_path))}\n"
    ):
        build("OxfordPets", tmp_path / "oxford_pets")


SORTED = [
    ("SUN397", "sun397", ("abbey", "airport_terminal"), "sun397"),
    ("DescribableTextures", "dtd", ("banded", "braided"), "dtd"),
    ("Food101", "food-101", ("apple_pie", "waffles"), "food-101"),
    ("UCF101", "ucf101", ("Archery", "Basketball"), "ucf101"),
]


@pytest.mark.parametrize(("name", "folder", "classes", "own"), SORTED)
@pytest.mark.parametrize("parts", [("train", "test"), ("train", "val", "test")])
def test_a_copy_sorted_into_train_and_test_is_said(tmp_path, name, folder, classes, own, parts):
    for part in parts:
        for classname in classes:
            pictures(tmp_path / folder / part / classname, [f"{part}_{classname}.jpg"])
    with pytest.raises(ValueError, match=f"{name}: .* is a copy with class folders in .*train/") as error:
        build(name, tmp_path)
    message = str(error.value)
    assert f"python -m datasets prepare {name} --root {tmp_path} downloads it" in message
    root = re.search(r"image_folder\.yaml --root (\S+)", message)[1]
    assert build("ImageFolder", root).classnames == list(classes)  # the advice works
    sources = [source for problem in check(name, tmp_path).problems for source in problem.sources]
    assert [source.gives for source in sources] == [f"split_zhou_{name}.json"]  # and nothing else is asked for
    entries = {part: [[f"{c}/{part}_{c}.jpg", i, c] for i, c in enumerate(classes)] for part in parts}
    (tmp_path / folder / f"split_zhou_{name}.json").write_text(json.dumps(entries))
    assert len(build(name, tmp_path).test) == 2


def test_pets_in_class_folders_are_found_by_name(tmp_path):
    folder = tmp_path / "oxford_pets"
    for part in ("train", "test"):
        pictures(folder / part / "Abyssinian", [f"Abyssinian_{part}.jpg"])
    entries = {part: [[f"Abyssinian_{part}.jpg", 0, "abyssinian"]] for part in ("train", "test")}
    (folder / "split_zhou_OxfordPets.json").write_text(json.dumps(entries))
    assert build("OxfordPets", tmp_path).test[0].impath.endswith("test/Abyssinian/Abyssinian_test.jpg")


# ImageNet


@pytest.mark.parametrize("place", ["ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", ""])
@pytest.mark.parametrize("folder", ["imagenet", "imagenet-object-localization-challenge"])
def test_imagenet_as_kaggle_has_it(tmp_path, place, folder):
    miniatures.imagenet(tmp_path)
    if folder != "imagenet":
        (tmp_path / "imagenet").rename(tmp_path / folder)
    for part in ("train", "val"):
        move(tmp_path, f"{folder}/images/{part}", f"{folder}/{place}/{part}")
    (tmp_path / folder / "images").rmdir()
    assert len(build("ImageNet", tmp_path).train_x) == 9
    (tmp_path / folder / "classnames.txt").unlink()
    problems = check("ImageNet", tmp_path).problems
    assert [source.file for problem in problems for source in problem.sources] == ["classnames.txt"]
    assert "image-net.org" not in problems[0].what and "'<wnid> <class name>' per line" in problems[0].what


@pytest.mark.parametrize("place", ["images", "ILSVRC/Data/CLS-LOC"])
def test_a_flat_validation_folder_says_how_to_sort_it(tmp_path, place):
    miniatures.imagenet(tmp_path)
    folder = tmp_path / "imagenet"
    for path in sorted(folder.glob("images/val/*/*")):
        path.rename(folder / "images" / "val" / path.name)
    for empty in [path for path in (folder / "images" / "val").iterdir() if path.is_dir()]:
        empty.rmdir()
    if place != "images":
        move(folder, "images", place)
    with pytest.raises(ValueError, match=r"val contains 9 images but no class folders") as error:
        build("ImageNet", tmp_path)
    message = str(error.value)
    assert (f"move this folder to {folder}/images/val.unsorted" in message) == (place == "images")
    assert f"python -m datasets prepare ImageNet --root {tmp_path} --archive ILSVRC2012_devkit_t12.tar.gz" in message
    miniatures.class_folders(tmp_path / "sorted", list(miniatures.WNIDS), 2, ".JPEG")
    (folder / "images").mkdir(exist_ok=True)
    if place == "images":
        (folder / "images" / "val").rename(folder / "images" / "val.unsorted")
    (tmp_path / "sorted").rename(folder / "images" / "val")  # as the command does
    assert len(build("ImageNet", tmp_path).test) == 6


@pytest.mark.parametrize("full_list", [True, False])
def test_a_subset_of_imagenet_gets_the_commands_for_own_images(tmp_path, full_list):
    miniatures.imagenet(tmp_path)
    if full_list:
        names = {**miniatures.WNIDS, **{f"n{i:08d}": f"class {i}" for i in range(20, 40)}}
        miniatures.classnames(tmp_path / "imagenet", names)
    report = check("ImageNet", tmp_path)
    message = report.problems[0].what
    assert "image_folder.yaml --root" in message and f"DATA={tmp_path}/imagenet/images" in message
    command = re.search(r"its class names: (.*)", message)[1]
    subprocess.run(command, shell=True, check=True, cwd=ROOT)
    root = re.search(r"image_folder\.yaml --root (\S+)", message)[1]
    assert (ROOT / "configs/datasets/image_folder.yaml").exists()
    dataset = build("ImageFolder", root)
    assert (dataset.classnames, dataset.notes) == (list(miniatures.WNIDS.values()), [])


# What is asked for


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("OxfordPets", miniatures.oxford_pets),
        ("StanfordCars", miniatures.stanford_cars),
        ("OxfordFlowers", miniatures.oxford_flowers),
        ("SUN397", miniatures.sun397),
    ],
)
def test_annotations_are_not_asked_for_beside_the_split(tmp_path, name, make, monkeypatch):
    """Without images, and with the split in place, only archives of images are asked for."""
    folder = tmp_path / str(registered()[name].dataset_dir)
    folder.mkdir()
    entries = [[f"{i}.jpg", 0, "a"] for i in range(2)]
    (folder / f"split_zhou_{name}.json").write_text(json.dumps({"train": entries[:1], "test": entries[1:]}))
    wanted = {source.file for problem in check(name, tmp_path).problems for source in problem.sources}
    assert wanted and all(re.search(r"images|cars_t|102flowers|SUN397", file) for file in wanted)
    assert not any(file.endswith((".mat", ".txt")) for file in wanted)


def test_the_devkit_is_for_sorting_only(tmp_path):
    miniatures.imagenet(tmp_path)
    (tmp_path / "imagenet" / "classnames.txt").unlink()
    sources = [source.file for problem in check("ImageNet", tmp_path).problems for source in problem.sources]
    assert sources == ["classnames.txt"]
