"""Methods on a CLIP that is not OpenAI's: GELU, other widths and heads, pixel statistics of its own."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from yacs.config import CfgNode

from clip.model import CLIP
from dassl.config import get_cfg_default
from dassl.data.transforms import build_transform
from experiments.methods import METHODS
from tests.trainers.test_every_method import learned, make
from trainers.backbone import load_backbone, load_clip, take_pixel_statistics

NAME = "CLIP-small-laion2B"
MEAN, STD = [0.5, 0.4, 0.3], [0.25, 0.5, 0.2]
# Of each kind: prompts of both towers, of each image, of the image tower, of the classes; in the blocks; on features
KINDS = ("maple", "cocoop", "vpt", "tcp", "mma", "mmrl", "clip_lora", "tip_adapter_f")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in open_clip's layout with random weights."""
    folder = tmp_path_factory.mktemp("models") / NAME
    folder.mkdir()
    torch.manual_seed(0)
    model = CLIP(80, 48, 4, 144, 8, 77, 49408, 96, 3, 4, vision_heads=6)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    config = {
        "embed_dim": 80,
        "vision_cfg": {"image_size": 48, "layers": 4, "width": 144, "head_width": 24, "patch_size": 8},
        "text_cfg": {"width": 96, "heads": 3, "layers": 4},
    }
    content = {"model_cfg": config, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return folder


def settings(name: str | Path, **backbone: object) -> CfgNode:
    cfg = get_cfg_default()
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", str(name), "INPUT.SIZE", (48, 48), "INPUT.TRANSFORMS", ["normalize"]])
    for key, value in backbone.items():
        cfg.MODEL.BACKBONE[key] = value
    return cfg


@pytest.mark.parametrize("name", [name for name in KINDS if name in METHODS])
def test_methods_of_each_kind_learn_on_it(name: str, backbone: Path, tmp_path: Path) -> None:
    trainer = make(name, tmp_path, epochs=1, MODEL__BACKBONE__NAME=backbone, DATALOADER__TRAIN_X__BATCH_SIZE=20)
    start = learned(trainer)
    trainer.train()
    ended = learned(trainer)
    assert all(value.isfinite().all() for value in ended.values())
    assert any(not torch.equal(start[key], ended[key]) for key in start)


def test_pixels_are_normalized_as_the_backbone_states(backbone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = settings(backbone)
    cfg.freeze()
    take_pixel_statistics(cfg)
    assert cfg.is_frozen() and (cfg.MODEL.BACKBONE.PIXEL_MEAN, cfg.MODEL.BACKBONE.PIXEL_STD) == (MEAN, STD)
    assert cfg.INPUT.PIXEL_MEAN == [0.485, 0.456, 0.406], "as the run was told"
    normalize = build_transform(cfg, is_train=False).transforms[-1]
    assert (normalize.mean, normalize.std) == (MEAN, STD)
    assert f"{NAME} states (0.5, 0.4, 0.3), which is used instead of INPUT.PIXEL_MEAN" in capsys.readouterr().out
    take_pixel_statistics(cfg)
    assert not capsys.readouterr().out, "said once: a resumed run has them in its configuration"
    own = settings(backbone, PIXEL_MEAN=[0.1, 0.1, 0.1])
    take_pixel_statistics(own)
    assert (own.MODEL.BACKBONE.PIXEL_MEAN, own.MODEL.BACKBONE.PIXEL_STD) == ([0.1, 0.1, 0.1], STD)


def test_openais_models_keep_the_values_of_the_input(capsys: pytest.CaptureFixture[str]) -> None:
    cfg = settings("ViT-Micro/8")
    take_pixel_statistics(cfg)
    assert not capsys.readouterr().out
    assert (cfg.MODEL.BACKBONE.PIXEL_MEAN, cfg.MODEL.BACKBONE.PIXEL_STD) == ((), ())
    assert build_transform(cfg, is_train=False).transforms[-1].mean == [0.485, 0.456, 0.406]


def test_the_log_says_what_differs(backbone: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cfg = settings(backbone)
    cfg.INPUT.SIZE = (64, 64)
    model = load_clip(cfg)
    assert model.visual.input_resolution == 64 and not any(p.requires_grad for p in model.parameters())
    out = capsys.readouterr().out
    assert "INPUT.SIZE is (64, 64)" in out and "position embeddings are interpolated" in out
    assert f"The activation of {backbone} is gelu" in out
    assert load_clip(settings(backbone, ACTIVATION="quick_gelu")).activation == "quick_gelu"
    squashed = tmp_path / NAME
    squashed.mkdir()
    content = json.loads((backbone / "open_clip_config.json").read_text())
    content["preprocess_cfg"]["resize_mode"] = "squash"
    (squashed / "open_clip_config.json").write_text(json.dumps(content))
    take_pixel_statistics(settings(squashed))
    assert "made square by 'squash'. Here they are cropped" in capsys.readouterr().out


def test_a_copy_of_the_folder_has_the_same_checkpoints(backbone: Path, tmp_path: Path) -> None:
    trainer = make("coop", tmp_path / "run", epochs=1, MODEL__BACKBONE__NAME=backbone)
    trainer.train()
    copies = {name: shutil.copytree(backbone, tmp_path / name / name) for name in (NAME, "other")}
    same = make("coop", tmp_path / "same", MODEL__BACKBONE__NAME=copies[NAME])
    same.load_model(str(tmp_path / "run"), epoch=1)
    other = make("coop", tmp_path / "new", MODEL__BACKBONE__NAME=copies["other"])
    with pytest.raises(ValueError, match=f"backbone: '{NAME}' in the file, 'other' here"):
        other.load_model(str(tmp_path / "run"), epoch=1)


def test_a_vocabulary_that_the_tokenizer_does_not_have(tmp_path: Path) -> None:
    torch.save(CLIP(16, 32, 1, 64, 16, 12, 50, 64, 1, 1).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"MODEL.BACKBONE.NAME .*vocabulary has 50 tokens, .*49,408"):
        load_backbone(str(tmp_path / "w.pt"), "gelu")
    with pytest.raises(ValueError, match=r"MODEL.BACKBONE.NAME .*w.pt does not tell which activation"):
        load_backbone(str(tmp_path / "w.pt"))
