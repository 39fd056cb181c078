"""The benchmark of loading: its pictures, draft decoding, and what it writes. No speed is asserted."""

import json

import numpy as np
import pytest
import torchvision.transforms as T

from benchmarks import draft, loading
from benchmarks.pictures import picture, save_class_folders

CROP = T.RandomResizedCrop((12, 12), scale=(0.9, 1.0), interpolation=T.InterpolationMode.BICUBIC)
TEST = T.Compose([T.Resize(12, T.InterpolationMode.BICUBIC), T.CenterCrop(12)])


def test_pictures_are_the_same_every_time():
    first, again, other = (np.asarray(picture(40, 30, seed)) for seed in (1, 1, 2))
    assert first.shape == (30, 40, 3)
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_images_beyond_the_different_ones_are_links(tmp_path):
    paths = save_class_folders(tmp_path, 5, (16, 12), classes=2, distinct=2)
    assert [path.relative_to(tmp_path).as_posix() for path in paths[:2]] == [
        "train/class_0/00000.jpg",
        "train/class_1/00001.jpg",
    ]
    first, second, third = (path.read_bytes() for path in paths[:3])
    assert first == third != second
    assert {path.name for path in tmp_path.iterdir()} == {"train", "test"}


def test_a_draft_is_the_smallest_scale_that_is_not_below_what_is_needed(tmp_path):
    [path] = save_class_folders(tmp_path, 1, (96, 64))
    needed = {None: (96, 64), (48, 32): (48, 32), (49, 32): (96, 64), (20, 16): (24, 16), (1, 1): (12, 8)}
    assert {size: draft.decode(path, size).size for size in needed} == needed


@pytest.mark.parametrize("plan", [draft.train_plan(CROP), draft.test_plan(TEST, 12)], ids=["train", "test"])
def test_draft_differences_are_of_the_images_that_it_makes_smaller(tmp_path, plan):
    """96 × 64 is halved or quartered for 12 × 12, and changes; 16 × 16 cannot be halved."""
    large = draft.measure(save_class_folders(tmp_path / "large", 3, (96, 64)), plan)
    assert large["images"] == large["made_smaller"] == 3
    assert 0 < large["mean_difference"] < large["largest_difference"] <= 255
    small = draft.measure(save_class_folders(tmp_path / "small", 3, (16, 16)), plan)
    assert small["made_smaller"] == 0
    assert small["mean_difference"] is small["largest_difference"] is None


def test_loading_writes_what_it_promises(tmp_path, capsys):
    path = tmp_path / "loading.json"
    loading.main(["--images", "9", "--size", "64x48", "--repeats", "1", "--json", str(path)])
    assert list(tmp_path.iterdir()) == [path]
    result = json.loads(path.read_text())
    out = capsys.readouterr().out
    kinds = ("train", "train, cached", "test")
    assert set(result["loading"]) == {f"{kind}, {workers} workers" for kind in kinds for workers in (0, 2)}
    for name, measured in result["loading"].items():
        assert measured["images"] == (9 if name.startswith("test") else 8)  # training: two whole batches of four
        assert {"first_pass_per_second", "per_second", "seconds", "peak_bytes"} <= set(measured)
        assert f"{name}  " in out
    for transform in ("train", "test"):
        assert list(result["stages_ms"][transform]) == ["decode", "crop and resize", "tensor and normalize"]
    sizes = ["64x48", "64x48", "128x96", "128x96"]
    assert [d["size"] for d in result["draft"]] == sizes
    assert [d["transform"] for d in result["draft"]] == ["train", "test"] * 2
    assert result["settings"]["images"] == 9 and result["threads"] == 1
    assert {"device", "torch", "pillow", "libjpeg_turbo", "bytes_per_image"} <= set(result)


def test_a_size_that_is_none(capsys):
    with pytest.raises(SystemExit):
        loading.main(["--size", "500"])
    assert "is '500', expected WIDTHxHEIGHT such as 500x375" in capsys.readouterr().err
