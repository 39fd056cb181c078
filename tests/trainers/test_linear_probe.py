"""Linear probe: the golden search and fits, ties, two classes, a run on the demonstration."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.methods import METHODS
from experiments.protocols import Request, base2new_test, base2new_train, few_shot
from tests import golden
from tests.golden import assert_close
from tests.paths import needs_golden
from tests.trainers.test_base import make
from tests.trainers.test_methods import learned, vit_b16
from trainers.linear_probe import GRID, LinearProbe, regress, search
from trainers.on_features import Features

FILES = ["lpclip_k1", "lpclip_k4"]


def golden_trainer(file: str) -> tuple[LinearProbe, dict[str, torch.Tensor], dict[str, Any]]:
    """With the training and the validation images of a golden file, encoded here."""
    values, meta = golden.read(f"{file}.safetensors")
    trainer = golden.make_trainer({**meta, "trainer": "LinearProbe", "optim": {}})
    assert isinstance(trainer, LinearProbe)

    def features(part: str) -> Features:
        with torch.no_grad():
            encoded = trainer.model.encode_image(values[f"aux.{part}_image"].float())
        assert_close(encoded, values[f"aux.{part}_features"], f"features of {part}")
        return Features(encoded, values[f"aux.{part}_label"])

    trainer.support = lambda views=0: features("train")
    trainer.selection = lambda: features("val")
    return trainer, values, meta


@needs_golden
@pytest.mark.parametrize("file", FILES)
def test_the_search_and_its_result_equal_the_golden_ones(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every C that is tried, its accuracy, the final C, and the test accuracy of its classifier."""
    trainer, values, meta = golden_trainer(file)
    tried: list[tuple[float, float]] = []

    def observed(accuracy: Callable[[float], float]) -> float:
        return search(lambda C: tried.append((C, accuracy(C))) or tried[-1][1])

    monkeypatch.setattr("trainers.linear_probe.search", observed)
    trainer.fit()
    grid, steps = np.array(tried[: len(GRID)]), np.array(tried[len(GRID) :])
    assert grid[:, 0] == pytest.approx(values["aux.search_C"].numpy())
    assert grid[:, 1] == pytest.approx(values["aux.search_accuracy"].numpy())
    steps = steps.reshape(8, 2, 2)  # step, left or right, C or accuracy
    assert steps.transpose(0, 2, 1).reshape(8, 4) == pytest.approx(values["aux.binary"].numpy(), rel=1e-9)
    assert trainer.chosen() == {"C": pytest.approx(meta["final_C"], rel=1e-9)}
    with torch.no_grad():
        predicted = trainer.model(values["image"].float()).argmax(dim=-1)
    assert 100 * (predicted == values["label"]).double().mean().item() == pytest.approx(meta["test_accuracy"])


@needs_golden
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("file", FILES)
def test_converged_fits_equal_the_golden_ones(file: str, C: float) -> None:
    values, _ = golden.read(f"{file}.safetensors")
    features, labels = values["aux.train_features"].double().numpy(), values["aux.train_label"].numpy()
    weight, bias = map(torch.as_tensor, regress(features, labels, C, 7, tolerance=1e-10))
    assert_close(weight, values[f"fixed.{C:g}.weight"], "weight")
    assert_close(bias, values[f"fixed.{C:g}.bias"], "bias")


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        (lambda C: 0.5, 1e5),  # flat: a tenth of the first C of the grid
        (lambda C: float(C < 0.05), 1e-3),  # of 0.01, 0.0001 and 0.000001 the first; left of it as good
        (lambda C: C if C <= 1000 else 0, 1000),  # best of the grid 100, and right of it ever better
        (lambda C: -abs(math.log10(C) - 1.3), 10**1.3),  # a peak inside: eight halvings of two decades
    ],
)
def test_ties_go_to_the_first_of_the_grid_and_left(accuracy: Callable[[float], float], expected: float) -> None:
    assert search(accuracy) == pytest.approx(expected, rel=0.02)


def test_two_classes_have_the_solver_s_probabilities() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    labels = np.arange(12) % 2
    features = rng.standard_normal((12, 3)) + labels[:, None]
    weight, bias = regress(features, labels, 1.0, 2)
    logits = features @ weight.T + bias
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = LogisticRegression(C=1.0, max_iter=1000).fit(features, labels).predict_proba(features)
    assert weight.shape == (2, 3) and found == pytest.approx(expected)


def test_a_class_without_images_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"images of every class: there are some of 2 of 3"):
        regress(np.eye(2), np.array([0, 2]), 1.0, 3)


def test_learned_tensors() -> None:
    """K E + K: 513,000 on ImageNet with ViT-B/16."""
    model = golden.build("LinearProbe", [str(i) for i in range(1000)], vit_b16())
    assert learned(model) == {"probe.weight": 512_000, "probe.bias": 1000}


@pytest.mark.slow
def test_a_run_saves_one_checkpoint_that_other_classes_take_their_rows_of(tmp_path: Path) -> None:
    trainer = make(tmp_path, "LinearProbe", OPTIM__MAX_EPOCH=7)
    assert not type(trainer).needs_epochs() and trainer.max_epoch == 0
    trainer.train()
    file = tmp_path / "probe" / "model.pth.tar-0"
    saved = torch.load(file, weights_only=True)["state_dict"]
    assert saved.keys() == {"weight", "bias", "C"} and saved["weight"].dtype == torch.float32
    assert 1e-7 <= saved["C"] <= 1e7 and saved["weight"].abs().max() > 0
    names = list(trainer.dm.dataset.classnames)
    trainer.dm.dataset._classnames = [names[i] for i in (5, 2, 9)]
    found = trainer.read_weights(str(file))["state_dict"]
    assert torch.equal(found["weight"], saved["weight"][[5, 2, 9]]) and torch.equal(found["C"], saved["C"])


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_choice_on_the_test_images_is_noted(split: str, tmp_path: Path) -> None:
    trainer = make(tmp_path, "LinearProbe", TRAINER__LINEAR_PROBE__SELECT_ON=split)
    trainer.features_of = lambda items, views=0: torch.zeros(len(items), 1)
    assert len(trainer.selection().labels) == len(getattr(trainer.dm.dataset, split))
    assert any("chosen on the test images" in note for note in trainer.result_notes()) == (split == "test")


@pytest.mark.parametrize("name", ["linear_probe", "lpp", "clap"])
def test_new_classes_have_no_weights(name: str) -> None:
    request = Request(METHODS[name], "dtd", seed=1)
    for protocol in (base2new_train, base2new_test):
        with pytest.raises(
            ValueError, match=rf"{name} cannot run the protocol base2new: it learns weights for each class"
        ):
            protocol(request)
    assert few_shot(request).run.config == "vit_b16"
