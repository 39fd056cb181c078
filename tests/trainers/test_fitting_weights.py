"""Weights that do not fit are refused with the option or the trainer that they need; also published ones."""

from pathlib import Path

import pytest
import torch

import datasets  # noqa: F401  (registers the datasets)
import train
from dassl.engine import TRAINER_REGISTRY, build_trainer
from tests.paths import ROOT
from trainers.base import ClipTrainer, load_backbone

SMALL = {"SEED": 1, "DATASET.NUM_SHOTS": 1, "OPTIM.MAX_EPOCH": 1, "OPTIM.WARMUP_EPOCH": 0, "VERBOSE": False}


def make(name: str, **options: object) -> ClipTrainer:
    argv = ["--trainer", name, "--dataset-config-file", str(ROOT / "configs/datasets/emoji.yaml"), "--output-dir", ""]
    argv += ["--config-file", str(ROOT / f"configs/trainers/{name}/vit_micro.yaml")]
    given = SMALL | {key.replace("__", "."): value for key, value in options.items()}
    return build_trainer(train.setup_cfg(train.parse_args([*argv, *(f"{k}={v}" for k, v in given.items())])))


def save(trainer: ClipTrainer, folder: Path, published: bool = False) -> str:
    """A checkpoint of epoch 1; a published one has nothing beside its tensors that says where it is from."""
    trainer.save_model(0, str(folder))
    path = folder / trainer.registered_name / "model.pth.tar-1"
    if published:
        state = torch.load(path, weights_only=True)
        torch.save({"state_dict": state["state_dict"], "epoch": 1}, path)
    return str(folder)


def refusal(trainer: ClipTrainer, folder: str) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        trainer.load_model(folder, epoch=1)
    return str(caught.value).splitlines()[-1]


@pytest.fixture(scope="module")
def made() -> dict[str, ClipTrainer]:
    return {name: make(name) for name in ("MaPLe", "CoOp", "CoCoOp", "VPT", "IVLP")}


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("name", ["MaPLe", "CoOp", "CoCoOp", "IVLP"])
def test_weights_of_another_trainer_name_it(
    made: dict[str, ClipTrainer], tmp_path: Path, name: str, published: bool
) -> None:
    folder = save(made[name], tmp_path, published)
    for other in made.values():
        if type(other).__name__ != name:
            assert f"was trained by {name}: pass --trainer {name}" in refusal(other, folder)


def test_weights_of_other_options_name_them(made: dict[str, ClipTrainer], tmp_path: Path) -> None:
    maple = make("MaPLe", TRAINER__MAPLE__N_CTX=3, TRAINER__MAPLE__PROMPT_DEPTH=2)
    coop = make("CoOp", TRAINER__COOP__N_CTX=2)
    words = make("CoOp", TRAINER__COOP__CTX_INIT="a photo of a nice")
    for published in (False, True):
        line = refusal(made["MaPLe"], save(maple, tmp_path / "maple", published))
        assert line == "It fits with TRAINER.MAPLE.N_CTX 3 TRAINER.MAPLE.PROMPT_DEPTH 2"
        folder = save(coop, tmp_path / "coop", published)
        assert refusal(made["CoOp"], folder) == "It fits with TRAINER.COOP.N_CTX 2"
        assert refusal(words, folder) == "It fits with TRAINER.COOP.N_CTX 2 TRAINER.COOP.CTX_INIT ''"


