"""ImageNet's layout, its independence of the listing's order, and its cached listing."""

import json
import os
import random
import shutil
import time

import pytest

from datasets import listing
from datasets.listing import list_class_folders
from tests.datasets.layouts import build, pictures, relative

CLASSES = {"n01440764": "tench", "n01443537": "goldfish", "n01484850": "great white shark"}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "imagenet"
    for wnid in CLASSES:
        pictures(folder / "images" / "train" / wnid, [f"{wnid}_{i}.JPEG" for i in (7, 1, 30, 2, 11)])
        pictures(folder / "images" / "val" / wnid, [f"ILSVRC2012_val_{i}.JPEG" for i in (2, 1)])
    (folder / "classnames.txt").write_text("".join(f"{wnid} {name}\n" for wnid, name in CLASSES.items()))
    age(folder)
    return tmp_path


def age(folder):
    """Make the folders look settled, as they are when nobody is unpacking into them."""
    before = time.time() - 100
    for path, _, _ in os.walk(folder):
        os.utime(path, (before, before))


def test_items_labels_and_names(root):
    dataset = build("ImageNet", root)
    assert dataset.classnames == list(CLASSES.values())
    assert relative(dataset.train_x, root)[:6] == [
        ("imagenet/images/train/n01440764/n01440764_1.JPEG", 0, "tench"),
        ("imagenet/images/train/n01440764/n01440764_11.JPEG", 0, "tench"),
        ("imagenet/images/train/n01440764/n01440764_2.JPEG", 0, "tench"),
        ("imagenet/images/train/n01440764/n01440764_30.JPEG", 0, "tench"),
        ("imagenet/images/train/n01440764/n01440764_7.JPEG", 0, "tench"),
        ("imagenet/images/train/n01443537/n01443537_1.JPEG", 1, "goldfish"),
    ]
    assert len(dataset.train_x) == 15 and len(dataset.test) == 6
    assert relative(dataset.val, root) == relative(dataset.test, root)


def test_base_and_new_halves(root):
    base, new = (build("ImageNet", root, classes=classes) for classes in ("base", "new"))
    assert base.classnames == ["tench", "goldfish"]
    assert new.classnames == ["great white shark"]
    assert {item.label for item in new.test} == {0}


def test_shots_are_those_of_one_generator_over_the_sorted_listing(root):
    rng = random.Random(2)
    expected = []
    for wnid in CLASSES:
        expected += rng.sample([f"{wnid}_{i}.JPEG" for i in ("1", "11", "2", "30", "7")], 2)
    drawn = build("ImageNet", root, num_shots=2, seed=2)
    assert [os.path.basename(item.impath) for item in drawn.train_x] == expected
    assert len(drawn.val) == 6


@pytest.mark.parametrize(("shots", "held_out"), [(1, 1), (2, 2), (3, 2), (4, 1), (5, 0), (-1, 0)])
def test_training_images_that_are_not_drawn_are_held_out(root, shots, held_out):
    """min(K, 4) of each class where there are as many; the draws of the training images come before."""
    dataset = build("ImageNet", root, num_shots=shots, seed=2)
    assert [item.label for item in dataset.held_out] == [label for label in range(3) for _ in range(held_out)]
    drawn = {item.impath for item in dataset.train_x}
    everything = {item.impath: (item.label, item.classname) for item in build("ImageNet", root).train_x}
    for item in dataset.held_out:
        assert item.impath not in drawn
        assert everything[item.impath] == (item.label, item.classname)
    again = build("ImageNet", root, num_shots=shots, seed=2)
    assert relative(again.held_out, root) == relative(dataset.held_out, root)


@pytest.mark.parametrize("classes", ["base", "new"])
def test_held_out_images_are_of_the_classes_at_hand(root, classes):
    dataset = build("ImageNet", root, num_shots=2, classes=classes)
    labels = {item.classname: item.label for item in dataset.train_x}
    assert {item.classname: item.label for item in dataset.held_out} == labels
    assert dataset.classnames == list(labels)


def test_shots_do_not_depend_on_the_order_of_the_filesystem(root, monkeypatch):
    expected = [item.impath for item in build("ImageNet", root, num_shots=3).train_x]
    (root / "imagenet" / "listing_train.json").unlink()
    listdir = os.listdir
    monkeypatch.setattr(listing.os, "listdir", lambda path: list(reversed(sorted(listdir(path)))))
    assert [item.impath for item in build("ImageNet", root, num_shots=3).train_x] == expected


