"""The embedded dataset: what is committed is what its rules say."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import datasets.emoji
from dassl.config import get_cfg_default
from tests.paths import ROOT

DATA = ROOT / "datasets" / "emoji_data"
PACKAGES = ROOT / "build" / "emoji"
BYTES = 10_000_000  # pictures and weights together


def read_split() -> dict[str, list[tuple[str, int, str]]]:
    return json.loads((DATA / "split.json").read_text(encoding="utf-8"))


def emoji_of(path: str) -> str:
    """The code points in "fruit/1f34e_0.webp"."""
    return Path(path).stem.split("_")[0]


def build(**options: object) -> datasets.emoji.Emoji:
    cfg = get_cfg_default()
    cfg.merge_from_list([v for key, value in options.items() for v in (f"DATASET.{key}", value)])
    cfg.SEED = 1
    return datasets.emoji.Emoji(cfg)


def test_split_counts():
    """40 classes × 8 and × 2 emoji in two scenes; of 473 others, 6 to 14 per class, also two scenes each."""
    split = read_split()
    assert {part: len(items) for part, items in split.items()} == {"train": 640, "val": 160, "test": 946}
    for part, shots in (("train", 16), ("val", 4)):
        assert set(Counter(label for _, label, _ in split[part]).values()) == {shots}
    assert min(Counter(label for _, label, _ in split["test"]).values()) == 2 * (16 - 10)
    assert max(Counter(label for _, label, _ in split["test"]).values()) == 2 * (24 - 10)


def test_no_emoji_is_trained_on_and_tested():
    parts = defaultdict(set)
    for part, items in read_split().items():
        for path, _, _ in items:
            parts[emoji_of(path)].add(part)
    assert all(len(found) == 1 for found in parts.values())


def test_class_names_are_readable_and_in_label_order():
    names = sorted({(label, name) for items in read_split().values() for _, label, name in items})
    assert [label for label, _ in names] == list(range(40))
    assert [name for _, name in names] == sorted(name for _, name in names)
    assert all(re.fullmatch(r"[a-z]+( [a-z]+)*", name) for _, name in names)


def test_pictures_decode_and_none_is_left_over():
    listed = {path for items in read_split().values() for path, _, _ in items}
    assert listed == {p.relative_to(DATA / "images").as_posix() for p in (DATA / "images").rglob("*.*")}
    for path in listed:
        with Image.open(DATA / "images" / path) as image:
            image.load()
            assert (image.mode, image.size) == ("RGB", (64, 64)), path


@pytest.mark.parametrize(("subsample", "first", "test"), [("all", "arrow", 946), ("base", "arrow", 470)])
def test_registered_dataset(subsample, first, test):
    dataset = build(NUM_SHOTS=16, SUBSAMPLE_CLASSES=subsample)
    assert dataset.template == "a photo of a {}."
    assert (dataset.classnames[0], len(dataset.test)) == (first, test)
    assert len(dataset.train_x) == 16 * dataset.num_classes


def test_base_and_new_are_the_two_halves():
    base, new = (build(NUM_SHOTS=4, SUBSAMPLE_CLASSES=half) for half in ("base", "new"))
    assert base.num_classes == new.num_classes == 20
    assert base.classnames + new.classnames == build().classnames
    assert len(base.train_x) == 80 and {d.label for d in new.test} == set(range(20))


def test_data_and_weights_stay_small_and_carry_their_licences():
    files = [p for p in DATA.rglob("*") if p.is_file()] + [ROOT / "clip" / "ViT-Micro-8.pt"]
    assert sum(p.stat().st_size for p in files) < BYTES
    assert "Microsoft" in (DATA / "LICENSE").read_text(encoding="utf-8")
    card = (ROOT / "clip" / "ViT-Micro-8.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in card and "CC-BY-4.0" in card and "not CLIP" in card


@pytest.mark.parametrize("script", ["make_dataset", "pretrain"])
def test_scripts_start_as_documented(script):
    """From a clone, without any installation of the project."""
    subprocess.run(
        [sys.executable, "-m", f"scripts.demo.{script}", "--help"], check=True, capture_output=True, cwd=ROOT
    )


@pytest.mark.skipif(
    not PACKAGES.is_dir(),
    reason=f"needs the npm packages in {PACKAGES} (python -m scripts.demo.make_dataset downloads them)",
)
def test_script_makes_the_committed_data(tmp_path):
    """The same split and the same pictures; encoders of other versions may differ by a little."""
    command = [sys.executable, "-m", "scripts.demo.make_dataset", "--packages", PACKAGES, "--out", tmp_path]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd=ROOT)
    assert (tmp_path / "split.json").read_bytes() == (DATA / "split.json").read_bytes()
    for path in sorted((DATA / "images").rglob("*.webp"))[::10]:
        made, committed = (np.asarray(Image.open(f), dtype=float) for f in (tmp_path / path.relative_to(DATA), path))
        assert np.abs(made - committed).mean() < 2, path
    shutil.rmtree(tmp_path / "images")
