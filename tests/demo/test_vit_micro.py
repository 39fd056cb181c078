"""The demonstration backbone: its file, and the number that its card gives."""

import json
import re

import pytest
import torch

import clip
import datasets  # noqa: F401  (registers the datasets)
import train
from dassl.engine import build_trainer
from tests.paths import ROOT

WEIGHTS = ROOT / "clip" / "ViT-Micro-8.pt"
CARD = ROOT / "clip" / "ViT-Micro-8.md"


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return torch.load(WEIGHTS, map_location="cpu", weights_only=True)


def test_openai_layout_and_sizes(weights):
    model = clip.build_model(weights)
    assert model.visual.input_resolution == 48
    assert weights["visual.conv1.weight"].shape == (128, 3, 8, 8)
    assert weights["token_embedding.weight"].shape == (49408, 128)
    assert weights["positional_embedding"].shape == (77, 128)
    assert len(model.transformer.resblocks) == len(model.visual.transformer.resblocks) == 4
    assert all(torch.isfinite(w.float()).all() for w in weights.values())


def test_words_without_training_share_one_vector(weights):
    """So they compress, and a name that pretraining never saw is read as "unknown", not as noise."""
    rows, counts = weights["token_embedding.weight"].unique(dim=0, return_counts=True)
    assert counts.max() > 46_000 and len(rows) < 3_000


def test_is_loaded_by_name_like_any_other():
    assert "ViT-Micro/8" in clip.available_models()
    model, _ = clip.load("ViT-Micro/8", device="cpu")
    with torch.no_grad():
        assert model.encode_text(clip.tokenize(["a photo of a dog."])).shape == (1, 128)
        assert model.encode_image(torch.zeros(1, 3, 48, 48)).shape == (1, 128)


@pytest.mark.parametrize(("subsample", "column"), [("base", 0), ("new", 1)])
def test_zero_shot_accuracy_is_the_card_s(subsample, column, tmp_path):
    """Config, trainer and evaluation as train.py takes them; half a point allows for other decoders and arithmetic."""
    row = re.search(r"^\| ZeroshotCLIP \|([^|]*)\|([^|]*)\|", CARD.read_text(encoding="utf-8"), re.MULTILINE)
    assert row, f"{CARD} has no row ZeroshotCLIP"
    files = ["--dataset-config-file", str(ROOT / "configs/datasets/emoji.yaml")]
    files += ["--config-file", str(ROOT / "configs/trainers/ZeroshotCLIP/vit_micro.yaml")]
    flags = ["--trainer", "ZeroshotCLIP", "--output-dir", str(tmp_path), "DATASET.SUBSAMPLE_CLASSES", subsample]
    build_trainer(train.setup_cfg(train.parse_args([*files, *flags]))).test()
    measured = json.loads((tmp_path / "results.json").read_text())["accuracy"]
    assert measured == pytest.approx(float(row.groups()[column]), abs=0.5)
