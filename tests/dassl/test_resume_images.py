"""A run resumes on the images that it started with, wherever they are, and is refused on others."""

import random
import shutil
from pathlib import Path

import pytest
from PIL import Image

import datasets  # noqa: F401  (registers them)
from dassl.data import identity
from dassl.data.datasets import Datum
from dassl.data.identity import identify
from dassl.engine.resume import RESUME_FILE
from dassl.utils import load_checkpoint, set_random_seed
from tests.dassl.test_resume_data import PictureTrainer
from tests.dassl.tiny import Stop, stop_after_epoch, tiny_cfg
from train import default_cfg


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.frombytes("RGB", (8, 8), random.Random(seed).randbytes(192)).save(path)


@pytest.fixture
def images(tmp_path) -> Path:
    root = tmp_path / "images"
    for part, count in (("train", 6), ("val", 2), ("test", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                picture(root / part / name / f"{number}.png", number)
    return root


def start(folder: Path, root: Path, stop_after: int, *options: object) -> PictureTrainer:
    cfg = default_cfg()
    cfg.merge_from_other_cfg(tiny_cfg(folder, "OPTIM.MAX_EPOCH", 3, "DATALOADER.NUM_WORKERS", 0))
    cfg.DATASET.NAME = "ImageFolder"
    cfg.DATASET.ROOT = str(root)
    cfg.INPUT.SIZE = (8, 8)
    cfg.INPUT.TRANSFORMS = ("normalize",)
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 4
    cfg.merge_from_list(list(options))
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)
    trainer = PictureTrainer(cfg)
    stop_after_epoch(trainer, stop_after)
    with pytest.raises(Stop):
        trainer.train()
    return trainer


def added(root: Path) -> None:
    picture(root / "train" / "dog" / "6.png", 6)


def removed(root: Path) -> None:
    (root / "train" / "cat" / "5.png").unlink()


def replaced(root: Path) -> None:
    Image.new("RGB", (8, 8)).save(root / "train" / "cat" / "3.png")


def renamed(root: Path) -> None:
    (root / "train" / "cat" / "3.png").rename(root / "train" / "cat" / "9.png")


def swapped(root: Path) -> None:
    """Two images that have changed their classes, with as many images in each."""
    cat, dog = root / "train" / "cat", root / "train" / "dog"
    (cat / "0.png").rename(dog / "00.png")
    (dog / "0.png").rename(cat / "00.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (added, "12 images in train_x there, 13 now"),
        (removed, "12 images in train_x there, 11 now"),
        (replaced, "other images in train_x: their names, labels, order or file sizes differ"),
        (renamed, "other images in train_x"),
        (swapped, "other images in train_x"),
    ],
)
def test_other_training_images_are_refused(tmp_path, images, change, message) -> None:
    start(tmp_path / "run", images, 1)
    change(images)
    with pytest.raises(ValueError, match=rf"{RESUME_FILE} is the state of a run on other data: .*{message}.* Was DATA"):
        start(tmp_path / "run", images, 2)


def test_images_that_are_not_trained_on_may_change(tmp_path, images) -> None:
    start(tmp_path / "run", images, 1)
    picture(images / "test" / "cat" / "7.png", 7)
    picture(images / "val" / "cat" / "7.png", 7)
    assert start(tmp_path / "run", images, 2).start_epoch == 1


def test_validation_images_that_select_the_model_may_not(tmp_path, images) -> None:
    best = ("TEST.FINAL_MODEL", "best_val")
    start(tmp_path / "run", images, 1, *best)
    picture(images / "val" / "cat" / "7.png", 7)
    with pytest.raises(ValueError, match="4 images in val there, 5 now"):
        start(tmp_path / "run", images, 2, *best)


def test_a_copy_of_the_images_elsewhere_is_the_same(tmp_path, images) -> None:
    start(tmp_path / "run", images, 1)
    shutil.copytree(images, tmp_path / "another" / "place", copy_function=shutil.copyfile)  # with new times
    shutil.rmtree(images)
    assert start(tmp_path / "run", tmp_path / "another" / "place", 2).start_epoch == 1


def test_shots_drawn_without_a_seed(tmp_path, images) -> None:
    shots = ("SEED", -1, "DATASET.NUM_SHOTS", 2, "DATALOADER.TRAIN_X.BATCH_SIZE", 2)
    random.seed(1)
    start(tmp_path / "run", images, 1, *shots)
    random.seed(2)
    with pytest.raises(ValueError, match=r"other images in train_x: .* SEED is negative, so that every start draws"):
        start(tmp_path / "run", images, 2, *shots)
    random.seed(1)
    assert start(tmp_path / "run", images, 2, *shots).start_epoch == 1, "the same draw is the same run"


def test_the_images_are_looked_up_once_a_run(tmp_path, images, monkeypatch) -> None:
    looked_up = []
    size = identity._size
    monkeypatch.setattr(identity, "_size", lambda path: looked_up.append(path) or size(path))
    start(tmp_path / "run", images, 2)
    assert len(looked_up) == 12
    state = load_checkpoint(tmp_path / "run" / RESUME_FILE)
    assert state["data"]["images"]["train_x"]["images"] == 12


def test_an_identity_depends_on_paths_below_the_common_folder() -> None:
    def items(folder: str, *names: str, label: int = 0) -> list[Datum]:
        return [Datum(f"{folder}/{name}", label) for name in names]

    first = identify(items("/data/a", "x/1.jpg", "x-y/2.jpg"))
    assert first == identify(items("/elsewhere", "x/1.jpg", "x-y/2.jpg"))
    assert first != identify(items("/data/a", "x-y/2.jpg", "x/1.jpg")), "samplers draw by position"
    assert first != identify(items("/data/a", "x/1.jpg", "x-y/2.jpg", label=1))
    assert first != identify(items("/data/a", "x/1.jpg"))
    assert identify([]) == {"images": 0, "digest": identify([])["digest"]}
    assert identify(items("/a", "\udcff.jpg", "b\0.jpg"))["images"] == 2
