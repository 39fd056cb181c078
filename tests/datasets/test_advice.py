"""The commands that messages about datasets suggest: `python -m datasets` takes them as they are printed."""

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from yacs.config import CfgNode

from dassl.config import get_cfg_default
from dassl.data.data_manager import DatasetWrapper
from dassl.data.datasets import DATASET_REGISTRY, Datum
from datasets.__main__ import main, parse_args
from datasets.tool.build import build, find_name
from tests.datasets import miniatures
from tests.paths import ROOT


@pytest.fixture(autouse=True)
def _miniature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATASET_REGISTRY.get("DescribableTextures"), "expected_classes", None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "all 'my' data; $HOME"
    folder.mkdir()
    return folder


def absent(root: Path) -> None:
    build("EuroSAT", root)


def without_published_split(root: Path) -> None:
    miniatures.dtd(root)
    _, notes = build("DescribableTextures", root)
    print(*notes, sep="\n")


def missing_files(root: Path) -> None:
    miniatures.dtd(root)
    split = '{"train": [["banded/none.jpg", 0, "banded"]], "val": [], "test": [["banded/none.jpg", 0, "banded"]]}'
    (root / "dtd" / "split_zhou_DescribableTextures.json").write_text(split, encoding="utf-8")
    build("DescribableTextures", root)


def absent_in_check(root: Path) -> None:
    main(["check", "OxfordPets", "--root", str(root)])


def listed(root: Path) -> None:
    main(["list", "--root", str(root)])


def damaged_image(root: Path) -> None:
    (root / "0.jpg").write_bytes(b"no image")
    cfg: CfgNode = get_cfg_default()
    cfg.DATASET.NAME, cfg.DATASET.ROOT = "ImageFolder", str(root)
    DatasetWrapper(cfg, [Datum(str(root / "0.jpg"), 0, classname="a")])[0]


@pytest.mark.parametrize(
    ("situation", "verbs"),
    [
        (absent, {"prepare"}),
        (without_published_split, {"prepare", "check"}),
        (missing_files, {"prepare"}),
        (absent_in_check, {"prepare"}),
        (listed, {"check", "prepare"}),
        (damaged_image, {"check"}),
    ],
)
def test_suggested_commands_are_understood_and_name_the_folder(
    root: Path, capsys: pytest.CaptureFixture[str], situation: Callable[[Path], None], verbs: set[str]
) -> None:
    message = ""
    try:
        situation(root)
    except (OSError, ValueError) as error:
        message = str(error)
    found = set()
    for command in (message + "\n" + capsys.readouterr().out).split("python -m datasets ")[1:]:
        ends_with_root = command[: command.index(shlex.quote(str(root))) + len(shlex.quote(str(root)))]
        args = parse_args(shlex.split(ends_with_root))
        assert args.root == root
        assert args.names == ["NAME"] or find_name(args.names[0]) == args.names[0]
        found.add(args.command)
    assert found == verbs


def test_a_suggested_check_runs_in_the_shell(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without_published_split(root)
    command = capsys.readouterr().out.partition("See ")[2].splitlines()[0].replace("python", sys.executable, 1)
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "3 classes here, published: 47" in done.stdout, done.stderr
