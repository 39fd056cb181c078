"""`python -m datasets`: list, check and show."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from datasets.__main__ import main
from datasets.tool.build import find_name, registered
from datasets.tool.check import check, why_unreadable
from datasets.tool.show import describe
from tests.dassl.data.pictures import save_picture
from tests.datasets import miniatures
from tests.datasets.layouts import build
from tests.paths import ROOT

DTD = registered()["DescribableTextures"]
SPLIT = "split_zhou_DescribableTextures.json"


@pytest.fixture
def textures(tmp_path, monkeypatch) -> Path:
    """Three textures of ten images, with a split of 6 / 3 / 3 images that counts as the published one."""
    miniatures.dtd(tmp_path)
    names = ["banded", "blotchy", "braided"]
    parts = {"train": (1, 2), "val": (3,), "test": (4,)}
    content = {
        part: [[f"{name}/{name}_{i:04d}.jpg", label, name] for label, name in enumerate(names) for i in numbers]
        for part, numbers in parts.items()
    }
    (tmp_path / "dtd" / SPLIT).write_text(json.dumps(content))
    monkeypatch.setattr(DTD, "expected", (6, 3, 3))
    monkeypatch.setattr(DTD, "expected_classes", 3)
    return tmp_path


def run(capsys, *args: object) -> tuple[int, str]:
    status = main([str(arg) for arg in args])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_names_of_the_registry_and_of_folders():
    assert find_name("OxfordPets") == find_name("oxford_pets") == find_name("oxford-iiit-pet") == "OxfordPets"
    assert (find_name("dtd"), find_name("imagenet"), find_name("sketch")) == (
        *("DescribableTextures", "ImageNet", "ImageNetSketch"),
    )
    with pytest.raises(ValueError, match=r"no dataset is called 'oxfrod_pets' \(did you mean OxfordPets\?"):
        find_name("oxfrod_pets")


# check


def test_good_data_are_good(textures, capsys):
    status, output = run(capsys, "check", "dtd", "--images", "--root", textures)
    assert status == 0
    assert "6 / 3 / 3 training / validation / test images, 3 classes" in output and "good" in output


def test_absent_data_are_named_file_by_file(tmp_path, capsys):
    status, output = run(capsys, "check", "dtd", "--root", tmp_path)
    assert status == 1
    for name in ("images", SPLIT):
        assert f"{tmp_path}/dtd/{name}" in output
    assert f"remedy: python -m datasets prepare DescribableTextures --root {tmp_path}" in output


def test_a_published_split_that_is_absent_is_a_problem(textures, capsys):
    (textures / "dtd" / SPLIT).unlink()
    status, output = run(capsys, "check", "dtd", "--root", textures)
    assert status == 1
    assert f"{SPLIT} not found" in output and "the split is made from the original annotations" in output
    assert "images are here" not in output  # the sizes of another split say nothing


def test_other_sizes_and_classes_than_the_published_are_a_problem(textures, monkeypatch):
    monkeypatch.setattr(DTD, "expected", (2820, 1128, 1692))
    assert [problem.what for problem in check("DescribableTextures", textures).problems] == [
        "6 / 3 / 3 training / validation / test images are here, published: 2,820 / 1,128 / 1,692"
    ]
    monkeypatch.setattr(DTD, "expected_classes", 47)
    (problem,) = check("DescribableTextures", textures).problems
    assert "DescribableTextures has 3 classes here, published: 47" in problem.what


def test_every_missing_image_is_listed(textures, tmp_path, capsys):
    shutil.rmtree(textures / "dtd" / "images" / "braided")
    status, output = run(capsys, "check", "dtd", "--root", textures, "--json", tmp_path / "report.json")
    assert status == 1
    assert "4 of 12 images in the split do not exist" in output
    assert "remedy: python -m datasets prepare" in output
    (problem,) = json.loads((tmp_path / "report.json").read_text())[0]["problems"]
    assert sorted(Path(file).name for file in problem["files"]) == [f"braided_{i:04d}.jpg" for i in (1, 2, 3, 4)]


def test_images_that_cannot_be_read_are_named(textures, capsys):
    folder = textures / "dtd" / "images"
    (folder / "banded" / "banded_0001.jpg").write_text("no image")
    whole = save_picture(folder / "blotchy" / "blotchy_0002.jpg", size=(400, 300)).read_bytes()
    (folder / "blotchy" / "blotchy_0002.jpg").write_bytes(whole[: len(whole) // 2])
    assert run(capsys, "check", "dtd", "--root", textures)[0] == 0  # without --images nothing is opened
    status, output = run(capsys, "check", "dtd", "--images", "--root", textures)
    assert status == 1
    assert "2 of 12 images cannot be read" in output and "DATASET.ON_BAD_IMAGE skip" in output
    assert f"{folder}/banded/banded_0001.jpg: (8 bytes) cannot be read as an image: cannot identify" in output
    assert "cannot be read as an image: image file is truncated" in output


def test_photos_that_exif_turns_are_counted_in_own_data(tmp_path, capsys):
    exif = Image.Exif()
    for number in range(1, 9):
        exif[0x0112] = number
        for part in ("train", "test"):
            path = save_picture(tmp_path / part / "cat" / f"{number}.jpg", size=(40, 30))
            Image.open(path).save(path, exif=exif)
    status, output = run(capsys, "check", "ImageFolder", "--images", "--root", tmp_path)
    assert status == 0
    assert "14 images have an EXIF orientation" in output and "INPUT.EXIF_ORIENTATION True" in output


def test_draft_mode_finds_what_a_full_decode_finds(tmp_path):
    """Cut at any place, a JPEG is unreadable in both ways or in neither."""
    whole = save_picture(tmp_path / "a.jpg", size=(64, 48)).read_bytes()
    for size in range(0, len(whole) + 1, 97):
        (tmp_path / "cut.jpg").write_bytes(whole[:size])
        try:
            with Image.open(tmp_path / "cut.jpg") as image:
                image.convert("RGB")
            readable = True
        except OSError:
            readable = False
        assert (why_unreadable(str(tmp_path / "cut.jpg")) == "") == readable, size


def test_a_wrong_split_is_reported_like_training_would(textures, capsys):
    (textures / "dtd" / SPLIT).write_text("{")
    status, output = run(capsys, "check", "dtd", "--root", textures)
    assert status == 1 and f"{SPLIT} is not valid JSON" in output


# list


def test_the_list_says_what_is_ready_wrong_and_absent(textures, tmp_path, capsys):
    miniatures.eurosat(textures)
    status, output = run(capsys, "list", "--root", textures, "--json", tmp_path / "list.json")
    assert status == 0
    rows = {line.split()[0]: line.split() for line in output.splitlines() if line}
    assert rows["DescribableTextures"][1:7] == ["ready", "6", "3", "3", "3", "0.0"]
    assert rows["Emoji"][1:6] == ["ready", "640", "160", "946", "40"]
    assert rows["EuroSAT"][1:5] == ["wrong", "50", "of", "13,500"]
    assert rows["OxfordPets"][1:5] == ["absent", "0", "of", "2,944"]
    records = {entry["name"]: entry for entry in json.loads((tmp_path / "list.json").read_text())}
    assert set(records) == set(registered()) - {"ImageFolder", "SplitFile"}
    files = [path for path in (textures / "dtd").rglob("*") if path.is_file()]
    assert records["DescribableTextures"]["bytes"] == sum(path.stat().st_size for path in files)


# show


def test_show_prints_classes_prompts_and_counts_and_draws_a_sheet(textures, tmp_path, capsys):
    sheet, record = tmp_path / "sheet.png", tmp_path / "show.json"
    status, output = run(capsys, "show", "dtd", "--root", textures, "--sheet", sheet, "--json", record, "--rows", 2)
    assert status == 0
    assert "     2  braided" in output and "  banded texture." in output
    with Image.open(sheet) as image:
        assert image.size == (2 * 118 + 6, 2 * 136 + 6)  # two classes of two training images
        assert image.convert("L").getextrema()[0] < 50  # not blank
    assert json.loads(record.read_text()) == {
        "name": "DescribableTextures",
        "classes": ["banded", "blotchy", "braided"],
        "prompts": ["banded texture.", "blotchy texture.", "braided texture."],
        "parts": {
            part: {"images": 3 * n, "classes": 3, "images per class": {"min": n, "median": n, "max": n}}
            for part, n in (("train", 2), ("val", 1), ("test", 1))
        },
    }


def test_show_describes_what_a_run_would_see(textures):
    dataset = build("DescribableTextures", textures, num_shots=1, classes="new")
    found = describe(dataset)
    assert found["classes"] == ["braided"]
    assert {part: entry["images"] for part, entry in found["parts"].items()} == {"train": 1, "val": 1, "test": 1}


def test_own_pictures_are_shown_from_their_folder(tmp_path, capsys):
    miniatures.class_folders(tmp_path / "mine", ["red_car", "blue_car"])
    status, output = run(capsys, "show", "ImageFolder", "--root", tmp_path / "mine", "--sheet", tmp_path / "s.png")
    assert status == 0 and "a photo of a blue car." in output


def test_as_a_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "datasets", "check", "nothing", "--root", tmp_path],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: no dataset is called 'nothing'")


# The documentation


def documented_rows() -> dict[str, list[str]]:
    """The cells of the table's row of each dataset."""
    lines = (ROOT / "docs" / "DATASETS.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {row[0].split("`")[1]: row for row in rows}


def test_the_documentation_describes_every_published_dataset_as_the_code_has_it():
    rows = documented_rows()
    prepared = {name: dataset for name, dataset in registered().items() if getattr(dataset, "sources", ())}
    assert set(rows) == set(prepared)
    for name, dataset in prepared.items():
        title, command, tree, sizes, classes, files = rows[name]
        config = title.split("`")[3]
        assert f'NAME: "{name}"' in (ROOT / "configs" / "datasets" / f"{config}.yaml").read_text(encoding="utf-8")
        assert command.startswith(f"`python -m datasets prepare {name}")
        assert tree.startswith(f"`{dataset.dataset_dir}/{{")
        train, val, test = (f"{size:,}" for size in dataset.expected)
        assert sizes == (f"test {test}" if val == "0" else f"{train} / {val} / {test}")
        assert classes == f"{dataset.expected_classes:,}"
        wanted = [source.file for source in dataset.sources if not source.is_split]
        assert files == ", ".join(f"`{file}`" for file in wanted)
