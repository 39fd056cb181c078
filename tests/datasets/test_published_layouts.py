"""Every published layout, in miniature: items, labels, class names, sizes, base and new halves."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.io import savemat

from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from datasets.imagenet_variants import ImageNetVariant
from datasets.splits import read_split
from datasets.stanford_cars import year_first
from tests.datasets import miniatures
from tests.datasets.layouts import build, dataset_cfg, pictures, relative
from tests.paths import PUBLISHED, ROOT, needs_published

EUROSAT_NAMES = [
    *("Annual Crop Land", "Forest", "Herbaceous Vegetation Land", "Highway or Road", "Industrial Buildings"),
    *("Pasture Land", "Permanent Crop Land", "Residential Buildings", "River", "Sea or Lake"),
]
CAR_NAMES = ["2000 AM General Hummer SUV", "2012 Acura RL Sedan", "2012 BMW 3 Series Sedan"]
PUBLISHED_NAMES = [
    *("ImageNet", "Caltech101", "OxfordPets", "StanfordCars", "OxfordFlowers", "Food101", "FGVCAircraft", "SUN397"),
    *("DescribableTextures", "EuroSAT", "UCF101", "ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"),
]

# Datasets that are split with a fixed seed: name, builder, folder of the images, class names, files of a class.
SHUFFLED = [
    ("Caltech101", miniatures.caltech101, "caltech-101", ["face", "leopard", "motorbike", "accordion", "airplane"]),
    ("DescribableTextures", miniatures.dtd, "dtd", ["banded", "blotchy", "braided"]),
    ("EuroSAT", miniatures.eurosat, "eurosat", EUROSAT_NAMES),
    ("Food101", miniatures.food101, "food-101", ["apple_pie", "baby_back_ribs", "waffles"]),
    (
        *("OxfordFlowers", miniatures.oxford_flowers, "oxford_flowers"),
        ["pink primrose", "hard-leaved pocket orchid", "canterbury bells"],
    ),
]
# Datasets whose annotations separate trainval from test: name, builder, folder, class names.
ANNOTATED = [
    ("OxfordPets", miniatures.oxford_pets, "oxford_pets", ["abyssinian", "american_bulldog", "maine_coon"]),
    ("StanfordCars", miniatures.stanford_cars, "stanford_cars", CAR_NAMES),
    ("SUN397", miniatures.sun397, "sun397", ["abbey", "airplane_cabin", "indoor church"]),
    ("UCF101", miniatures.ucf101, "ucf101", ["Apply_Eye_Makeup", "Archery", "Yo_Yo"]),
]


def test_the_fifteen_published_names_are_registered():
    assert set(PUBLISHED_NAMES) <= set(DATASET_REGISTRY.registered_names())


@needs_published
def test_templates_are_the_published_ones():
    templates = json.loads((PUBLISHED / "templates.json").read_text())["per_dataset"]
    assert {name: DATASET_REGISTRY.get(name).template for name in PUBLISHED_NAMES} == templates


def check_halves(name, root, classnames):
    """Base: the first half rounded up, new: the rest, labels from 0 in both, in every list."""
    half = (len(classnames) + 1) // 2
    for classes, names in (("base", classnames[:half]), ("new", classnames[half:])):
        dataset = build(name, root, classes=classes)
        assert dataset.classnames == names
        for items in (dataset.train_x, dataset.test):
            assert {(item.label, item.classname) for item in items} == set(enumerate(names))


@pytest.mark.parametrize(("name", "make", "folder", "classnames"), SHUFFLED, ids=[row[0] for row in SHUFFLED])
def test_shuffled_datasets(tmp_path, name, make, folder, classnames):
    make(tmp_path)
    dataset = build(name, tmp_path)
    assert dataset.classnames == classnames
    parts = [dataset.train_x, dataset.val, dataset.test]
    for items, count in zip(parts, (5, 2, 3), strict=True):  # of ten images per class: 50 %, 20 %, the rest
        assert Counter(item.label for item in items) == dict.fromkeys(range(len(classnames)), count)
    paths = [path for items in parts for path, _, _ in relative(items, tmp_path / folder)]
    assert len(set(paths)) == 10 * len(classnames)
    check_halves(name, tmp_path, classnames)

    again = build(name, tmp_path, seed=7)  # the split does not depend on the seed, the shots do
    assert relative(again.train_x, tmp_path) == relative(dataset.train_x, tmp_path)
    drawn = build(name, tmp_path, num_shots=2)
    assert Counter(item.label for item in drawn.train_x) == dict.fromkeys(range(len(classnames)), 2)
    assert len(drawn.test) == len(dataset.test)


def test_shuffled_labels_belong_to_the_folders(tmp_path):
    miniatures.caltech101(tmp_path)
    dataset = build("Caltech101", tmp_path)
    folders = ["Faces", "Leopards", "Motorbikes", "accordion", "airplanes"]
    for items in (dataset.train_x, dataset.val, dataset.test):
        assert all(Path(item.impath).parent.name == folders[item.label] for item in items)


@pytest.mark.parametrize(("name", "make", "folder", "classnames"), ANNOTATED, ids=[row[0] for row in ANNOTATED])
def test_annotated_datasets(tmp_path, name, make, folder, classnames):
    expected = make(tmp_path)
    dataset = build(name, tmp_path)
    assert dataset.classnames == classnames
    assert relative(dataset.test, tmp_path / folder) == expected["test"]
    trainval = relative([*dataset.train_x, *dataset.val], tmp_path / folder)
    assert sorted(trainval) == sorted(expected["trainval"])
    assert Counter(item.label for item in dataset.val) == {0: 2, 1: 2, 2: 2}  # a fifth of ten
    check_halves(name, tmp_path, classnames)
    drawn = build(name, tmp_path, num_shots=4)
    assert (len(drawn.train_x), len(drawn.val)) == (12, 6)


def test_aircraft_has_its_own_split(tmp_path):
    expected = miniatures.fgvc_aircraft(tmp_path)
    dataset = build("FGVCAircraft", tmp_path)
    for part, items in (("train", dataset.train_x), ("val", dataset.val), ("test", dataset.test)):
        assert relative(items, tmp_path / "fgvc_aircraft") == expected[part]
    check_halves("FGVCAircraft", tmp_path, ["707-320", "727-200", "Boeing 717"])


def test_aircraft_in_the_archives_own_folder(tmp_path):
    miniatures.fgvc_aircraft(tmp_path)
    nested = tmp_path / "moved" / "fgvc_aircraft" / "fgvc-aircraft-2013b" / "data"
    nested.parent.mkdir(parents=True)
    (tmp_path / "fgvc_aircraft").rename(nested)
    assert len(build("FGVCAircraft", tmp_path / "moved").test) == 6


VARIANTS = [
    ("ImageNetSketch", "imagenet-sketch", "images", list(miniatures.WNIDS)),
    ("ImageNetA", "imagenet-adversarial", "imagenet-a", ["n01440764", "n01484850"]),
    ("ImageNetR", "imagenet-rendition", "imagenet-r", ["n01443537", "n01484850"]),
]


@pytest.mark.parametrize(("name", "folder", "images", "wnids"), VARIANTS, ids=[row[0] for row in VARIANTS])
def test_imagenet_variants(tmp_path, name, folder, images, wnids):
    expected = miniatures.imagenet_variant(tmp_path, f"{folder}/{images}", wnids)
    dataset = build(name, tmp_path, num_shots=1)  # a test set: shots are for the set that is trained on
    assert relative(dataset.test, tmp_path / folder) == expected["test"]
    assert dataset.classnames == [miniatures.WNIDS[wnid] for wnid in wnids]
    check_halves(name, tmp_path, dataset.classnames)


def test_imagenetv2_folders_are_numbers_in_the_order_of_the_names(tmp_path):
    expected = miniatures.imagenetv2(tmp_path)
    dataset = build("ImageNetV2", tmp_path)
    assert relative(dataset.test, tmp_path / "imagenetv2") == expected["test"]
    check_halves("ImageNetV2", tmp_path, [f"class {i}" for i in range(12)])


def test_a_variants_own_class_names_come_first(tmp_path):
    miniatures.imagenet_variant(tmp_path, "imagenet-rendition/imagenet-r", ["n01443537"])
    miniatures.classnames(tmp_path / "imagenet-rendition", {"n01443537": "golden fish"})
    assert build("ImageNetR", tmp_path).classnames == ["golden fish"]


def test_a_sketch_without_a_class_and_names_of_another_dataset_are_errors(tmp_path):
    miniatures.imagenet_variant(tmp_path, "imagenet-sketch/images", list(miniatures.WNIDS)[:2])
    with pytest.raises(ValueError, match=r"1 of 3 class folders are missing in .*n01484850"):
        build("ImageNetSketch", tmp_path)
    miniatures.imagenet_variant(tmp_path, "imagenet-adversarial/imagenet-a", ["n01440764"])
    miniatures.classnames(tmp_path / "imagenet-adversarial", {"7": "seven"})
    with pytest.raises(ValueError, match="looks like the class-name file of another dataset"):
        build("ImageNetA", tmp_path)


def test_a_variant_without_any_class_names_says_where_they_may_lie(tmp_path):
    miniatures.imagenet_variant(tmp_path, "imagenet-sketch/images", list(miniatures.WNIDS))
    shutil.rmtree(tmp_path / "imagenet")
    with pytest.raises(FileNotFoundError, match=r"imagenet-sketch/classnames\.txt or .*/imagenet/classnames\.txt"):
        build("ImageNetSketch", tmp_path)


def test_experiments_knows_the_variants_of_imagenet():
    """experiments/ must not import datasets/ and lists the names of their configs."""
    runs = pytest.importorskip("experiments.runs")
    names = {}  # registered name: config name
    for path in (ROOT / "configs" / "datasets").glob("*.yaml"):
        names[yaml.safe_load(path.read_text(encoding="utf-8"))["DATASET"]["NAME"]] = path.stem
    variants = [name for name in PUBLISHED_NAMES if issubclass(DATASET_REGISTRY.get(name), ImageNetVariant)]
    assert len(variants) == 4
    assert sorted(names[name] for name in variants) == sorted(runs.IMAGENET_VARIANTS)


# The published split files


@needs_published
@pytest.mark.parametrize(
    ("name", "folder", "images"),
    [
        ("Caltech101", "caltech-101", "101_ObjectCategories"),
        ("DescribableTextures", "dtd", "images"),
        ("EuroSAT", "eurosat", "2750"),
        ("OxfordFlowers", "oxford_flowers", "jpg"),
        ("OxfordPets", "oxford_pets", "images"),
        ("StanfordCars", "stanford_cars", ""),
        ("UCF101", "ucf101", "UCF-101-midframes"),
    ],
)
def test_a_published_split_file_decides(tmp_path, name, folder, images, capsys):
    """Empty files stand for the images; labels, names and order are the file's."""
    source = read_split(PUBLISHED / f"split_zhou_{name}.json.gz", tmp_path / folder / images)
    for item in (item for items in source for item in items):
        Path(item.impath).parent.mkdir(parents=True, exist_ok=True)
        Path(item.impath).touch()
    entries = {part: relative(items, tmp_path / folder / images) for part, items in source._asdict().items()}
    (tmp_path / folder / f"split_zhou_{name}.json").write_text(json.dumps(entries))
    dataset = build(name, tmp_path)
    for part, items in (("train", dataset.train_x), ("val", dataset.val), ("test", dataset.test)):
        assert relative(items, tmp_path / folder / images) == entries[part]
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == dataset.expected
    assert dataset.num_classes == dataset.expected_classes
    assert capsys.readouterr().out == ""


