"""Predictions equal the test of the run itself, image by image, for every method of the tables and any classes."""

import csv
from pathlib import Path

import pytest
import torch

import inference
from experiments.methods import METHODS
from inference import Classifier
from tests.trainers.test_every_method import make
from trainers.base import ClipTrainer

# One validation image of each class instead of the whole test set
SETTINGS = {"TEST__NO_TEST": False, "TEST__SPLIT": "val", "TEST__PREDICTIONS": True}
SETTINGS |= {"DATALOADER__TRAIN_X__BATCH_SIZE": 20}  # all images in one step


def make_run(name: str, folder: Path, classes: str = "base", **settings: object) -> ClipTrainer:
    return make(name, folder, classes=classes, epochs=1, **{**SETTINGS, **settings})


def check_predictions(classifier: Classifier, run: Path, root: str) -> None:
    """Compare with predictions.csv of a run: the five best classes of every image, and their probabilities."""
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 15
    found = classifier.predict([f"{root}/{row['image']}" for row in rows])
    for row, best in zip(rows, found, strict=True):
        assert [one.classname for one in best] == [row[f"top{i}_class"] for i in range(1, 6)], row["image"]
        scores = [float(row[f"top{i}_score"]) for i in range(1, 6)]
        assert [one.score for one in best] == pytest.approx(scores, rel=1e-5), row["image"]


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_the_run_s_own_test_and_the_one_of_new_classes(name: str, tmp_path: Path) -> None:
    base = make_run(name, tmp_path / "base")
    base.train()
    state = torch.get_rng_state()
    classifier = inference.load(tmp_path / "base", device="cpu")
    assert torch.equal(torch.get_rng_state(), state), "draws random numbers"
    assert classifier.classnames == base.dm.dataset.classnames
    check_predictions(classifier, tmp_path / "base", base.dm.dataset.dataset_dir)

    if "base2new" in METHODS[name].undefined:  # it has learned something for each class
        with pytest.raises(ValueError, match="other class names need a method whose prompts"):
            classifier.with_classes(["cat", "dog"])
    else:
        new = make_run(name, tmp_path / "new", "new")
        new.load_model(str(tmp_path / "base"))
        new.final_test()
        other = classifier.with_classes(new.dm.dataset.classnames)
        check_predictions(other, tmp_path / "new", new.dm.dataset.dataset_dir)
    check_predictions(classifier, tmp_path / "base", base.dm.dataset.dataset_dir)  # it has not changed
