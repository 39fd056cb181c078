"""Files that mirrors moved are found by name; a file that is missing is never replaced by another item's."""

import json
import shutil

import pytest

from datasets.tool.check import check
from tests.datasets import miniatures
from tests.datasets.layouts import build, pictures


def cars(root, numbers=range(1, 7)):
    """Cars numbered alike in both folders: two classes, three images of each in each."""
    folder = root / "stanford_cars"
    names = ["2000 AM General Hummer SUV", "2012 Acura RL Sedan"]
    entries = {
        part: [[f"cars_{part}/{i:05d}.jpg", (i + shift) % 2, names[(i + shift) % 2]] for i in numbers]
        for shift, part in enumerate(("train", "test"))
    }
    for items in entries.values():
        pictures(folder, [path for path, _, _ in items])
    (folder / "split_zhou_StanfordCars.json").write_text(json.dumps({**entries, "val": []}))
    return folder


def test_a_missing_training_image_is_not_the_test_image_of_its_name(tmp_path):
    folder = cars(tmp_path)
    (folder / "cars_train" / "00001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 12 images in the split do not exist.*cars_train/00001"):
        build("StanfordCars", tmp_path)
    shutil.rmtree(folder / "cars_train")
    with pytest.raises(FileNotFoundError, match="6 of 12 images in the split do not exist"):
        build("StanfordCars", tmp_path)
    assert not check("StanfordCars", tmp_path).good


def test_a_missing_class_is_not_filled_from_others(tmp_path):
    """Caltech-101 numbers the images of every class alike, and has a second folder of faces that is not used."""
    miniatures.caltech101(tmp_path)
    images = tmp_path / "caltech-101" / "101_ObjectCategories"
    for folder in ("Faces", "Faces_easy", "Motorbikes"):
        for path in (images / folder).iterdir():
            path.rename(path.with_name(path.name.replace(f"{folder}_", "image_")))
    classes = [("Faces", 0, "face"), ("Motorbikes", 1, "motorbike")]
    entries = [[f"{folder}/image_{i:04d}.jpg", k, name] for folder, k, name in classes for i in range(1, 11)]
    split = {"train": entries, "val": [], "test": entries}
    (tmp_path / "caltech-101" / "split_zhou_Caltech101.json").write_text(json.dumps(split))
    assert len(build("Caltech101", tmp_path).train_x) == 20
    shutil.rmtree(images / "Faces")
    with pytest.raises(FileNotFoundError, match="10 of 20 images in the split do not exist"):
        build("Caltech101", tmp_path)


def test_two_places_that_fit_alike_are_none(tmp_path):
    folder = cars(tmp_path)
    (folder / "cars_train").rename(folder / "a_train")
    assert all("a_train" in item.impath for item in build("StanfordCars", tmp_path).train_x)
    shutil.copytree(folder / "a_train", folder / "b_train")
    with pytest.raises(FileNotFoundError, match="6 of 12 images in the split do not exist"):
        build("StanfordCars", tmp_path)