def test_a_split_that_names_missing_files_is_an_error_that_counts_them(tmp_path):
    miniatures.dtd(tmp_path)
    entries = [[f"banded/banded_{i:04d}.jpg", 0, "banded"] for i in range(8, 15)]
    content = {"train": entries, "val": [], "test": entries[:2]}
    (tmp_path / "dtd" / "split_zhou_DescribableTextures.json").write_text(json.dumps(content))
    with pytest.raises(FileNotFoundError) as error:
        build("DescribableTextures", tmp_path)
    message = str(error.value)
    assert "DescribableTextures: 4 of 7 images in the split do not exist, the first: " in message
    assert "banded_0011.jpg" in message and "… (4 in total)" in message
    assert "python -m datasets prepare DescribableTextures" in message


def test_without_the_split_file_the_difference_is_said(tmp_path, capsys):
    miniatures.dtd(tmp_path)
    build("DescribableTextures", tmp_path)
    out = capsys.readouterr().out
    assert "split_zhou_DescribableTextures.json not found: the split is made from the original annotations" in out
    assert "published: 2,820 / 1,128 / 1,692" in out


@pytest.mark.parametrize("name", [name for name in PUBLISHED_NAMES if name != "ImageNet"])
def test_a_missing_dataset_says_what_where_and_how(tmp_path, name):
    with pytest.raises(FileNotFoundError) as error:
        build(name, tmp_path / "data")
    folder = DATASET_REGISTRY.get(name).dataset_dir
    message = str(error.value)
    assert f"looked for: {tmp_path}/data/{folder}" in message
    assert f"python -m datasets prepare {name} --root {tmp_path}/data" in message
    assert f"expected:   {folder}/" in message


