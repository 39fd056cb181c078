"""Own images without code: class folders and lists of files, under every protocol, and what is wrong with them."""

import json
from collections import Counter

import pytest

from tests.datasets import miniatures
from tests.datasets.layouts import build, pictures, relative


def save_tree(root, parts, classes=("cat", "dog", "red_fox"), count=10):
    for part in parts:
        for name in classes:
            pictures(root / part / name, [f"{i}.png" for i in range(count)])


def test_train_and_test_folders(tmp_path, capsys):
    save_tree(tmp_path, ("train", "test"), count=3)
    dataset = build("ImageFolder", tmp_path)
    assert dataset.classnames == ["cat", "dog", "red_fox"]
    assert relative(dataset.test, tmp_path)[:4] == [
        ("test/cat/0.png", 0, "cat"),
        ("test/cat/1.png", 0, "cat"),
        ("test/cat/2.png", 0, "cat"),
        ("test/dog/0.png", 1, "dog"),
    ]
    assert (len(dataset.train_x), dataset.val, len(dataset.test)) == (9, [], 9)
    out = capsys.readouterr().out
    assert "3 classes: cat, dog, red_fox" in out
    assert "a photo of a cat. | a photo of a dog. | a photo of a red fox." in out


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_a_validation_folder(tmp_path, val):
    save_tree(tmp_path, ("train", "test", val), count=2)
    assert relative(build("ImageFolder", tmp_path).val, tmp_path)[0] == (f"{val}/cat/0.png", 0, "cat")


def test_without_a_test_folder_validation_is_the_test_set(tmp_path, capsys):
    save_tree(tmp_path, ("train", "val"), count=2)
    assert relative(build("ImageFolder", tmp_path).test, tmp_path)[0][0] == "val/cat/0.png"
    assert "contains no test/: the images of val/ are the test set" in capsys.readouterr().out


def test_one_tree_is_split_reproducibly(tmp_path):
    save_tree(tmp_path, ("",))
    first, again = (build("ImageFolder", tmp_path, seed=seed) for seed in (1, 2))
    for part, count in (("train_x", 5), ("val", 2), ("test", 3)):
        items = getattr(first, part)
        assert Counter(item.label for item in items) == {0: count, 1: count, 2: count}
        assert relative(items, tmp_path) == relative(getattr(again, part), tmp_path)


def test_class_names_from_a_file(tmp_path):
    save_tree(tmp_path, ("train", "test"), classes=("n01", "n02"), count=1)
    (tmp_path / "classnames.txt").write_text("n01 tench\nn02 great white shark\n")
    assert build("ImageFolder", tmp_path).classnames == ["tench", "great white shark"]
    (tmp_path / "classnames.txt").write_text("n01 tench\nn02 shark\nn03 whale\n")
    with pytest.raises(ValueError, match=r"1 of 3 class folders are missing in .*train: n03"):
        build("ImageFolder", tmp_path)


def test_every_protocol_works_on_class_folders(tmp_path):
    save_tree(tmp_path, ("train", "test"))
    few = build("ImageFolder", tmp_path, num_shots=2)
    assert Counter(item.label for item in few.train_x) == {0: 2, 1: 2, 2: 2}
    assert build("ImageFolder", tmp_path, classes="base").classnames == ["cat", "dog"]
    new = build("ImageFolder", tmp_path, classes="new", num_shots=2)
    assert (new.classnames, len(new.train_x), len(new.test)) == (["red_fox"], 2, 10)


@pytest.mark.parametrize(
    ("prepare", "error", "message"),
    [
        (lambda root: None, ValueError, "contains no class folders: it must contain one folder of images"),
        (lambda root: save_tree(root, ("train",)), FileNotFoundError, "contains train/ but neither test/ nor val/"),
        (lambda root: (root / "cat").mkdir(), ValueError, "1 of 1 class folders in .* contain no images: cat"),
        (
            lambda root: (save_tree(root, ("train", "test")), pictures(root / "test" / "wolf", ["1.png"])),
            *(ValueError, r"test contains 1 folders that .*train does not list: wolf"),
        ),
        (
            lambda root: (save_tree(root, ("train", "test")), (root / "test" / "dog").rename(root / "gone")),
            *(ValueError, "1 of 3 class folders are missing in .*test: dog"),
        ),
    ],
)
def test_wrong_trees_are_errors(tmp_path, prepare, error, message):
    prepare(tmp_path)
    with pytest.raises(error, match=message):
        build("ImageFolder", tmp_path)


@pytest.mark.parametrize("name", ["ImageFolder", "SplitFile"])
def test_a_missing_root_says_what_is_expected(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"expected: <root>(?s:.)*docs/DATASETS\.md"):
        build(name, tmp_path / "nowhere")


# Lists of files

NAMES = ["cat", "red fox"]


def save_list(root, images=""):
    """A split JSON over ten images of each of two classes: six for train, four for test."""
    entries = [[f"{name[:3]}{i}.png", label, name] for label, name in enumerate(NAMES) for i in range(10)]
    pictures(root / images, [entry[0] for entry in entries])
    content = {
        "train": [entry for i, entry in enumerate(entries) if i % 10 < 6],
        "test": [entry for i, entry in enumerate(entries) if i % 10 >= 6],
    }
    (root / "split.json").write_text(json.dumps(content))
    return entries


