"""What every prompt-learning trainer does around its model: rates, initial weights, checkpoints."""

import json
from pathlib import Path

import pytest
import torch

import datasets  # noqa: F401  (registers the datasets)
import train
from clip.model import CLIP
from dassl.engine import build_trainer
from tests.paths import ROOT
from trainers.backbone import multiply_adds
from trainers.base import ClipTrainer

CONFIGS = ROOT / "configs"


def make(folder: Path, trainer: str = "MaPLe", **options: object) -> ClipTrainer:
    """A trainer on one shot of two base classes' worth of batches; options are KEY__SUBKEY=value."""
    argv = ["--trainer", trainer, "--dataset-config-file", str(CONFIGS / "datasets" / "emoji.yaml")]
    argv += ["--config-file", str(CONFIGS / "trainers" / trainer / "vit_micro.yaml"), "--output-dir", str(folder)]
    short = {"DATASET__NUM_SHOTS": 1, "DATASET__SUBSAMPLE_CLASSES": "base", "DATALOADER__TRAIN_X__BATCH_SIZE": 10}
    pairs = {"SEED": 1, "TEST__NO_TEST": True, "VERBOSE": False, **short, **options}
    opts = [str(word) for key, value in pairs.items() for word in (key.replace("__", "."), value)]
    return build_trainer(train.setup_cfg(train.parse_args([*argv, *opts])))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maple")
    make(folder, OPTIM__MAX_EPOCH=3, OPTIM__LR=0.01, OPTIM__WARMUP_CONS_LR=1e-5).train()
    return folder


@pytest.mark.slow
def test_the_rate_follows_its_schedule(trained):
    """One epoch of constant warm-up, then the cosine over three epochs from its start: (1 + cos(pi e / 3)) / 2."""
    rates = [json.loads(line)["lr"] for line in (trained / "history.jsonl").read_text().splitlines()]
    assert rates == pytest.approx([1e-5, 0.01 * 1.0, 0.01 * 0.75], rel=1e-9)


def test_initial_weights_are_taken_whole_or_not_at_all(trained, tmp_path):
    file = trained / "MultiModalPromptLearner" / "model.pth.tar-3"
    trainer = make(tmp_path, MODEL__INIT_WEIGHTS=file)
    saved = torch.load(file, weights_only=True)["state_dict"]
    learned = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert learned and all(torch.equal(p, saved[name]) for name, p in learned.items())
    with pytest.raises(ValueError, match=r"(?s)does not fit the model.*unexpected .*compound_prompts_text\.2"):
        make(tmp_path, MODEL__INIT_WEIGHTS=file, TRAINER__MAPLE__PROMPT_DEPTH=2)


def other_backbone(folder: Path) -> Path:
    """The demonstration's weights with other numbers, in a file of its own."""
    weights = torch.load(ROOT / "clip" / "ViT-Micro-8.pt", weights_only=True)
    torch.save({name: value + 0.01 for name, value in weights.items()}, folder / "other.pt")
    return folder / "other.pt"


@pytest.mark.parametrize("trainer", ["MaPLe", "CoOp"])
def test_a_checkpoint_of_another_backbone_is_refused_with_both(trainer, tmp_path):
    make(tmp_path / "run", trainer, OPTIM__MAX_EPOCH=1).train()
    backbone = {"MODEL__BACKBONE__NAME": other_backbone(tmp_path), "MODEL__BACKBONE__ACTIVATION": "quick_gelu"}
    other = make(tmp_path / "other", trainer, **backbone)
    with pytest.raises(ValueError, match=r"backbone: 'ViT-Micro/8' in the file, 'other.pt' here"):
        other.load_model(str(tmp_path / "run"))


def test_class_specific_contexts_are_refused_for_other_classes(tmp_path):
    make(tmp_path / "run", "CoOp", OPTIM__MAX_EPOCH=1, TRAINER__COOP__CSC=True).train()
    again = make(tmp_path / "again", "CoOp", TRAINER__COOP__CSC=True)
    again.load_model(str(tmp_path / "run"))
    new = make(tmp_path / "new", "CoOp", TRAINER__COOP__CSC=True, DATASET__SUBSAMPLE_CLASSES="new")
    with pytest.raises(ValueError, match=r"classes: \['arrow', .* in the file, \['\w.* here"):
        new.load_model(str(tmp_path / "run"))


def test_a_checkpoint_with_other_things_than_tensors_is_refused(trained, tmp_path):
    file = tmp_path / "MultiModalPromptLearner" / "model.pth.tar-3"
    file.parent.mkdir()
    content = torch.load(trained / "MultiModalPromptLearner" / "model.pth.tar-3", weights_only=True)
    content["state_dict"]["prompt_learner.ctx"] = "text"
    torch.save(content, file)
    with pytest.raises(ValueError, match=r"prompt_learner.ctx has shape \(\) in the file, \(2, 128\) in the model"):
        make(tmp_path / "run").load_model(str(tmp_path), epoch=3)


def test_work_per_image_is_parameters_times_positions():
    """4 x 4 patches. Parameters: convolution 128 x 3 x 256, class token and 17 positions of 128, two LayerNorms,
    projection 128 x 32, and in each of 2 blocks 12 x 128^2 weights and 13 x 128 others."""
    model = CLIP(32, 64, 2, 128, 16, 8, 100, 32, 1, 1)
    assert multiply_adds(model) == 16 * (128 * (3 * 256 + 1 + 17 + 4 + 32) + 2 * (12 * 128**2 + 13 * 128))
    resnet = CLIP(32, 64, (1, 1, 1, 1), 8, None, 8, 100, 32, 1, 1)  # a last feature map of 2 x 2
    assert multiply_adds(resnet) == 4 * sum(parameter.numel() for parameter in resnet.visual.parameters())


@pytest.mark.parametrize("given, threads", [("", 1), ("2", 2)])
def test_the_demonstration_takes_one_thread_unless_the_environment_gives_more(
    tmp_path, monkeypatch, capsys, given, threads
):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    make(tmp_path, USE_CUDA=False)
    assert torch.get_num_threads() == threads
    assert f"CPU threads: {threads} (" in capsys.readouterr().out
