"""CLIP-Adapter against the values of an independent implementation."""

import pytest
import torch
from torch import nn

from tests.golden import build, check_three_steps, make_trainer, read, trainer_options
from tests.paths import needs_golden
from tests.trainers.test_methods import NAMES, learned, small_clip, vit_b16
from trainers.clip_adapter import Adapter, CLIPAdapter


@needs_golden
@pytest.mark.parametrize("name", ["clipadapter_r02", "clipadapter_r06_red2"])
def test_three_steps(name: str) -> None:
    values, meta = read(f"{name}.safetensors")
    settings = {f"TRAINER.CLIPADAPTER.{key}": meta[key] for key in ("RATIO", "REDUCTION")}
    trainer = make_trainer(meta | {"trainer": "CLIPAdapter"}, meta["dataset_template"], settings)
    assert set(trainer.checkpoint_root().state_dict()) == {"fc.0.weight", "fc.2.weight"}
    losses = trainer.losses
    trainer.losses = lambda image, label: losses(trainer.model.encode_image(image), label)
    check_three_steps(trainer, values, meta)


def test_learned_tensors() -> None:
    """2 E² / 4: 131,072 numbers with ViT-B/16, 524,288 with RN50."""
    model = build("CLIPAdapter", NAMES, vit_b16())
    assert learned(model) == {"adapter.fc.0.weight": 128 * 512, "adapter.fc.2.weight": 512 * 128}
    assert sum(learned(model).values()) == 131_072
    assert sum(p.numel() for p in Adapter(1024, 4).parameters()) == 524_288


def test_the_text_is_computed_once_while_the_adapter_learns() -> None:
    model = build("CLIPAdapter", NAMES, small_clip()).train()
    first = model.text_features()
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    with torch.no_grad():
        model.adapter.fc[0].weight.add_(1)
    assert model.text_features() is first and model.adapter.fc[2].weight.grad is not None


def test_initial_values_are_drawn_layer_by_layer() -> None:
    model = build("CLIPAdapter", NAMES, small_clip())
    torch.manual_seed(3)
    drawn = model.draw_as_published()
    torch.manual_seed(3)
    expected = [nn.Linear(32, 8, bias=False).weight, nn.Linear(8, 32, bias=False).weight]
    assert len(drawn) == 2 and all(torch.equal(a, b) for a, b in zip(drawn, expected, strict=True))


def test_weights_of_another_reduction_name_it() -> None:
    options = trainer_options("CLIPAdapter")
    shapes = {"fc.0.weight": (256, 512), "fc.2.weight": (512, 256)}
    assert CLIPAdapter.options_for(shapes, options) == {"REDUCTION": 2}
    assert CLIPAdapter.options_for({"fc.0.weight": (16, 50), "fc.2.weight": (50, 16)}, options) == {"REDUCTION": 3}
    assert CLIPAdapter.options_for({"ctx": (4, 512)}, options) is None
    with pytest.raises(ValueError, match=r"REDUCTION is 64, expected at most the joint width 32"):
        build("CLIPAdapter", NAMES, small_clip(), REDUCTION=64)
