"""LP++: golden values, the support set's rates, selection by validation, resume, exact counts, classes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dassl.utils import set_random_seed
from tests import golden
from tests.dassl.tiny import Stop, stop_after_epoch
from tests.golden import assert_close
from tests.paths import needs_golden
from tests.trainers.test_base import make
from tests.trainers.test_methods import NAMES, learned, vit_b16
from trainers.lpp import LPpp, Rates
from trainers.on_features import Features

FILES = {"lpp_k2": "OxfordPets", "lpp_k4_imagenet": "ImageNet"}


def golden_trainer(file: str) -> tuple[LPpp, dict[str, torch.Tensor], dict[str, Any]]:
    """With the support set and the validation images of a golden file, and its initial values."""
    values, meta = golden.read(f"{file}.safetensors")
    optim = {"name": "sgd", "lr": 1.0, "momentum": 0.9, "weight_decay": 0.0, "max_epoch": meta["steps_long"]}
    trainer = golden.make_trainer({**meta, "trainer": "LPpp", "optim": optim}, FILES[file])
    assert isinstance(trainer, LPpp)
    with torch.no_grad():
        support = trainer.model.encode_image(values["aux.support_image"].float())
        held_out = trainer.model.encode_image(values["aux.val_image"].float())
    trainer.support = lambda views=0: Features(support[None], values["aux.support_label"])
    trainer.selection = lambda: Features(held_out, values["aux.val_label"])
    trainer.fit()
    with torch.no_grad():
        trainer.model.probe.bias.copy_(values["param0.bias"])
    return trainer, values, meta


def probe(trainer: LPpp) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.probe.named_parameters()}


@needs_golden
@pytest.mark.parametrize("file", FILES)
def test_epochs_equal_the_golden_ones(file: str) -> None:
    """Initial values, rates, 24 losses, the summed gradients of alpha, what is learned after 0, 3, 10 and 24 epochs."""
    trainer, values, meta = golden_trainer(file)
    model = trainer.model
    assert_close(model.text_features(), values["aux.clip_weights"].t())
    assert (trainer.lr_weight, trainer.lr_alpha) == pytest.approx((meta["lr_w"], meta["lr_alpha"]), rel=1e-5)
    assert model.probe.alpha_vec[0, 0].item() == pytest.approx(meta["init_alpha"], rel=1e-5)
    losses = []
    for trainer.epoch in range(meta["steps_long"]):
        if f"logits{trainer.epoch}" in values:
            check(trainer, values, trainer.epoch)
        before = probe(trainer)
        (batch,) = trainer.feature_batches()
        _, terms = trainer.losses(batch.features, batch.labels)
        losses.append(trainer.update(terms).detach())
        if trainer.epoch == 0:
            for name in ("weight", "bias"):
                step = (before[name] - probe(trainer)[name]) / meta["lr_w"]
                assert_close(step, values[f"grad0.{name}"], name)
        assert_close(trainer.alpha_grad[0], values["aux.alpha_grad_sum"][trainer.epoch], "alpha's gradients")
    assert_close(torch.stack(losses), values["losses"], "losses")
    check(trainer, values, meta["steps_long"])


def check(trainer: LPpp, values: dict[str, torch.Tensor], epoch: int) -> None:
    with torch.no_grad():
        assert_close(trainer.model(values["image"]), values[f"logits{epoch}"], f"logits after {epoch} epochs")
    for name, value in probe(trainer).items():
        assert_close(value, values[f"param{epoch}.{name}"], f"{name} after {epoch} epochs")


@needs_golden
@pytest.mark.parametrize("file", FILES)
def test_the_last_of_the_best_epochs_is_kept(file: str) -> None:
    trainer, values, _ = golden_trainer(file)
    trainer.output_dir = ""
    for epoch in range(trainer.max_epoch):
        trainer.epoch = epoch
        (batch,) = trainer.feature_batches()
        trainer.update(trainer.losses(batch.features, batch.labels)[1])
        after = probe(trainer)
        trainer.after_epoch()
        accuracy = values["aux.val_accuracy"][: trainer.epoch + 1]
        best = int(len(accuracy) - 1 - accuracy.flip(0).argmax())  # the last maximum
        assert trainer.best_epoch == best + 1
        assert trainer.best_accuracy == pytest.approx(accuracy[best].item(), rel=1e-6)
        if best == trainer.epoch:
            expected = after
    assert all(torch.equal(value, expected[name]) for name, value in probe(trainer).items())


def test_rates_of_a_support_set_with_unequal_classes() -> None:
    """By hand: two images of class 0, one of class 1, none of class 2, in a plane.

    Similarities (1, 0, .6), (.8, .6, .96), (0, 1, .8); FᵀF = [[1.64, .48], [.48, 1.36]] with λ = 1.5 + .5 = 2.
    """
    features = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    rates = Rates(features, torch.tensor([0, 0, 1]), texts)
    torch.testing.assert_close(rates.weight, torch.tensor([[1.8, 0.6], [0.0, 1.0], [0.0, 0.0]]))
    assert rates.alpha == pytest.approx(250 * (0.9 + 1.0) / 2)
    assert rates.lr_weight == pytest.approx(4 * 3 / 2)
    assert rates.lr_alpha == pytest.approx(3 / (4 * (0.6**2 + 0.96**2 + 0.8**2)))


def test_learned_tensors() -> None:
    """(E + 2) K: 514,000 on ImageNet with ViT-B/16."""
    assert learned(golden.build("LPpp", [str(i) for i in range(1000)], vit_b16())) == {
        "probe.weight": 512_000,
        "probe.bias": 1000,
        "probe.alpha_vec": 1000,
    }
    torch.manual_seed(0)
    bias = golden.build("LPpp", NAMES * 100, vit_b16()).probe.bias.detach()
    bound = 512**-0.5
    assert -bound <= bias.min() < -0.9 * bound and 0.9 * bound < bias.max() <= bound


def trained(folder: Path, stop: int = 0, **options: object) -> LPpp:
    """On the demonstration; with `stop`, only so many epochs of the run."""
    set_random_seed(1)
    trainer = make(folder, "LPpp", OPTIM__MAX_EPOCH=12, **options)
    if stop:
        stop_after_epoch(trainer, stop)
        with pytest.raises(Stop):
            trainer.train()
    else:
        trainer.train()
    assert isinstance(trainer, LPpp)
    return trainer


@pytest.mark.slow
def test_a_run_that_is_resumed_before_and_after_a_step_of_alpha_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    for stop in (9, 11):
        trained(tmp_path / "resumed", stop)
    resumed = trained(tmp_path / "resumed")
    assert resumed.start_epoch == 11
    for name in ("best_epoch", "best_accuracy", "lr_weight", "lr_alpha"):
        assert getattr(resumed, name) == getattr(whole, name) != 0, name
    assert torch.equal(resumed.alpha_grad, whole.alpha_grad)
    assert all(torch.equal(value, probe(whole)[name]) for name, value in probe(resumed).items())
    saved = torch.load(tmp_path / "whole" / "probe" / "model.pth.tar-12", weights_only=True)["state_dict"]
    assert saved.keys() == {"weight", "bias", "alpha_vec"}
    assert all(torch.equal(saved[name], whole.best[name]) for name in saved)


@pytest.mark.slow
def test_other_classes_take_their_rows_and_columns(tmp_path: Path) -> None:
    trainer = trained(tmp_path)
    names, own = list(trainer.dm.dataset.classnames), probe(trainer)
    trainer.dm.dataset._classnames = [names[i] for i in (5, 2, 9)]
    found = trainer.read_weights(str(tmp_path / "probe" / "model.pth.tar-12"))["state_dict"]
    assert torch.equal(found["weight"], own["weight"][[5, 2, 9]])
    assert torch.equal(found["bias"], own["bias"][[5, 2, 9]])
    assert torch.equal(found["alpha_vec"], own["alpha_vec"][:, [5, 2, 9]])
