"""CLAP and ZS-LP: golden values, the constraint's weights, the views of an epoch, resume, exact counts, classes."""

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
from tests.trainers.test_methods import learned, vit_b16
from trainers.clap import CLAP, class_means
from trainers.on_features import Features


def golden_trainer(file: str) -> tuple[CLAP, dict[str, torch.Tensor], dict[str, Any]]:
    """After `fit` on a golden file's support set, of one view."""
    values, meta = golden.read(f"{file}.safetensors")
    settings = {"TRAINER.CLAP.CONSTRAINT": meta["CONSTRAINT"]}
    trainer = golden.make_trainer({**meta, "trainer": "CLAP"}, meta["dataset_template"], settings)
    assert isinstance(trainer, CLAP)
    with torch.no_grad():
        support = trainer.model.encode_image(values["aux.support_image"].float())
    trainer.support = lambda views=0: Features(support[None], values["aux.support_label"])
    trainer.fit()
    return trainer, values, meta


@needs_golden
@pytest.mark.parametrize("file", ["clap_zs", "clap_l2", "clap_l2_imagenet"])
def test_three_steps_equal_the_golden_ones(file: str) -> None:
    """The base, zero-shot logits, the constraint's weights; then the steps on a batch."""
    trainer, values, meta = golden_trainer(file)
    adapter, model = trainer.model.adapter, trainer.model
    assert_close(adapter.base_text_features, values["aux.base_text_features"], "base")
    assert torch.equal(adapter.prototypes, adapter.base_text_features)
    assert_close(model.zero_shot(trainer.support().features[0]), values["aux.support_logits"], "zero-shot logits")
    if meta["CONSTRAINT"] == "l2":
        assert_close(trainer.multipliers, values["aux.multipliers"], "multipliers")
    losses = trainer.losses
    trainer.losses = lambda image, label: losses(model.encode_image(image), label)
    golden.check_three_steps(trainer, values, meta)


def test_means_of_classes() -> None:
    """By hand; the last class has no image."""
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.7, 0.1, 0.2]])
    found = class_means(probabilities, torch.tensor([0, 1, 0]))
    torch.testing.assert_close(found, torch.tensor([0.6, 0.6, 0.0]))


def test_learned_tensors() -> None:
    """K E: 512,000 on ImageNet with ViT-B/16."""
    model = golden.build("CLAP", [str(i) for i in range(1000)], vit_b16())
    assert learned(model) == {"adapter.prototypes": 512_000}
    assert set(model.adapter.state_dict()) == {"prototypes", "base_text_features", "logit_scale"}


def demonstration(folder: Path, **options: object) -> CLAP:
    """20 base classes at 1 shot, and 3 views of each image."""
    set_random_seed(1)
    trainer = make(folder, "CLAP", OPTIM__MAX_EPOCH=3, TRAINER__CLAP__VIEWS=3, **options)
    assert isinstance(trainer, CLAP)
    return trainer


@pytest.mark.parametrize(("size", "expected"), [(8, [8, 8]), (20, [20]), (32, [32]), (256, [60])])
def test_an_epoch_takes_as_many_batches_as_the_images_make(size: int, expected: list[int], tmp_path: Path) -> None:
    """Of 20 images and 60 features: 2 batches of 8; one of 20, of 32; and one of all 60 where a batch has 256."""
    trainer = demonstration(tmp_path, DATALOADER__TRAIN_X__BATCH_SIZE=size)
    rows = torch.arange(60.0).reshape(3, 20, 1)
    trainer.support = lambda views=0: Features(rows, torch.arange(20))
    batches = trainer.feature_batches()
    assert [len(batch.labels) for batch in batches] == expected
    seen = torch.cat([batch.features for batch in batches]).flatten()
    assert len(seen.unique()) == len(seen), "a feature at most once"
    assert torch.equal(torch.cat([batch.labels for batch in batches]), seen.long() % 20)
    again = torch.cat([batch.features for batch in trainer.feature_batches()]).flatten()
    assert not torch.equal(seen, again)


@pytest.mark.slow
def test_a_resumed_run_keeps_the_multipliers_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = demonstration(tmp_path / "whole")
    whole.train()
    stopped = demonstration(tmp_path / "stopped")
    stop_after_epoch(stopped, 2)
    with pytest.raises(Stop):
        stopped.train()
    resumed = demonstration(tmp_path / "stopped")
    resumed.fit = None  # a resumed run has no use for it
    resumed.train()
    assert resumed.start_epoch == 2
    assert torch.equal(resumed.multipliers, whole.multipliers) and whole.multipliers.min() > 0
    own, again = whole.model.adapter.state_dict(), resumed.model.adapter.state_dict()
    assert all(torch.equal(own[name], again[name]) for name in own)
    saved = torch.load(tmp_path / "whole" / "adapter" / "model.pth.tar-3", weights_only=True)["state_dict"]
    assert saved.keys() == {"prototypes", "base_text_features"}
    resume = tmp_path / "whole" / "resume.pth.tar"
    assert resume.stat().st_size < 10 * sum(t.nbytes for t in saved.values()), "no features of images in it"

    names = list(whole.dm.dataset.classnames)
    whole.dm.dataset._classnames = [names[i] for i in (5, 2, 9)]
    found = whole.read_weights(str(tmp_path / "whole" / "adapter" / "model.pth.tar-3"))["state_dict"]
    assert torch.equal(found["prototypes"], saved["prototypes"][[5, 2, 9]])
    assert torch.equal(found["base_text_features"], saved["base_text_features"][[5, 2, 9]])


def test_a_published_checkpoint_has_the_frozen_scale(tmp_path: Path) -> None:
    """Prototypes, the base and the frozen scale, which must be this backbone's."""
    trainer = demonstration(tmp_path)
    scale = trainer.model.logit_scale.detach()
    state = {name: torch.randn(20, trainer.model.adapter.prototypes.shape[1]) for name in trainer.class_dims}
    trainer.load_weights("adapter", {**state, "logit_scale": scale}, "file")
    assert torch.equal(trainer.model.adapter.prototypes, state["prototypes"])
    with pytest.raises(ValueError, match="trained on another backbone"):
        trainer.load_weights("adapter", {**state, "logit_scale": scale + 1}, "file")