def test_options_are_read_from_the_shapes(made: dict[str, ClipTrainer]) -> None:
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "CoOp": {"ctx": (50, 16, 512)},
        "CoCoOp": {"ctx": (4, 512), "meta_net.linear1.weight": (32, 512)},
        "VPT": {"image_encoder.VPT": (8, 768), "image_encoder.transformer.resblocks.1.VPT_shallow": (8, 768)},
        "IVLP": {
            "prompt_learner.ctx": (4, 512),
            "image_encoder.VPT": (3, 768),
            "text_encoder.transformer.resblocks.1.VPT_shallow": (4, 512),
            "text_encoder.transformer.resblocks.2.VPT_shallow": (4, 512),
        },
    }
    expected = {
        "CoOp": {"N_CTX": 16, "CTX_INIT": "", "CSC": True},
        "CoCoOp": {"N_CTX": 4, "CTX_INIT": ""},
        "VPT": {"N_CTX_VISION": 8, "PROMPT_DEPTH_VISION": 2},
        "IVLP": {"N_CTX_TEXT": 4, "PROMPT_DEPTH_TEXT": 3, "N_CTX_VISION": 3, "PROMPT_DEPTH_VISION": 1},
    }
    for name, found in shapes.items():
        node = made[name].cfg.TRAINER[made[name].config_node].clone()
        node.defrost()
        if "CTX_INIT" in expected[name]:
            node.CTX_INIT = "so many words that no number fits"
        trainer = TRAINER_REGISTRY.get(name)
        assert trainer.options_for(found, node) == expected[name]
        assert trainer.options_for({"adapter.weight": (3, 3)}, node) is None


def test_another_backbone_is_named(made: dict[str, ClipTrainer], tmp_path: Path) -> None:
    folder = tmp_path / "prompt_learner"
    folder.mkdir()
    torch.save({"state_dict": {"ctx": torch.zeros(4, 512)}, "epoch": 1}, folder / "model.pth.tar-1")
    assert refusal(made["CoOp"], str(tmp_path)) == "It was trained with another backbone: pass --backbone"


def test_plugins_are_named_by_what_their_checkpoints_say(made: dict[str, ClipTrainer], tmp_path: Path) -> None:
    folder = tmp_path / "prompt_learner"
    folder.mkdir()
    state = {"state_dict": {"tokens": torch.zeros(4)}, "epoch": 1, "belongs_to": {"trainer": "TheirTrainer"}}
    torch.save(state, folder / "model.pth.tar-1")
    assert refusal(made["CoOp"], str(tmp_path)).startswith("It was trained by TheirTrainer: pass --trainer")


def test_initial_weights_name_the_option_too(tmp_path: Path) -> None:
    path = Path(save(make("CoOp", TRAINER__COOP__N_CTX=2), tmp_path)) / "prompt_learner" / "model.pth.tar-1"
    with pytest.raises(ValueError, match=r"It fits with TRAINER.COOP.N_CTX 2"):
        make("CoOp", MODEL__INIT_WEIGHTS=path)


def test_the_backbone_is_asked_for_by_its_option(tmp_path: Path) -> None:
    """Before the data: DATASET.ROOT does not exist."""
    nowhere = {"DATASET__NAME": "Caltech101", "DATASET__ROOT": tmp_path}
    with pytest.raises(ValueError, match=r"MODEL.BACKBONE.NAME \(--backbone\) is 'ViT-B/17': .*ViT-B/16"):
        make("CoOp", MODEL__BACKBONE__NAME="ViT-B/17", **nowhere)
    with pytest.raises(FileNotFoundError, match=r"MODEL.BACKBONE.NAME \(--backbone\) is 'nowhere/x.pt'"):
        make("CoOp", MODEL__BACKBONE__NAME="nowhere/x.pt", **nowhere)
    with pytest.raises(ValueError, match=r"no MODEL.BACKBONE.NAME is set: give --config-file, or --backbone"):
        make("CoOp", MODEL__BACKBONE__NAME="", **nowhere)


@pytest.mark.parametrize("name", ["CoOp", "CoCoOp", "MaPLe", "ZeroshotCLIP", "VPT"])
def test_class_names_that_are_too_long_are_named(name: str) -> None:
    class Dataset:
        classnames = ["cat", "very " * 80 + "long name"]

    trainer = TRAINER_REGISTRY.get(name)
    clip_model = load_backbone("ViT-Micro/8")
    options = train.default_cfg().TRAINER[trainer.config_node]
    with pytest.raises(
        ValueError, match=r"up to 77 tokens, these are longer: .*very very.*Shorten the names"
    ) as caught:
        trainer.build(options, Dataset(), clip_model)
    assert "truncate" not in str(caught.value)
