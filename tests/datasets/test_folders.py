"""Class folders as people bring them: leftovers, other suffixes, deeper folders, links, names; and what is said."""

import os
import socket

import pytest
from PIL import Image, features

from datasets import listing
from datasets.__main__ import main
from datasets.listing import list_class_folders, list_images
from tests.datasets.layouts import build, pictures, relative
from tests.datasets.test_own_data import save_tree


@pytest.fixture
def root(tmp_path):
    save_tree(tmp_path, ("train", "test"), classes=("cat", "dog"), count=3)
    return tmp_path


LEFTOVERS = ["__MACOSX", ".DS_Store", "@eaDir", ".ipynb_checkpoints", "$RECYCLE.BIN", ".AppleDouble", "lost+found"]


@pytest.mark.parametrize("name", [*LEFTOVERS, "System Volume Information", "__pycache__", ".git"])
def test_what_systems_leave_behind_is_no_class_and_no_image(root, name, capsys):
    for place in ("", "train", "test", "train/cat", "test/dog"):
        pictures(root / place / name, ["1.png"])
    dataset = build("ImageFolder", root)
    assert dataset.classnames == ["cat", "dog"] and (len(dataset.train_x), len(dataset.test)) == (6, 6)
    assert "Note" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", "._1.png", ".hidden.png", "ehthumbs.db", ".DS_Store"])
def test_files_that_systems_leave_behind_are_not_mentioned(root, name, capsys):
    (root / "train" / "cat" / name).write_bytes(b"\0\5\x16\7")
    (root / "train" / name).write_bytes(b"\0\5\x16\7")
    assert len(build("ImageFolder", root).train_x) == 6
    assert "Note" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".JPG", ".Jpeg", ".jpe", ".jfif", ".TIF", ".pgm", ".WEBP"])
def test_other_suffixes_and_cases_are_images(root, suffix):
    (root / "train" / "cat" / "0.png").rename(root / "train" / "cat" / f"0{suffix}")
    assert len(build("ImageFolder", root).train_x) == 6


def test_files_that_are_not_read_are_named(root, capsys):
    for name in ("a.heic", "b.HEIC", "notes.txt", "c.cr2", "plain"):
        (root / "train" / "cat" / name).write_bytes(b"x")
    dataset = build("ImageFolder", root)
    (note,) = dataset.notes
    assert "5 files in" in note and "2 × .heic" in note and "1 × .txt" in note and "1 × no suffix" in note
    assert "cat/a.heic" in note and "Pillow cannot read .heic here: convert these images to JPEG or PNG" in note
    assert f"Note: {note}" in capsys.readouterr().out
    assert main(["check", "ImageFolder", "--root", str(root)]) == 0
    assert "2 × .heic" in capsys.readouterr().out


def test_a_class_of_unreadable_images_says_which(root):
    for name in ("0", "1", "2"):
        (root / "train" / "cat" / f"{name}.png").rename(root / "train" / "cat" / f"{name}.heic")
    with pytest.raises(ValueError, match=r"1 of 2 class folders .* contain no images: cat(?s:.)*3 × \.heic"):
        build("ImageFolder", root)


@pytest.mark.parametrize("known", [True, False])
def test_avif_is_read_if_pillow_can(root, monkeypatch, known):
    listing._is_rare_image.cache_clear()
    monkeypatch.setattr(Image, "registered_extensions", lambda: {".avif": "AVIF"} if known else {})
    monkeypatch.setitem(Image.OPEN, "AVIF", None)
    (root / "train" / "cat" / "0.png").rename(root / "train" / "cat" / "0.avif")
    dataset = build("ImageFolder", root)
    assert len(dataset.train_x) == (6 if known else 5)
    assert known or "Pillow cannot read .avif here" in dataset.notes[0]
    listing._is_rare_image.cache_clear()


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_this_pillow_reads_avif(tmp_path):
    pictures(tmp_path, ["a.avif"])
    assert list_images(tmp_path) == ["a.avif"]


