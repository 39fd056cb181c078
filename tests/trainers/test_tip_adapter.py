"""Tip-Adapter and Tip-Adapter-F against the values of an independent implementation, and their choices."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import trainers.tip_adapter
from dassl.engine import build_trainer
from tests.golden import assert_close, check_three_steps, make_trainer, read, trainer_options
from tests.paths import needs_golden
from tests.trainers.test_methods import small_clip
from tests.trainers.test_on_features import untrained
from trainers.on_features import Features
from trainers.prompted_clip import unit
from trainers.tip_adapter import Cache, TipAdapter, grid, search

GOLDEN = ["tipadapter_k2_views2", "tipadapter_k3_imagenet"]


def golden_trainer(name: str, trainer: str):
    """The trainer with the file's cache, at its initial alpha and beta."""
    values, meta = read(f"{name}.safetensors")
    on_imagenet = len(meta["templates"]) == 7
    dataset = "ImageNet" if on_imagenet else "OxfordPets"
    made = make_trainer(meta | {"trainer": trainer}, dataset, {"OPTIM.WARMUP_EPOCH": 0})
    images = values["aux.support_image"].float()  # (V, N, 3, H, W)
    with torch.no_grad():
        views = torch.stack([made.model.encode_image(view) for view in images])  # (V, N, E)
        made.fill_cache(views, values["aux.support_label"])
    made.model.cache.set_weights(meta["init_beta"], meta["init_alpha"])
    return made, values, meta


def held_out(trainer, values) -> Features:
    with torch.no_grad():
        return Features(trainer.model.encode_image(values["aux.val_image"].float()), values["aux.val_label"])


def check_search(trainer, values, meta, suffix: str = "") -> None:
    """Every cell of the grid, the cell that is chosen, and the logits with it."""
    images, (scale, steps) = held_out(trainer, values), (meta["search_scale"], meta["search_step"])
    total = len(images.labels)
    correct = trainer.model.count_correct(images, grid(scale[0], steps[0]), grid(scale[1], steps[1]))
    assert torch.equal(correct, (values[f"aux.search_accuracy{suffix}"] * total / 100).round().long())
    expected = {key: meta["search"][f"best_{key}{suffix}"] for key in ("beta", "alpha", "accuracy")}
    assert search(trainer.model, images, scale, steps) == round(expected["accuracy"] * total / 100)
    assert trainer.chosen() == pytest.approx({key: expected[key] for key in ("beta", "alpha")}, rel=1e-6)


@needs_golden
@pytest.mark.parametrize("name", GOLDEN)
def test_cache_and_search(name: str) -> None:
    trainer, values, meta = golden_trainer(name, "TipAdapter")
    model, cache = trainer.model, trainer.model.cache
    assert not list(filter(lambda p: p.requires_grad, model.parameters())) and trainer.max_epoch == 0
    assert set(cache.state_dict()) == {"weight", "values", "alpha", "beta"}
    assert_close(cache.weight.t(), values["aux.cache_keys"], "keys")
    assert torch.equal(cache.values, values["aux.cache_values"])
    with torch.no_grad():
        assert_close(model.text_features().t(), values["aux.clip_weights"], "text")
        assert_close(model.image_features(values["image"]), values["aux.image_features"], "image")
        assert_close(unit(held_out(trainer, values).features), values["aux.val_features"], "validation images")
        assert_close(model(values["image"]), values["logits0"], "logits0")
        check_search(trainer, values, meta)
        assert_close(model(values["image"]), values["aux.logits_best"], "logits at the searched values")


@needs_golden
@pytest.mark.parametrize("name", GOLDEN)
def test_training_of_the_keys(name: str) -> None:
    trainer, values, meta = golden_trainer(name, "TipAdapterF")
    assert trainer.optim.defaults.items() >= {"lr": 1e-3, "eps": 1e-4, "weight_decay": 0.01}.items()
    losses = trainer.losses
    trainer.losses = lambda image, label: losses(trainer.model.encode_image(image), label)
    named = {key.replace(".weight", ".cache.weight"): value for key, value in values.items()}
    check_three_steps(trainer, named, meta)
    check_search(trainer, values, meta, "_F")
    with torch.no_grad():
        assert_close(trainer.model(values["image"]), values["aux.logits3_best"], "logits at the searched values")


def test_learned_tensors() -> None:
    """A key for each of 16 images of 1,000 classes: 8,192,000 numbers with ViT-B/16, 16,384,000 with RN50."""
    for width, count in ((512, 8_192_000), (1024, 16_384_000)):
        with torch.device("meta"):
            cache = Cache(16_000, width, 1_000, learned=True)
        assert {name: p.numel() for name, p in cache.named_parameters()} == {"weight": count}
        with torch.device("meta"):
            assert not list(Cache(16_000, width, 1_000, learned=False).parameters())


def test_templates() -> None:
    """Seven for ImageNet and its variants; the data set's own elsewhere, or the user's."""
    own = {"template": "a photo of a {}, a type of pet.", "classnames": ["cat"], "train_x": [1, 2]}
    for name, given, count in (("ImageNet", {}, 7), ("ImageNetA", {}, 7), ("OxfordPets", {}, 1), ("ImageNet", own, 1)):
        dataset = type(name, (), own)()
        vars(dataset).update({"template": given["template"]} if given else {})
        model = TipAdapter.build(trainer_options("TipAdapter"), dataset, small_clip())
        assert len(model.texts) == count
        assert model.cache.weight.shape == (2, 32) and model.cache.values.shape == (2, 1)


