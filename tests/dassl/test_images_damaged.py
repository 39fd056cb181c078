"""Damaged pictures: each gives an image or one ValueError that names the file, soon and in little memory."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.utils import read_image
from tests.dassl.damaged_images import originals
from tests.paths import ROOT

ORIGINALS = originals()


def campaign(count: int, seed: int) -> None:
    """Read `count` damaged pictures in a process of its own, which must print nothing but its result."""
    command = [sys.executable, "-m", "tests.dassl.damaged_images", str(count), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["image"] + found["error"] == count
    assert min(found["image"], found["error"]) > count / 5  # the damage is neither too small nor too large
    assert found["longest"] < 5  # seconds; about 0.1 on an idle machine


def test_some_hundred_damaged_pictures() -> None:
    campaign(600, seed=0)


@pytest.mark.slow
def test_thousands_of_damaged_pictures() -> None:
    campaign(4000, seed=1)


def read(folder, content: bytes) -> None:
    path = folder / "a.jpg"
    path.write_bytes(content)
    try:
        image = read_image(path, upright=True)
    except ValueError as error:
        assert str(error).startswith(str(path))
    else:
        assert image.mode == "RGB"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=400))
def test_any_bytes(folder, content) -> None:
    read(folder, content)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(ORIGINALS)),
    start=st.integers(0, 4000),
    length=st.integers(0, 40),
    replacement=st.binary(max_size=40),
)
def test_any_bytes_in_the_place_of_others(folder, name, start, length, replacement) -> None:
    content = ORIGINALS[name]
    start %= len(content)
    read(folder, content[:start] + replacement + content[start + length :])
