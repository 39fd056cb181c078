"""TaskRes against the values of an independent implementation, and its enhanced base."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.golden import assert_close, build, check_three_steps, golden_clip, make_trainer, read
from tests.paths import needs_golden
from tests.trainers.test_methods import NAMES, learned, small_clip, vit_b16
from tests.trainers.test_on_features import untrained
from trainers.prompts import IMAGENET_TEMPLATES_SELECT
from trainers.taskres import ResidualLearner


def golden_trainer(name: str, **options):
    values, meta = read(f"{name}.safetensors")
    given = {"RESIDUAL_SCALE": meta["RESIDUAL_SCALE"], **options}
    settings = {f"TRAINER.TASKRES.{key}": value for key, value in given.items()}
    return make_trainer(meta, meta["dataset_template"], settings), values, meta


@needs_golden
@pytest.mark.parametrize("name", ["taskres_a05", "taskres_a10_imagenet"])
def test_three_steps(name: str) -> None:
    trainer, values, meta = golden_trainer(name)
    root = trainer.checkpoint_root()
    assert set(root.state_dict()) == {"text_feature_residuals", "base_text_features"}
    assert_close(root.base_text_features, values["aux.base_text_features"], "base")
    losses = trainer.losses
    trainer.losses = lambda image, label: losses(trainer.model.encode_image(image), label)
    check_three_steps(trainer, values, meta)


def test_learned_tensors() -> None:
    """K E: 512,000 numbers for ImageNet with ViT-B/16, 1,024,000 with RN50."""
    assert learned(build("TaskRes", NAMES, vit_b16())) == {"prompt_learner.text_feature_residuals": 3 * 512}
    for width, count in ((512, 512_000), (1024, 1_024_000)):
        assert sum(p.numel() for p in ResidualLearner(1000, width, 0.5).parameters()) == count


def test_a_second_model_has_the_same_templates() -> None:
    """The published list grows with every model that is built."""
    first, second = (build("TaskRes", NAMES, small_clip()) for _ in range(2))
    for model in (first, second):
        model.compute_base()
    assert torch.equal(first.prompt_learner.base_text_features, second.prompt_learner.base_text_features)
    assert len(IMAGENET_TEMPLATES_SELECT) == 7


@needs_golden
def test_an_enhanced_base_takes_the_place_of_the_text_projection(tmp_path: Path) -> None:
    """With CLIP's own projection (Dt, E), transposed, it is the plain base; twice that gives twice the base."""
    projection = golden_clip().text_projection
    for factor in (1, 2):
        torch.save({"state_dict": {"weight": factor * projection.t()}, "epoch": 1}, tmp_path / "model.pth.tar")
        trainer, values, _ = golden_trainer("taskres_a05", ENHANCED_BASE=str(tmp_path / "model.pth.tar"))
        base = trainer.checkpoint_root().base_text_features
        assert_close(base, factor * values["aux.base_text_features"], "base")
        assert torch.equal(trainer.model.text_encoder.text_projection, projection)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (None, r"No checkpoint at .*model.pth.tar"),
        (torch.zeros(32, 63), r"has \(32, 63\) torch.float32 as state_dict.weight, .*of shape \(32, 64\)"),
        ({"a": 1}, r"has dict of 1 as state_dict.weight"),
        (torch.zeros(32, 64).int(), r"has \(32, 64\) torch.int32 as state_dict.weight, expected a floating-point"),
    ],
)
def test_an_enhanced_base_that_does_not_fit_is_an_error(weight: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth.tar"
    if weight is not None:
        torch.save({"state_dict": {"weight": weight}}, path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build("TaskRes", NAMES, small_clip(), ENHANCED_BASE=str(path))


def test_initial_weights_keep_their_base(tmp_path: Path) -> None:
    trainer = untrained("taskres", tmp_path)
    with torch.no_grad():
        trainer.model.prompt_learner.base_text_features.mul_(2)
    trainer.save_model(-1, str(tmp_path))
    cfg = trainer.cfg.clone()
    cfg.defrost()
    cfg.MODEL.INIT_WEIGHTS = str(tmp_path / "prompt_learner" / "model.pth.tar-0")
    again = type(trainer)(cfg)
    for name in ("base_text_features", "text_feature_residuals"):
        assert torch.equal(getattr(again.checkpoint_root(), name), getattr(trainer.checkpoint_root(), name))