def test_the_first_of_equal_pairs_counts_and_the_upper_ends_are_not_reached() -> None:
    assert grid(7, 200)[:2] == pytest.approx([0.1, 0.1345]) and grid(7, 200)[-1] == pytest.approx(6.9655)
    model = TipAdapter.build(trainer_options("TipAdapter"), SimpleNamespace(classnames=["cat", "dog"]), small_clip())
    features = unit(torch.eye(2, 32))
    labels = torch.tensor([0, 1])
    model.cache.fill(features, labels)
    correct = torch.tensor([[0, 1, 3], [3, 2, 3]])
    model.count_correct = lambda images, betas, alphas: correct
    assert search(model, Features(features, labels), [7, 3], [2, 3]) == 3
    assert (model.cache.beta.item(), model.cache.alpha.item()) == pytest.approx((0.1, 0.1 + 2 * 2.9 / 3))
    correct.zero_()
    assert search(model, Features(features, labels), [7, 3], [2, 3]) == 0
    assert model.cache.beta == 0 and model.cache.alpha == 0, "as published"


def test_a_search_in_parts_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TipAdapter.build(trainer_options("TipAdapter"), SimpleNamespace(classnames=["cat", "dog"]), small_clip())
    torch.manual_seed(0)
    model.cache.fill(unit(torch.randn(5, 32)), torch.tensor([0, 1, 1, 0, 0]))
    images = Features(torch.randn(11, 32), torch.randint(0, 2, (11,)))
    whole = model.count_correct(images, grid(7, 4), grid(30, 3))
    monkeypatch.setattr(trainers.tip_adapter, "AT_ONCE", 24)
    assert torch.equal(model.count_correct(images, grid(7, 4), grid(30, 3)), whole)
    by_hand = torch.zeros_like(whole)
    for i, beta in enumerate(grid(7, 4)):
        for j, alpha in enumerate(grid(30, 3)):
            model.cache.set_weights(beta, alpha)
            by_hand[i, j] = (model.from_features(images.features).argmax(-1) == images.labels).sum()
    assert torch.equal(by_hand, whole)


def test_the_search_is_in_the_results(tmp_path: Path) -> None:
    trainer = untrained("tip_adapter", tmp_path)
    trainer.train()
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert results["chosen"] == trainer.chosen() and set(trainer.chosen()) == {"beta", "alpha"}
    assert results["epoch"] == 0 and results["learned_parameters"] == 0


@pytest.mark.parametrize("views", [0, 1, 3])
@pytest.mark.parametrize("name", ["tip_adapter", "tip_adapter_f"])
def test_keys_are_means_over_views_and_each_epoch_has_another_view(name: str, views: int, tmp_path: Path) -> None:
    """The images themselves have no view; of the views, those of the epochs come last."""
    trainer = untrained(name, tmp_path, VIEWS=views, SEARCH_STEP="[2,2]")
    given = {v: torch.randn(*([v] if v else []), 20, 128) for v in (0, 1, 3, views + 2)}
    trainer.features_of = lambda items, views=0: given[views]
    trainer.fit()
    epochs = 2 if name == "tip_adapter_f" else 0
    of_keys = given[views + epochs][:views].mean(dim=0) if views else given[0]
    torch.testing.assert_close(trainer.model.cache.weight.detach(), unit(of_keys))
    for trainer.epoch in range(epochs):
        rows = torch.cat([batch.features for batch in trainer.feature_batches()])
        assert set(rows[:, 0].tolist()) == set(given[views + 2][views + trainer.epoch, :, 0].tolist())


@pytest.mark.parametrize(("on", "kept"), [("", 4), ("val", 2), ("test", 2)])
def test_the_epoch_whose_keys_are_kept(on: str, kept: int, tmp_path: Path) -> None:
    """The last one, or the first of the best; on the test images as published."""
    trainer = untrained("tip_adapter_f", tmp_path, epochs=4, BEST_EPOCH_ON=f"'{on}'")
    keys, results = [], iter([3, 9, 9, 1, 8])
    trainer.correct = lambda images: next(results)
    run_epoch = trainer.run_epoch

    def observed() -> None:
        run_epoch()
        keys.append(trainer.model.cache.weight.detach().clone())

    trainer.run_epoch = observed
    trainer.train()
    assert torch.equal(trainer.model.cache.weight, keys[kept - 1])
    assert not torch.equal(keys[0], keys[1])
    assert bool(trainer.result_notes()) == (on == "test")
    after = trainer.chosen()
    assert (after == {"beta": 1.0, "alpha": 1.17}) == (on == "test"), "as published, the better of the two"


def test_the_learning_rate_falls_along_a_cosine_in_every_step(tmp_path: Path) -> None:
    """20 images in batches of 5, two epochs: lr (1 + cos(pi t / 8)) / 2."""
    trainer = untrained("tip_adapter_f", tmp_path)
    rates, update = [], trainer.update

    def observed(terms):
        rates.append(trainer.get_current_lr())
        return update(terms)

    trainer.update = observed
    trainer.train()
    assert rates == pytest.approx([1e-3 * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(8)])


def test_the_best_epoch_is_not_the_engines(tmp_path: Path) -> None:
    cfg = untrained("tip_adapter_f", tmp_path).cfg.clone()
    cfg.defrost()
    cfg.TEST.FINAL_MODEL = "best_val"
    with pytest.raises(ValueError, match=r"Use last_step, and TRAINER.TIPADAPTERF.BEST_EPOCH_ON val"):
        build_trainer(cfg)
