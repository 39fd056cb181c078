"""train.py: its flags, the precedence of settings, and the single message printed for a mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from yacs.config import CfgNode

import train
from tests.paths import ROOT

EMOJI = str(ROOT / "configs/datasets/emoji.yaml")
MICRO = str(ROOT / "configs/trainers/MaPLe/vit_micro.yaml")
# fmt: off
PUBLISHED_FLAGS = [
    "root", "output-dir", "resume", "seed", "source-domains", "target-domains", "transforms", "config-file",
    "dataset-config-file", "trainer", "backbone", "head", "eval-only", "model-dir", "load-epoch", "no-train",
]
# fmt: on


def configured(*argv: str) -> CfgNode:
    return train.setup_cfg(train.parse_args(["--trainer", "MaPLe", "--dataset-config-file", EMOJI, *argv]))


def test_help_shows_all_published_flags_and_examples() -> None:
    command = [sys.executable, "train.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert len(PUBLISHED_FLAGS) == 16
    for flag in PUBLISHED_FLAGS:
        assert f"--{flag}" in done.stdout
    assert "KEY VALUE" in done.stdout
    assert "--dataset-config-file configs/datasets/emoji.yaml" in done.stdout


def test_flags_win_over_files_and_options_over_flags(tmp_path: Path) -> None:
    dataset, method = tmp_path / "dataset.yaml", tmp_path / "method.yaml"
    dataset.write_text("DATASET: {NAME: FromDataset}\nOPTIM: {LR: 0.1, MAX_EPOCH: 1}\nSEED: 1", encoding="utf-8")
    method.write_text("OPTIM: {LR: 0.2}\nMODEL: {BACKBONE: {NAME: FromMethod}}", encoding="utf-8")
    files = ["--trainer", "MaPLe", "--dataset-config-file", str(dataset), "--config-file", str(method)]
    cfg = train.setup_cfg(train.parse_args(files))
    assert (cfg.OPTIM.LR, cfg.OPTIM.MAX_EPOCH, cfg.SEED, cfg.MODEL.BACKBONE.NAME) == (0.2, 1, 1, "FromMethod")

    cfg = train.setup_cfg(train.parse_args([*files, "--seed", "2", "--backbone", "RN50"]))
    assert (cfg.SEED, cfg.MODEL.BACKBONE.NAME) == (2, "RN50")

    cfg = train.setup_cfg(train.parse_args([*files, "--seed", "2", "SEED", "3", "OPTIM.LR", "3e-4"]))
    assert (cfg.SEED, cfg.OPTIM.LR) == (3, 0.0003)


def test_every_flag_reaches_its_key() -> None:
    cfg = configured(
        *("--root", "/d", "--output-dir", "/o", "--resume", "/r", "--seed", "7", "--source-domains", "a", "b"),
        *("--target-domains", "c", "--transforms", "random_flip", "normalize", "--backbone", "RN50", "--head", "mlp"),
    )
    assert (cfg.DATASET.ROOT, cfg.OUTPUT_DIR, cfg.RESUME, cfg.SEED) == ("/d", "/o", "/r", 7)
    assert (tuple(cfg.DATASET.SOURCE_DOMAINS), tuple(cfg.DATASET.TARGET_DOMAINS)) == (("a", "b"), ("c",))
    assert tuple(cfg.INPUT.TRANSFORMS) == ("random_flip", "normalize")
    assert (cfg.MODEL.BACKBONE.NAME, cfg.MODEL.HEAD.NAME, cfg.TRAINER.NAME) == ("RN50", "mlp", "MaPLe")
    assert cfg.is_frozen()


def first_loss(folder: Path, *seed: str) -> float:
    """The mean loss of one short epoch, in full precision."""
    argv = ["--trainer", "MaPLe", "--dataset-config-file", EMOJI, "--config-file", MICRO, "--output-dir", str(folder)]
    options = {"OPTIM.MAX_EPOCH": 1, "DATASET.NUM_SHOTS": 1, "DATALOADER.TRAIN_X.BATCH_SIZE": 16, "TEST.NO_TEST": True}
    assert train.main([*argv, *seed, *(str(word) for pair in options.items() for word in pair)]) == 0
    return json.loads((folder / "history.jsonl").read_text())["losses"]["loss"]


def test_seed_zero_is_a_seed(tmp_path: Path) -> None:
    """--seed 0 gives the same bits twice; without a seed two runs differ."""
    assert configured().SEED == -1
    assert configured("--seed", "0").SEED == 0
    assert first_loss(tmp_path / "a", "--seed", "0") == first_loss(tmp_path / "b", "--seed", "0")
    assert first_loss(tmp_path / "c") != first_loss(tmp_path / "d")


def test_a_loss_that_is_not_finite_is_one_message_and_in_the_log(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    known = ("--trainer", "MaPLe", "--dataset-config-file", EMOJI, "--config-file", MICRO, "--seed", "1")
    options = ("OPTIM.LR", "1e30", "OPTIM.WARMUP_EPOCH", "0", "DATASET.NUM_SHOTS", "2", "OPTIM.MAX_EPOCH", "2")
    error = failing(capsys, tmp_path, *known, *options)
    assert "Loss is infinite or NaN! (nan in epoch 1, batch" in error and "Lower OPTIM.LR" in error
    assert error in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")


def failing(capsys: pytest.CaptureFixture[str], tmp_path: Path, *argv: str) -> str:
    """The one message of a command that must end with status 2."""
    assert train.main(["--output-dir", str(tmp_path / "run"), *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error
    return error


@pytest.fixture(autouse=True)
def _own_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    """setup_logger replaces sys.stdout: put it back after each test."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)