def test_images_in_folders_of_a_class_folder(root):
    pictures(root / "train" / "cat" / "2021", ["a.png", "b.png"])
    pictures(root / "train" / "cat" / "2021" / "may", ["c.png"])
    paths = [path for path, label, _ in relative(build("ImageFolder", root).train_x, root) if label == 0]
    names = ["0.png", "1.png", "2.png", "2021/a.png", "2021/b.png", "2021/may/c.png"]
    assert paths == [f"train/cat/{name}" for name in names]


def test_a_link_to_the_folder_itself_ends(root):
    (root / "train" / "cat" / "again").symlink_to(root / "train" / "cat")
    (root / "train" / "cat" / "sub").mkdir()
    (root / "train" / "cat" / "sub" / "up").symlink_to(root / "train" / "cat")
    assert len(build("ImageFolder", root).train_x) == 6


def test_a_link_to_a_folder_with_other_classes_is_an_error(root):
    (root / "train" / "cat" / "up").symlink_to("..")
    with pytest.raises(ValueError, match=r"train/cat/up/ is a link to a folder that contains it"):
        build("ImageFolder", root)


def test_nested_folders_are_not_cached(tmp_path):
    pictures(tmp_path / "a" / "b", ["1.png"])
    for folder in (tmp_path / "a", tmp_path / "a" / "b"):
        os.utime(folder, (1, 1))
    list_class_folders(tmp_path, tmp_path / "cache.json")
    assert not (tmp_path / "cache.json").exists()


def test_linked_images_are_images(root, tmp_path):
    (root / "train" / "cat" / "link.png").symlink_to(root / "train" / "cat" / "0.png")
    (root / "train" / "wolf").symlink_to(root / "train" / "dog")
    (root / "test" / "wolf").symlink_to(root / "test" / "dog")
    assert len(build("ImageFolder", root).train_x) == 10


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("link", "a link to a file that does not exist"),
        ("pipe", "a named pipe"),
        ("socket", "a socket"),
        ("device", "a device"),
    ],
)
@pytest.mark.parametrize("by_list", [True, False])
def test_what_is_no_file_is_named_before_training(root, kind, message, by_list, monkeypatch):
    path = root / "test" / "cat" / "5.png"
    if kind == "link":
        path.symlink_to(root / "gone")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(path.parent)  # a socket's path is short
        socket.socket(socket.AF_UNIX).bind(path.name)
    else:
        path.symlink_to("/dev/null")
    if by_list:
        rows = [f"train/{c}/{i}.png,{c == 'dog':d},{c},train" for c in ("cat", "dog") for i in (0, 1)]
        rows += ["test/cat/5.png,0,cat,test", "test/dog/0.png,1,dog,test"]
        (root / "split.csv").write_text("\n".join(["path,label,classname,split", *rows]))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        build("SplitFile" if by_list else "ImageFolder", root)
    assert str(path) in str(error.value)


def test_a_folder_named_like_an_image_is_a_folder(root):
    pictures(root / "train" / "cat" / "album.png", ["1.png"])
    assert len(build("ImageFolder", root).train_x) == 7
    rows = ["train/cat/album.png,0,cat,train", "test/cat/0.png,0,cat,test"]
    (root / "split.csv").write_text("\n".join(["path,label,classname,split", *rows]))
    with pytest.raises(FileNotFoundError, match=r"album\.png \(a folder\)"):
        build("SplitFile", root)


# Names


def test_names_that_are_not_utf8_are_named(root, tmp_path):
    for part in ("train", "test"):
        (root / part / "cat").rename(root / part / os.fsdecode(b"caf\xe9"))
    with pytest.raises(ValueError, match=r"the name b'caf\\xe9' in b'.*train' is not UTF-8: rename it") as error:
        build("ImageFolder", root)
    str(error.value).encode()  # it can be printed


