"""`python -m inference predict`: pictures in, classes out; what cannot be read is named and skipped."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import inference
from inference.__main__ import main
from tests.inference.conftest import Made
from tests.paths import ROOT

BIRD = ROOT / "datasets/emoji_data/images/bird"
BIRDS = [str(path) for path in sorted(BIRD.glob("*.webp"))]
Captured = pytest.CaptureFixture[str]


def as_json(capsys: Captured, *arguments: object, status: int = 0) -> dict:
    assert main(["predict", *map(str, arguments), "--format", "json"]) == status
    return json.loads(capsys.readouterr().out)


def images(found: dict) -> list[str]:
    return [row["image"] for row in found["pictures"]]


def test_the_three_formats_say_the_same(made: Made, capsys: Captured) -> None:
    expected = inference.load(made()).predict(BIRDS[:2], top_k=3)
    capsys.readouterr()
    found = as_json(capsys, made(), *BIRDS[:2], "--top-k", 3)
    assert images(found) == BIRDS[:2] and found["skipped"] == []
    assert [[(one["classname"], one["score"]) for one in row["predictions"]] for row in found["pictures"]] == [
        [tuple(one) for one in best] for best in expected
    ]

    assert main(["predict", str(made()), *BIRDS[:2], "--top-k", "3", "--format", "csv"]) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["image", *(f"top{i}_{what}" for i in (1, 2, 3) for what in ("class", "score"))]
    words = [word for best in expected for one in best for word in (one.classname, f"{one.score:.6g}")]
    assert [row[0] for row in rows] == BIRDS[:2] and [word for row in rows for word in row[1:]] == words

    assert main(["predict", str(made()), *BIRDS[:2], "--top-k", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[2].startswith(BIRDS[0])
    assert expected[0][0].classname in lines[2] and f"{100 * expected[0][0].score:.2f} %" in lines[2]


def test_folders_patterns_and_a_list(
    made: Made, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b/.hidden").mkdir(parents=True)
    for name in ("b/2.webp", "b/.hidden/3.webp", "1.webp", "Thumbs.db", "notes.txt"):
        (tmp_path / name).write_bytes(Path(BIRDS[0]).read_bytes())
    one, two = str(tmp_path / "1.webp"), str(tmp_path / "b/2.webp")
    assert images(as_json(capsys, made(), tmp_path)) == [one, two]
    assert images(as_json(capsys, made(), two, tmp_path / "*.webp")) == [two, one]
    assert images(as_json(capsys, made(), tmp_path / "**/*.webp")) == [one, two]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{two}\n\n{one}\r\n".encode())))
    assert images(as_json(capsys, made(), "-")) == [two, one]


def test_other_class_names(made: Made, tmp_path: Path, capsys: Captured) -> None:
    expected = inference.load(made()).with_classes(["guinea pig", "bird"]).predict(BIRDS[:1])[0]
    file = tmp_path / "names.txt"
    file.write_text("guinea pig\n\n bird\n", encoding="utf-8")
    capsys.readouterr()
    for given in (["guinea pig", "bird"], [file]):
        found = as_json(capsys, made(), BIRDS[0], "--classes", *given)["pictures"][0]["predictions"]
        assert [tuple(one.values()) for one in found] == [tuple(one) for one in expected]
    for content, message in ((b"\n \n", "is empty"), (b"\xff\xfe", "is not UTF-8 text"), (b"x" * 2**25, "larger than")):
        file.write_bytes(content)
        assert main(["predict", str(made()), BIRDS[0], "--classes", str(file)]) == 2
        assert message in capsys.readouterr().err


def test_broken_pictures_are_named_and_skipped(made: Made, tmp_path: Path, capsys: Captured) -> None:
    broken, missing = tmp_path / "broken.jpg", tmp_path / "missing.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    missing.symlink_to("nowhere")
    expected = images(as_json(capsys, made(), *BIRDS[:2]))
    for options in ([], ["--batch", 1], ["--batch", 2, "--workers", 2]):
        arguments = ["predict", made(), broken, *BIRDS[:2], tmp_path, "--format", "json", *options]
        assert main([str(word) for word in arguments]) == 1
        out, err = capsys.readouterr()
        found = json.loads(out)
        assert images(found) == expected
        assert {row["image"] for row in found["skipped"]} == {str(broken), str(missing)}
        assert f"skipped: {broken} (13 bytes) cannot be read as an image" in err
        assert f"skipped: No image at {missing} (a link to nowhere, which does not exist)" in err


def test_nothing_is_half_written(made: Made, tmp_path: Path, capsys: Captured) -> None:
    output = tmp_path / "found.csv"
    output.write_text("former")
    assert main(["predict", str(made()), BIRDS[0], "absent.jpg", "--output", str(output)]) == 2
    assert "no file, folder or pattern that matches: absent.jpg" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(made()), str(tmp_path / "empty"), "--output", str(output)]) == 2
    assert "no pictures in" in capsys.readouterr().err
    assert output.read_text() == "former"
    assert main(["predict", str(made()), *BIRDS[:3], "--output", str(output)]) == 0
    out, err = capsys.readouterr()
    assert out == "" and f"written: {output}" in err
    assert output.read_text().startswith("image,top1_class,top1_score")  # by its suffix
    assert main(["predict", str(made()), BIRDS[0], "--output", str(output / "found.csv")]) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--top-k", "0"], ["--workers", "-1"], ["--epoch", "x"], ["--format", "xml"]])
def test_arguments_that_cannot_be_used(arguments: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "run", "image", *arguments])
    assert arguments[0] in capsys.readouterr().err


def test_as_a_program(made: Made, tmp_path: Path) -> None:
    """stdout has the result alone, also where a setting of the run is announced while it is loaded."""
    command = [sys.executable, "-m", "inference", "predict", str(made()), "-", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, input=f"{BIRDS[0]}\n", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert images(json.loads(done.stdout)) == BIRDS[:1]
