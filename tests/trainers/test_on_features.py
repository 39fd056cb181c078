"""Trainers on features: the classes and support images of a checkpoint, what is chosen on what, the batches."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dassl.engine import TRAINER_REGISTRY
from experiments.methods import METHODS
from tests.trainers.test_every_method import make
from trainers.on_features import FeatureTrainer

FEATURES = ["tip_adapter", "tip_adapter_f", "taskres"]


def untrained(name: str, folder: Path, classes: str = "base", epochs: int = 2, **options: object) -> FeatureTrainer:
    """A trainer with these options of its node, whose image features are random numbers."""
    node = TRAINER_REGISTRY.get(METHODS[name].trainer).config_node
    given = {f"TRAINER__{node}__{key}": value for key, value in options.items()}
    trainer = make(name, folder, classes=classes, epochs=epochs, **given)
    generator = torch.Generator().manual_seed(0)

    def features_of(items, views=0):
        return torch.randn(*([views] if views else []), len(items), 128, generator=generator)

    trainer.features_of = features_of
    return trainer


@pytest.mark.parametrize("name", FEATURES)
def test_weights_are_tested_on_some_of_their_classes(name: str, tmp_path: Path) -> None:
    """As ImageNet's on ImageNet-A: the rows of these classes, and all support images."""
    trained = untrained(name, tmp_path / "all", classes="all")
    trained.fit()
    torch.nn.init.normal_(next(iter(trained.checkpoint_root().parameters()), torch.zeros(1)))
    trained.save_model(-1, str(tmp_path / "all"))
    half = untrained(name, tmp_path / "new", classes="new")
    half.load_model(str(tmp_path / "all"), epoch=0)
    rows = [trained.dm.dataset.classnames.index(name) for name in half.dm.dataset.classnames]
    assert rows == list(range(20, 40))
    for key, value in trained.checkpoint_root().state_dict().items():
        dim = trained.class_dims.get(key)
        expected = value if dim is None else value.index_select(dim, torch.tensor(rows))
        assert torch.equal(half.checkpoint_root().state_dict()[key], expected), key
    if trained.of_support:
        assert len(half.model.cache.weight) == 40 and len(half.dm.dataset.train_x) == 20
    features = torch.randn(3, 128)
    with torch.no_grad():
        found, whole = (trainer.model.eval().from_features(features) for trainer in (half, trained))
    torch.testing.assert_close(found, whole[:, rows], rtol=1e-4, atol=1e-3)


def test_support_images_that_disagree_are_refused(tmp_path: Path) -> None:
    trainer = untrained("tip_adapter", tmp_path)
    trainer.fit()
    state = trainer.checkpoint_root().state_dict()
    for broken in ({"weight": state["weight"][:5]}, {"values": state["values"][:, :7]}, {"weight": torch.zeros(())}):
        with pytest.raises(ValueError, match="does not fit the model"):
            trainer.load_weights("tip_adapter", state | broken, "file")


def test_what_is_chosen_on_the_test_images_is_said(tmp_path: Path) -> None:
    trainer = untrained("tip_adapter", tmp_path)
    assert len(trainer.selection().labels) == len(trainer.dm.dataset.held_out) == 20
    assert trainer.result_notes() == []
    trainer = untrained("tip_adapter", tmp_path, SELECT_ON="test")
    assert len(trainer.selection().labels) == len(trainer.dm.dataset.test)
    assert len(trainer.selection("val").labels) == 20
    (note,) = trainer.result_notes()
    assert "chosen on the test images" in note and "too high" in note


def test_without_validation_images_the_error_says_what_to_do(tmp_path: Path) -> None:
    trainer = untrained("tip_adapter", tmp_path)
    trainer.dm.dataset.held_out = []
    with pytest.raises(ValueError, match=r"Emoji has none: add some, .*TRAINER.TIPADAPTER.SELECT_ON test chooses on"):
        trainer.fit()


def test_images_that_were_skipped_are_an_error(tmp_path: Path) -> None:
    trainer = untrained("tip_adapter", tmp_path)
    trainer.features_of = lambda items, views=0: torch.zeros(len(items) - 2, 128)
    with pytest.raises(ValueError, match=r"2 of 20 images cannot be read \(DATASET.ON_BAD_IMAGE skip\)"):
        trainer.support()


def test_features_are_computed_once_and_are_not_in_the_file_to_resume_from(tmp_path: Path) -> None:
    trainer = untrained("tip_adapter_f", tmp_path)
    trainer.train()
    assert trainer.support(4) is trainer.support(4)
    saved = torch.load(tmp_path / "resume.pth.tar", weights_only=True)
    assert "_computed" not in saved["attributes"]


@pytest.mark.parametrize(("drop_last", "sizes"), [(True, [6, 6, 6]), (False, [6, 6, 6, 2])])
def test_batches_are_those_of_a_loader(tmp_path: Path, drop_last: bool, sizes: list[int]) -> None:
    trainer = untrained("clip_adapter", tmp_path)
    trainer.cfg = SimpleNamespace(
        DATALOADER=SimpleNamespace(TRAIN_X=SimpleNamespace(BATCH_SIZE=6, DROP_LAST=drop_last))
    )
    features, labels = torch.arange(20.0)[:, None], torch.arange(20)
    batches = trainer.shuffled(features, labels)
    assert [len(batch.labels) for batch in batches] == sizes
    order = torch.cat([batch.labels for batch in batches])
    assert len(set(order.tolist())) == sum(sizes) and order.tolist() != sorted(order.tolist())
    assert torch.equal(torch.cat([batch.features for batch in batches])[:, 0], order.float())
    trainer.cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 30
    assert [len(batch.labels) for batch in trainer.shuffled(features, labels)] == [20]


def test_epochs_take_the_views_in_turn_or_the_images(tmp_path: Path) -> None:
    trainer = untrained("clip_adapter", tmp_path / "views", epochs=3, VIEWS=2)
    seen = []
    for trainer.epoch in range(3):
        seen.append({tuple(row) for batch in trainer.feature_batches() for row in batch.features[:, :2].tolist()})
    assert seen[0] == seen[2] and not seen[0] & seen[1] and len(seen[0]) == 20

    trainer = untrained("clip_adapter", tmp_path / "images", VIEWS=0)
    images = next(iter(trainer.train_loader_x))
    features, labels = trainer.parse_batch_train(images)
    with torch.no_grad():
        assert torch.equal(features, trainer.model.encode_image(images["img"]))
    assert torch.equal(labels, images["label"]) and not features.requires_grad
    trainer.feature_batches = None  # which training on images has no use for
    trainer.train()
    assert trainer.run_record.images > 0