@pytest.mark.parametrize("images", ["", "images"])
@pytest.mark.parametrize("by_file", [True, False])
def test_a_split_json(tmp_path, images, by_file, capsys):
    save_list(tmp_path, images)
    dataset = build("SplitFile", tmp_path / "split.json" if by_file else tmp_path)
    assert (len(dataset.train_x), dataset.val, len(dataset.test)) == (12, [], 8)
    assert relative(dataset.test, tmp_path / images)[0] == ("cat6.png", 0, "cat")
    assert "a photo of a red fox." in capsys.readouterr().out


def test_every_protocol_works_on_a_list(tmp_path):
    save_list(tmp_path)
    assert len(build("SplitFile", tmp_path, num_shots=2).train_x) == 4
    assert build("SplitFile", tmp_path, classes="base").classnames == ["cat"]
    assert build("SplitFile", tmp_path, classes="new").classnames == ["red fox"]


def test_a_csv_with_its_own_split(tmp_path):
    pictures(tmp_path, [f"{i}.png" for i in range(5)])
    lines = ["path,label,classname,split", "0.png,0,cat,train", '1.png,1,"fox, red",train', '2.png,1,"fox, red",val']
    (tmp_path / "split.csv").write_text("\n".join([*lines, "3.png,0,cat,test", '4.png,1,"fox, red",test']) + "\n")
    dataset = build("SplitFile", tmp_path)
    assert dataset.classnames == ["cat", "fox, red"]
    assert relative(dataset.val, tmp_path) == [("2.png", 1, "fox, red")]
    assert relative(dataset.test, tmp_path) == [("3.png", 0, "cat"), ("4.png", 1, "fox, red")]


def rows(*lines: str) -> str:
    return "\n".join(["path,label,classname,split", *lines]) + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (rows("0.png,0,a,train", "1.png,1,b,train", "2.png,0,a,test"), r"1 of 2 classes have no test images: 1 \(b\)"),
        (rows("0.png,0,a,train", "0.png,0,a,test"), "lists 1 images more than once, the first: .*0.png"),
        (rows("0.png,²,a,train"), "line 2: the label must be an integer, not '²'"),
        (rows("0.png,0,a,train").replace("split", "set"), "unknown columns set; known are path,label,classname,split"),
    ],
)
def test_a_csv_that_would_mislead_is_an_error(tmp_path, content, message):
    pictures(tmp_path, [f"{i}.png" for i in range(3)])
    (tmp_path / "split.csv").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        build("SplitFile", tmp_path)


def test_a_csv_in_another_encoding_is_named(tmp_path):
    (tmp_path / "split.csv").write_bytes("0.png,0,größe".encode("latin-1"))
    with pytest.raises(ValueError, match=r"split\.csv is not UTF-8 .*save it as UTF-8"):
        build("SplitFile", tmp_path)


def test_folders_of_parts_in_any_case_and_without_training(tmp_path):
    save_tree(tmp_path / "a", ["Train", "Test"])
    assert build("ImageFolder", tmp_path / "a").classnames == ["cat", "dog", "red_fox"]
    save_tree(tmp_path / "b", ["test"])
    with pytest.raises(FileNotFoundError, match=r"b contains test/ but no train/"):
        build("ImageFolder", tmp_path / "b")


def test_one_class_has_no_halves(tmp_path):
    miniatures.class_folders(tmp_path, ["only"])
    with pytest.raises(ValueError, match="cannot split 1 class into base and new"):
        build("ImageFolder", tmp_path, classes="new")


def test_a_csv_without_a_split_is_split(tmp_path):
    entries = save_list(tmp_path)
    (tmp_path / "split.json").unlink()
    lines = ["path,label,classname", *(f"{path},{label},{name}" for path, label, name in entries)]
    (tmp_path / "list.csv").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")  # as spreadsheets write it
    dataset = build("SplitFile", tmp_path / "list.csv")
    assert (len(dataset.train_x), len(dataset.val), len(dataset.test)) == (10, 4, 6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,classname\na.png,cat\n", "must have the columns path,label,classname.*; label is missing"),
        ("path,label,classname\na.png,zero,cat\n", r"line 2: the label must be an integer, not 'zero'"),
        ("path,label,classname\na.png,0\n", "line 2: path and class name must be non-empty text"),
        ("path,label,classname\n../a.png,0,cat\n", "line 2: '../a.png' must be relative to the image folder"),
        ("path,label,classname,split\na.png,0,cat,tests\n", "line 2: split must be train, val or test, not 'tests'"),
        ("path,label,classname,split\na.png,0,cat,train\n", "SplitFile has no test images"),
    ],
)
def test_a_damaged_csv_is_an_error(tmp_path, content, message):
    (tmp_path / "split.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        build("SplitFile", tmp_path)


def test_a_list_that_names_missing_files_is_an_error(tmp_path):
    save_list(tmp_path)
    (tmp_path / "cat3.png").unlink()
    (tmp_path / "red7.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"SplitFile: 2 of 20 images .* the first: .*cat3\.png, .*red7\.png"):
        build("SplitFile", tmp_path)


def test_a_gap_in_the_labels_is_an_error(tmp_path):
    save_list(tmp_path)
    content = json.loads((tmp_path / "split.json").read_text())
    for entries in content.values():
        for entry in entries:
            entry[1] *= 2
    (tmp_path / "split.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="must be 0 to 2 without a gap, but no image has label 1"):
        build("SplitFile", tmp_path)


def test_two_lists_are_ambiguous_and_other_files_are_none(tmp_path):
    save_list(tmp_path)
    (tmp_path / "split.csv").write_text("path,label,classname\n")
    with pytest.raises(FileNotFoundError, match=r"contains both split\.json and split\.csv"):
        build("SplitFile", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"cat0\.png is neither \.json nor \.csv"):
        build("SplitFile", tmp_path / "cat0.png")