def test_unknown_names_are_answered_with_the_closest(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    known = ("--dataset-config-file", EMOJI, "--config-file", MICRO)
    assert "MaPLe" in failing(capsys, tmp_path, "--trainer", "Maple", *known)
    assert "ViT-Micro/8" in failing(capsys, tmp_path, "--trainer", "MaPLe", *known, "--backbone", "ViT-Mikro/8")
    assert "Emoji" in failing(capsys, tmp_path, "--trainer", "MaPLe", *known, "DATASET.NAME", "Emojy")
    error = failing(capsys, tmp_path, "--trainer", "MaPLe", *known, "OPTIM.LRR", "1", "TRAINER.MAPLE.NCTX", "4")
    assert "OPTIM.LR" in error
    assert "TRAINER.MAPLE.N_CTX" in error, "all bad keys are named at once"


def test_missing_files_and_names_say_what_to_give(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    error = failing(capsys, tmp_path, "--trainer", "MaPLe", "--config-file", MICRO.replace("micro", "mikro"))
    assert "vit_micro.yaml" in error, "the files that are there are listed"
    assert "give --dataset-config-file" in failing(capsys, tmp_path, "--trainer", "MaPLe")
    assert "give --trainer" in failing(capsys, tmp_path, "--dataset-config-file", EMOJI)
    known = ("--trainer", "MaPLe", "--dataset-config-file", EMOJI)
    assert "pairs KEY VALUE" in failing(capsys, tmp_path, *known, "OPTIM.LR")


def test_missing_imagenet_says_what_was_looked_for_and_where(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    imagenet = tmp_path / "imagenet.yaml"
    imagenet.write_text("DATASET: {NAME: ImageNet}", encoding="utf-8")
    known = ("--trainer", "MaPLe", "--dataset-config-file", str(imagenet), "--config-file", MICRO)
    error = failing(capsys, tmp_path, *known, "--root", str(tmp_path / "data"))
    assert str(tmp_path / "data" / "imagenet") in error


def test_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASSL_TRACEBACK", "1")
    with pytest.raises(ValueError, match="give --trainer"):
        train.main(["--dataset-config-file", EMOJI])


def test_no_train_builds_and_stops(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    argv = ["--trainer", "MaPLe", "--dataset-config-file", EMOJI, "--config-file", MICRO, "--output-dir", str(run)]
    assert train.main([*argv, "--no-train", "DATASET.NUM_SHOTS", "1"]) == 0
    assert {path.name for path in run.iterdir()} == {"log.txt"}
    log = (run / "log.txt").read_text(encoding="utf-8")
    assert "TRAINER.MAPLE.PROMPT_DEPTH: 4" in log, "settings other than the defaults are printed"
    assert "OPTIM.MOMENTUM" not in log, "the defaults are not"
