"""Names in any script on consoles that cannot show them, and names that would control a terminal."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dassl.utils.console import prepare_console, printable, utf8_text
from dassl.utils.logger import Logger
from tests.experiments.run_folders import put
from tests.paths import ROOT

NAMES = ["γάτα", "猫", "👩\u200d🚀", "כלב", "e\u0301clair", "up\u202eside"]
CONTROLS = {*map(chr, (*range(0x20), *range(0x7F, 0xA0))), "\u2028", "\u2029", "\u202e", "\u2066"}


def run(*words: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, env=env, capture_output=True, timeout=120)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("γάτα 猫 👩\u200d🚀 כלב e\u0301", "γάτα 猫 👩\u200d🚀 כלב e\u0301"),
        ("a\tb\nc\r", r"a\tb\nc\r"),
        ("\x1b[2J\x9b1m\x07", r"\x1b[2J\x9b1m\x07"),
        ("a\u202eb\u2028", r"a\u202eb\u2028"),
        ("\x00", r"\x00"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected


@given(st.text(), st.sampled_from(["", "\n", "\n\t"]))
def test_printable_leaves_no_controls(text: str, keep: str) -> None:
    shown = printable(text, keep)
    assert not CONTROLS - set(keep) & set(shown)
    assert [c for c in shown if c in keep] == [c for c in text if c in keep]


@given(st.binary(max_size=20), st.text(max_size=20))
def test_utf8_text_is_text_for_a_file_and_the_same_text_where_it_was_one(data: bytes, text: str) -> None:
    """A locale of ASCII gives a file name's other bytes as surrogates: they are read as UTF-8."""
    assert utf8_text(data.decode("ascii", "surrogateescape")) == data.decode("utf-8", "backslashreplace")
    assert utf8_text(text).encode("utf-8") == text.encode("utf-8", "backslashreplace")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_a_console_shows_what_it_can(monkeypatch, tmp_path, encoding: str) -> None:
    """What it cannot show, surrogates too, is escaped there; the log has it all, in UTF-8."""
    text = "café γάτα 猫 \udcff"
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", None)  # as without a console on Windows
    prepare_console()
    with Logger(tmp_path / "log.txt") as log:
        print(text, file=log, flush=True)
    assert shown.getvalue().decode(encoding) == text.encode(encoding, "backslashreplace").decode(encoding) + "\n"
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "café γάτα 猫 \\udcff\n"


def test_a_console_that_is_an_object_of_its_own_is_left_alone(monkeypatch) -> None:
    own = io.StringIO()
    monkeypatch.setattr(sys, "stdout", own)
    prepare_console()
    print("猫")
    assert own.getvalue() == "猫\n"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for number, path in enumerate(root / part / name / "é.png" for part in ("train", "test") for name in NAMES):
        path.parent.mkdir(parents=True)
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return root


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes, and locales")
def test_a_run_with_any_class_names_on_any_console(pictures: Path, tmp_path: Path) -> None:
    """The same numbers and files everywhere, no character that a console cannot show, and none that controls it."""
    ascii_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # for file names, too
    consoles = {"utf-8": {"PYTHONIOENCODING": "utf-8"}, "ascii": ascii_locale}
    configs = ROOT / "configs"
    command = ["train.py", "--trainer", "ZeroshotCLIP", "--root", pictures, "--eval-only"]
    command += ["--config-file", configs / "trainers/ZeroshotCLIP/vit_micro.yaml"]
    command += ["--dataset-config-file", configs / "datasets/image_folder.yaml"]
    options = ["DATALOADER.NUM_WORKERS", "0", "TEST.PREDICTIONS", "True", "TEST.COMPUTE_CMAT", "True"]
    tables = set()
    for name, environment in consoles.items():
        folder = tmp_path / name
        done = run(*command, "--output-dir", folder, *options, "TEST.PER_CLASS_RESULT", "True", **environment)
        assert done.returncode == 0, done.stderr
        shown = done.stdout.decode(name)
        log = (folder / "log.txt").read_text(encoding="utf-8")
        for text in (shown, log):
            assert not CONTROLS - {"\n", "\t"} & set(text)
            assert r"(up\u202eside)" in text
        assert "(γάτα)" in log and "(👩\u200d🚀)" in log and "(כלב)" in log
        assert ("(γάτα)" if name == "utf-8" else r"(\u03b3\u03ac\u03c4\u03b1)") in shown
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        assert sorted(row["classname"] for row in results["per_class"]) == sorted(NAMES)
        tables.add((folder / "predictions.csv").read_text(encoding="utf-8"))
        tables.add((folder / "cmat.csv").read_text(encoding="utf-8"))
    assert len(tables) == 2
    assert "test/γάτα/é.png,γάτα," in "".join(tables)


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "datasets", "show", "ImageFolder", "--rows", "1"),
        ("train.py", "--help"),
        ("scripts/results.py", "RUNS"),
        ("-m", "experiments", "--help"),
    ],
)
def test_other_commands_on_an_ascii_console(pictures: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    where = ("--root", pictures) if "datasets" in command else ()
    sheet = ("--sheet", tmp_path / "sheet.png") if "show" in command else ()
    for seed in (1, 2):
        put(tmp_path / "runs", f"dtd/MaPLe/vit_b16_16shots/seed{seed}", 50.0)
    command = tuple(str(tmp_path / "runs") if word == "RUNS" else word for word in command)
    done = run(*command, *where, *sheet, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert not CONTROLS - {"\n", "\t"} & set(done.stdout.decode("ascii"))