# Layouts of mirrors


def test_cars_with_one_folder_too_many(tmp_path):
    miniatures.stanford_cars(tmp_path, nested=True)
    dataset = build("StanfordCars", tmp_path)
    assert all("cars_test/cars_test/" in item.impath for item in dataset.test)
    assert dataset.classnames == CAR_NAMES


def car_class_folders(root):
    for part, count in (("train", 5), ("test", 2)):
        for label, name in enumerate(miniatures.CARS):
            numbers = [f"{10 * label + i:05d}.jpg" for i in range(count)]
            pictures(root / "stanford_cars" / "car_data" / "car_data" / part / name, numbers)


def test_cars_in_class_folders(tmp_path):
    car_class_folders(tmp_path)
    dataset = build("StanfordCars", tmp_path)
    assert dataset.classnames == CAR_NAMES
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (12, 3, 6)
    assert all(year_first(Path(item.impath).parent.name) == item.classname for item in dataset.test)


def test_cars_in_class_folders_follow_the_published_split(tmp_path):
    """Train and test number their images alike: the folder decides."""
    car_class_folders(tmp_path)
    names = list(enumerate(CAR_NAMES))
    content = {
        "train": [[f"cars_train/{10 * label:05d}.jpg", label, name] for label, name in names],
        "val": [],
        "test": [[f"cars_test/{10 * label + 1:05d}.jpg", label, name] for label, name in names],
    }
    (tmp_path / "stanford_cars" / "split_zhou_StanfordCars.json").write_text(json.dumps(content))
    dataset = build("StanfordCars", tmp_path)
    for items, part in ((dataset.train_x, "train"), (dataset.test, "test")):
        for item in items:
            path = Path(item.impath)
            assert (path.parent.parent.name, year_first(path.parent.name)) == (part, item.classname)