@pytest.mark.parametrize("place", ["train/cat", "test/dog"])
def test_image_names_and_roots_that_are_not_utf8_are_named(root, place):
    (root / place / "0.png").rename(root / place / os.fsdecode(b"\xff.png"))
    with pytest.raises(ValueError, match=r"b'\\xff\.png' in b'.*' is not UTF-8"):
        build("ImageFolder", root)
    moved = root / os.fsdecode(b"r\xe9")
    moved.mkdir()
    with pytest.raises(ValueError, match=r"r\\xe9' in b'DATASET.ROOT' is not UTF-8"):
        build("ImageFolder", moved)


@pytest.mark.parametrize("names", [("Cat", "cat"), ("red_fox", "red fox"), ("red fox", "red  fox")])
def test_two_folders_with_one_name_are_an_error(tmp_path, names):
    save_tree(tmp_path, ("train", "test"), classes=names, count=2)
    with pytest.raises(ValueError, match="have the same class name") as error:
        build("ImageFolder", tmp_path)
    assert all(repr(name) in str(error.value) for name in names)


def test_two_classes_with_one_name_through_a_file_are_an_error(root):
    (root / "classnames.txt").write_text("cat crane\ndog crane\n")
    with pytest.raises(ValueError, match="The folders 'cat' and 'dog' have the same class name: 'crane' and 'crane'"):
        build("ImageFolder", root)
    rows = [f"{part}/{c}/0.png,{c == 'dog':d},crane,{part}" for part in ("train", "test") for c in ("cat", "dog")]
    (root / "split.csv").write_text("\n".join(["path,label,classname,split", *rows]))
    with pytest.raises(ValueError, match="The labels 0 and 1 have the same class name"):
        build("SplitFile", root)


@pytest.mark.parametrize("name", ["   ", "_", "a\nb", "\t"])
def test_folders_whose_names_say_nothing_are_an_error(tmp_path, name):
    save_tree(tmp_path, ("train", "test"), classes=("cat", name), count=1)
    with pytest.raises(ValueError, match=r"train: the class name .*(is blank|not text)"):
        build("ImageFolder", tmp_path)


def test_wordnet_ids_are_said(tmp_path, capsys):
    save_tree(tmp_path, ("train", "test"), classes=("n01440764", "n01443537"), count=1)
    (note,) = build("ImageFolder", tmp_path).notes
    assert "2 of 2 class names are WordNet ids" in note and "Write a classnames.txt" in note
    (tmp_path / "classnames.txt").write_bytes("\ufeffn01440764\ttench\r\nn01443537\tgoldfish\r\n".encode())
    dataset = build("ImageFolder", tmp_path)
    assert (dataset.classnames, dataset.notes) == (["tench", "goldfish"], [])


# Arrangement


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (("training", "testing"), (2, 0, 2)),
        (("Training", "Validation"), (2, 0, 2)),
        (("TRAIN", "Dev", "Test"), (2, 2, 2)),
        (("train", "valid", "testing"), (2, 2, 2)),
    ],
)
def test_other_names_of_the_parts(tmp_path, names, sizes):
    save_tree(tmp_path, names, classes=("cat", "dog"), count=1)
    dataset = build("ImageFolder", tmp_path)
    assert tuple(len(items or []) for items in (dataset.train_x, dataset.val, dataset.test)) == sizes


def test_a_part_twice_is_an_error(root):
    (root / "training").mkdir()
    with pytest.raises(FileNotFoundError, match="contains both train/ and training/: keep one of them"):
        build("ImageFolder", root)


def test_folders_and_images_that_are_not_used_are_said(root):
    pictures(root / "more", ["a.png"])
    pictures(root / "train", ["b.png"])
    notes = build("ImageFolder", root).notes
    assert any("folders that are not used: more" in note for note in notes)
    assert any("1 images in" in note and "are in no class folder and are not used: b.png" in note for note in notes)