def test_the_listing_is_cached_relative_and_used(root, monkeypatch):
    first = relative(build("ImageNet", root).train_x, root)
    cache = root / "imagenet" / "listing_train.json"
    assert str(root) not in cache.read_text()
    monkeypatch.setattr(listing, "list_images", lambda folder: pytest.fail("listed again"))
    moved = root.with_name("moved")
    root.rename(moved)
    assert relative(build("ImageNet", moved).train_x, moved) == first


def test_an_added_file_and_a_damaged_cache_are_noticed(root):
    build("ImageNet", root)
    cache = root / "imagenet" / "listing_train.json"
    pictures(root / "imagenet" / "images" / "train" / "n01443537", ["new.JPEG"])
    assert len(build("ImageNet", root).train_x) == 16
    for damage in ("{", "[]", json.dumps({**json.loads(cache.read_text()), "images": {"n01440764": ["../x"]}})):
        cache.write_text(damage)
        assert len(build("ImageNet", root).train_x) == 16


def test_an_empty_folder_is_an_error_and_is_not_cached(root):
    folder = root / "imagenet" / "images" / "train" / "n01443537"
    kept = folder.with_name("kept")
    folder.rename(kept)
    folder.mkdir()
    kept.rename(root / "kept")
    age(root)
    with pytest.raises(ValueError, match=r"1 of 3 class folders in .*train contain no images: n01443537\. Unpack them"):
        build("ImageNet", root)
    assert not (root / "imagenet" / "listing_train.json").exists()
    folder.rmdir()
    (root / "kept").rename(folder)
    assert len(build("ImageNet", root).train_x) == 15


def test_a_folder_still_changing_is_not_cached(tmp_path):
    pictures(tmp_path / "a", ["1.jpg"])
    list_class_folders(tmp_path, tmp_path / "cache.json")
    assert not (tmp_path / "cache.json").exists()


def test_a_read_only_folder_is_no_obstacle(root, monkeypatch, capsys):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(listing, "write_json", refuse)
    assert len(build("ImageNet", root).train_x) == 15
    assert "The listing is not cached" in capsys.readouterr().out


def test_a_missing_class_folder_is_an_error(root):
    shutil.rmtree(root / "imagenet" / "images" / "train" / "n01443537")
    with pytest.raises(
        ValueError, match=r"1 of 3 class folders are missing in .*n01443537\. Unpack them: without them every later"
    ):
        build("ImageNet", root)


def test_the_names_of_another_dataset_are_an_error(root):
    (root / "imagenet" / "classnames.txt").write_text("0 tench\n1 goldfish\n")
    with pytest.raises(ValueError, match=r"classnames\.txt looks like the class-name file of another dataset"):
        build("ImageNet", root)


def test_a_folder_without_a_name_is_an_error(root):
    pictures(root / "imagenet" / "images" / "train" / "n09999999", ["1.JPEG"])
    with pytest.raises(ValueError, match=r"contains 1 folders that .* does not list: n09999999"):
        build("ImageNet", root)


@pytest.mark.parametrize("line", ["n01440764", "n01440764 tench\nn01440764 tench"])
def test_a_damaged_line_of_names_is_an_error(root, line):
    (root / "imagenet" / "classnames.txt").write_text(line)
    with pytest.raises(ValueError, match=r"line [12]: expected a new '<folder> <class name>'"):
        build("ImageNet", root)


def test_a_missing_dataset_says_what_where_and_how(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        build("ImageNet", tmp_path)
    message = str(error.value)
    assert f"looked for: {tmp_path}/imagenet or" in message
    assert "images/train/<wnid>/" in message
    assert f"python -m datasets prepare ImageNet --root {tmp_path}" in message
    assert "https://image-net.org" in message


def test_a_missing_part_is_named(root):
    (root / "imagenet" / "classnames.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"looked for: .*imagenet/classnames\.txt"):
        build("ImageNet", root)


def test_a_published_pickle_is_named_and_not_read(root, capsys):
    pickle = root / "imagenet" / "split_fewshot" / "shot_2-seed_1.pkl"
    pickle.parent.mkdir()
    pickle.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    expected = [item.impath for item in build("ImageNet", root, num_shots=2).train_x]
    assert f"{pickle} is not read" in capsys.readouterr().out
    pickle.unlink()
    assert [item.impath for item in build("ImageNet", root, num_shots=2).train_x] == expected