def test_cars_in_one_folder_with_one_list(tmp_path):
    folder = tmp_path / "stanford_cars"
    rows = [
        {"relative_im_path": f"car_ims/{i:06d}.jpg", "class": 1 + i % 3, "test": int(i >= 15)} for i in range(1, 31)
    ]
    names = np.array([miniatures.CARS], dtype=object)
    folder.mkdir()
    savemat(folder / "cars_annos.mat", {"annotations": miniatures.struct_array(rows), "class_names": names})
    pictures(folder, [row["relative_im_path"] for row in rows])
    dataset = build("StanfordCars", tmp_path)
    assert len(dataset.test) == 16
    expected = [(row["relative_im_path"], row["class"] - 1, CAR_NAMES[row["class"] - 1]) for row in rows[14:]]
    assert relative(dataset.test, folder) == expected
    assert not dataset.on_published_split  # it is renumbered: check says so


@pytest.mark.parametrize(("lists", "images"), [("Partitions", "SUN397/SUN397"), ("SUN397", "SUN397"), ("", ".")])
def test_sun397_as_mirrors_have_it(tmp_path, lists, images):
    expected = miniatures.sun397(tmp_path, lists, images)
    dataset = build("SUN397", tmp_path)
    assert len(dataset.test) == len(expected["test"]) == 12
    assert dataset.classnames == ["abbey", "airplane_cabin", "indoor church"]