@pytest.mark.parametrize("parts", [("train", "test"), ("Training", "val"), ("", "")])
@pytest.mark.parametrize("deeper", ["pics", "a/b"])
def test_data_one_folder_deeper_are_named_with_the_root(tmp_path, parts, deeper):
    save_tree(tmp_path / deeper, parts, classes=("cat", "dog"), count=4)
    with pytest.raises(FileNotFoundError, match=f"use --root {tmp_path.resolve()}/{deeper}"):
        build("ImageFolder", tmp_path)


def test_classes_that_contain_the_parts_are_named(tmp_path):
    for name in ("cat", "dog"):
        save_tree(tmp_path / name, ("",), classes=("train", "test"), count=2)
    with pytest.raises(FileNotFoundError, match=r"cat contains test/, train/(?s:.)*move its images to .*/test/cat/"):
        build("ImageFolder", tmp_path)


def test_train_with_one_folder_too_many_is_named(tmp_path):
    for part in ("train", "test"):
        save_tree(tmp_path / part, ("pics",), classes=("cat", "dog"), count=2)
    with pytest.raises(FileNotFoundError, match=r"move the folders in .*train/pics to .*/train"):
        build("ImageFolder", tmp_path)


# What the numbers mean


def test_small_numbers_are_noted(root, capsys):
    (root / "train" / "dog" / "0.png").unlink()
    dataset = build("ImageFolder", root, num_shots=3)
    (note,) = dataset.notes
    assert note == "1 of 2 classes have fewer than 3 training images, all of which are used: dog (2)"
    assert f"Note: {note}" in capsys.readouterr().out
    assert build("ImageFolder", root, num_shots=2).notes == []
    (note,) = build("ImageFolder", root, classes="new").notes
    assert note == "The new half has one class only, 'dog': an accuracy of 100 % on it means nothing"


def test_one_class_and_halves_of_two(tmp_path):
    save_tree(tmp_path / "one", ("train", "test"), classes=("cat",), count=2)
    (note,) = build("ImageFolder", tmp_path / "one").notes
    assert note.startswith("The dataset has one class only, 'cat'")
    save_tree(tmp_path / "four", ("train", "test"), classes=("a", "b", "c", "d"), count=1)
    (note,) = build("ImageFolder", tmp_path / "four", classes="base").notes
    assert note == "The base half has two classes only, a and b: chance is 50 %"
    assert build("ImageFolder", tmp_path / "four").notes == []


# The prompt


def with_template(root, template):
    from dassl.data.datasets import build_dataset
    from tests.datasets.layouts import dataset_cfg

    cfg = dataset_cfg("ImageFolder", root)
    cfg.DATASET.TEMPLATE = template
    return build_dataset(cfg)


def test_the_prompt_of_own_data_can_be_set(root, capsys):
    assert with_template(root, "an X-ray of a {}.").template == "an X-ray of a {}."
    assert "sample prompts: an X-ray of a cat. | an X-ray of a dog." in capsys.readouterr().out
    assert with_template(root, "").template == "a photo of a {}."


@pytest.mark.parametrize(
    "template", ["a photo", "{} and {}", "{name}", "{} {0}", "{}}", "a {!r} of {}", "{{}}", "a\n{}"]
)
def test_other_templates_are_errors(root, template):
    with pytest.raises(ValueError, match=r"DATASET\.TEMPLATE is .*must contain \{\} once"):
        with_template(root, template)


def test_an_image_under_two_spellings_is_listed_twice(root):
    rows = ["train/cat/0.png,0,cat,train", "./train/../train\\cat/0.png,0,cat,test"]
    (root / "split.csv").write_text("\n".join(["path,label,classname,split", *rows]))
    with pytest.raises(ValueError, match=r"lists 1 images more than once, the first: .*train/cat/0\.png"):
        build("SplitFile", root)


def test_a_table_with_tabs(root):
    rows = ["train/cat/0.png\t0\tcat, small\ttrain", "test/cat/0.png\t0\tcat, small\ttest"]
    (root / "split.tsv").write_text("\n".join(["path\tlabel\tclassname\tsplit", *rows]))
    assert build("SplitFile", root).classnames == build("SplitFile", root / "split.tsv").classnames == ["cat, small"]