def test_files_that_a_mirror_moved_are_found_by_name(tmp_path, capsys):
    """SUN397 flattened to one folder per class."""
    miniatures.sun397(tmp_path)
    folder = tmp_path / "sun397" / "SUN397"
    for scene in miniatures.SCENES:
        (folder / scene[1:]).rename(folder / scene[3:].replace("/", "_"))
    dataset = build("SUN397", tmp_path)
    assert all(Path(item.impath).exists() for item in dataset.test)
    assert "are not in their published folders; found by name" in capsys.readouterr().out


# Annotations that contradict each other


@pytest.mark.parametrize(
    ("name", "make", "file", "line", "message"),
    [
        ("FGVCAircraft", miniatures.fgvc_aircraft, "fgvc_aircraft/images_variant_val.txt", "1 Concorde", "'Concorde'"),
        ("SUN397", miniatures.sun397, "sun397/Testing_01.txt", "/z/zoo/x.jpg", "the scene 'z/zoo'"),
        ("UCF101", miniatures.ucf101, "ucf101/ucfTrainTestlist/testlist01.txt", "Zorbing/v.avi", "action 'Zorbing'"),
        (
            "OxfordFlowers",
            miniatures.oxford_flowers,
            "oxford_flowers/cat_to_name.json",
            '{"1": "a"}',
            r"labels \[2, 3\]",
        ),
    ],
)
def test_annotations_of_different_versions_are_an_error(tmp_path, name, make, file, line, message):
    make(tmp_path)
    (tmp_path / file).write_text(line)
    with pytest.raises(ValueError, match=message):
        build(name, tmp_path)


def test_an_empty_image_folder_is_an_error_and_stays_none(tmp_path):
    miniatures.dtd(tmp_path)
    images = tmp_path / "dtd" / "images"
    images.rename(tmp_path / "kept")
    images.mkdir()
    with pytest.raises(ValueError, match=r"dtd/images contains no class folders"):
        build("DescribableTextures", tmp_path)
    images.rmdir()
    (tmp_path / "kept").rename(images)
    assert build("DescribableTextures", tmp_path).num_classes == 3


def test_a_class_without_images_is_an_error(tmp_path):
    miniatures.food101(tmp_path)
    shutil.rmtree(tmp_path / "food-101" / "images" / "waffles")
    (tmp_path / "food-101" / "images" / "waffles").mkdir()
    with pytest.raises(ValueError, match=r"1 of 3 class folders in .* contain no images: waffles"):
        build("Food101", tmp_path)


def test_too_few_images_for_three_parts_is_an_error(tmp_path):
    miniatures.class_folders(tmp_path / "dtd" / "images", ["banded"], count=2)
    with pytest.raises(ValueError, match="'banded' has 2 images: too few for training, validation and test"):
        build("DescribableTextures", tmp_path)


def test_a_class_folder_too_few_or_too_many_is_an_error(tmp_path):
    """EuroSAT has ten classes: without one, every later label would be another class."""
    miniatures.eurosat(tmp_path)
    assert build_dataset(dataset_cfg("EuroSAT", tmp_path)).num_classes == 10
    shutil.rmtree(tmp_path / "eurosat" / "2750" / "Forest")
    with pytest.raises(ValueError, match="EuroSAT has 9 classes here, published: 10"):
        build_dataset(dataset_cfg("EuroSAT", tmp_path))


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0", bytes(200)])
def test_a_damaged_annotation_file_is_an_error(tmp_path, content):
    miniatures.oxford_flowers(tmp_path)
    (tmp_path / "oxford_flowers" / "imagelabels.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"OxfordFlowers: the annotations in .*oxford_flowers are damaged"):
        build("OxfordFlowers", tmp_path)
