"""train.py: its flags, the precedence of settings, and the single message printed for a mistake."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from yacs.config import CfgNode

import train
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.utils import describe_device
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


def test_pairs_with_and_without_an_equals_sign_and_flags_anywhere() -> None:
    cfg = configured(
        *("OPTIM.LR=1e-3", "DATASET.NUM_SHOTS", "4", "--seed=3", "OPTIM.STEPSIZE", "(-1,)", "INPUT.GN_MEAN", "-1e-5"),
        *("--backbone", "RN50", "TRAINER.MAPLE.CTX_INIT=a=b", "OUTPUT_DIR", "x=y", "DATASET.ROOT=", "--root", "/d"),
    )
    assert (cfg.OPTIM.LR, cfg.DATASET.NUM_SHOTS, cfg.SEED, cfg.OPTIM.STEPSIZE) == (1e-3, 4, 3, (-1,))
    assert (cfg.INPUT.GN_MEAN, cfg.MODEL.BACKBONE.NAME, cfg.DATASET.ROOT) == (-1e-5, "RN50", "")
    assert (cfg.TRAINER.MAPLE.CTX_INIT, cfg.OUTPUT_DIR) == ("a=b", "x=y")
    assert configured("SEED", "-1").SEED == configured("SEED=-1").SEED == configured("--seed", "-1").SEED == -1
    assert configured("OPTIM.LR", "1", "--seed", "2", "OPTIM.LR=3").OPTIM.LR == 3, "the last one counts"
    cfg = configured("--transforms", "random_flip", "normalize", "OPTIM.LR", "0.5", "SEED=4")
    assert (tuple(cfg.INPUT.TRANSFORMS), cfg.OPTIM.LR, cfg.SEED) == (("random_flip", "normalize"), 0.5, 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("OPTIM.LR=",), "OPTIM.LR: takes a number such as 0.0003, not ''"),
        (("OPTIM.LR=fast",), "takes a number"),
        (("OPTIM.LRR=1",), "OPTIM.LRR: no such key (did you mean OPTIM.LR"),
        (("OPTIM.LR", "=", "3"), "'3', has no value"),
        (("OPTIM.LR", "1", "SEED"), "'SEED', has no value (KEY=VALUE is understood, too"),
        (("OPTIM.LR", "--seed", "3"), "'OPTIM.LR', has no value"),
        (("=3",), "no such key"),
        (("--seed", "one"), "SEED: takes an integer such as -1, not 'one'"),
        (("--seed", "-5"), "SEED: -5, expected"),
    ],
)
def test_words_that_are_no_settings(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        configured(*words)
    assert message in str(caught.value)


def test_an_unknown_flag_is_answered_with_the_closest(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--modeldir", "x"], ["OPTIM.LR", "1", "--modeldir", "x"], ["--modeldir=x"]):
        with pytest.raises(SystemExit):
            train.parse_args(words)
        assert "did you mean --model-dir?" in capsys.readouterr().err


def test_everything_wrong_is_in_one_message(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("OPTIM: {LR: fast}\nINPUT: {SIZE: big}", encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        configured("--config-file", str(file), "OPTIM.MAX_EPOCH", "-2", "INPUT.SIZES", "3", "--seed", "-7")
    for part in ("OPTIM.LR: takes", "INPUT.SIZE: takes", "INPUT.SIZES: no such key"):
        assert part in str(caught.value)
    with pytest.raises(ValueError) as caught:
        configured("OPTIM.MAX_EPOCH", "-2", "INPUT.SIZE", "(3,)", "--seed", "-7", "TEST.SPLIT", "all")
    assert all(f"  {key}: " in str(caught.value) for key in ("OPTIM.MAX_EPOCH", "INPUT.SIZE", "SEED", "TEST.SPLIT"))


@pytest.mark.parametrize("also", [(), ("--no-train",), ("--eval-only",)])
def test_values_are_checked_before_data_and_weights(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, also: tuple[str, ...]
) -> None:
    nowhere = ("--trainer", "CoOp", "--root", str(tmp_path), "DATASET.NAME", "Caltech101", "--backbone", "ViT-B/16")
    for words in (("DATASET.NUM_SHOTS", "0"), ("OPTIM.MAX_EPOCH", "0"), ("INPUT.PIXEL_MEAN", "[1, 2]")):
        assert f"{words[0]}: " in failing(capsys, tmp_path, *nowhere, *also, *words)
    error = failing(capsys, tmp_path, *nowhere, *also, "TEST.EVALUATOR", "Clasification", "--trainer", "CoOpp")
    assert "TEST.EVALUATOR: 'Clasification' is not registered (did you mean Classification?)" in error
    assert "TRAINER.NAME: 'CoOpp' is not registered (did you mean CoOp or" in error
    assert not (tmp_path / "run").exists()


def test_no_epochs_are_for_trainers_that_take_no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zero-shot CLIP learns nothing, a closed form has a `fit`; what learns by steps is refused."""

    class ClosedForm(TRAINER_REGISTRY.get("CoOp")):
        def fit(self) -> None:
            pass

    class ZeroShotPlugin(TrainerX):
        pass

    for trainer in (ClosedForm, ZeroShotPlugin):
        monkeypatch.setitem(TRAINER_REGISTRY._obj_map, trainer.__name__, trainer)
    for name in ("ZeroshotCLIP", "ZeroshotCLIP2", "ClosedForm", "ZeroShotPlugin"):
        assert configured("--trainer", name, "OPTIM.MAX_EPOCH", "0").OPTIM.MAX_EPOCH == 0
    for name in ("MaPLe", "CoOp", "CoCoOp", "VPT", "IVLP"):
        with pytest.raises(ValueError, match=f"OPTIM.MAX_EPOCH: 0, expected .*; {name} takes gradient steps"):
            configured("--trainer", name, "OPTIM.MAX_EPOCH", "0")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("--model-dir", "output/x"), "--model-dir output/x --eval-only\n"),
        (("--model-dir", "output/x", "--no-train"), "--no-train --eval-only\n"),
        (("--model-dir", "output/x", "--load-epoch", "3"), "--load-epoch 3 --eval-only\n"),
        (("--load-epoch", "3"), "--load-epoch 3 --eval-only --model-dir FOLDER"),
        (("--load-epoch", "3", "--eval-only"), "--eval-only --model-dir FOLDER"),
        (("--load-epoch", "0", "SEED", "1"), "SEED 1 --eval-only --model-dir FOLDER"),
    ],
)
def test_flags_about_weights_that_do_not_go_together(words: tuple[str, ...], command: str) -> None:
    with pytest.raises(ValueError) as caught:
        configured(*words)
    assert f"  python train.py --trainer MaPLe --dataset-config-file {EMOJI} " in str(caught.value)
    assert command in str(caught.value)
    suggested = [line for line in str(caught.value).splitlines() if line.startswith("  python")]
    assert configured(*suggested[0].split()[2:]).TRAINER.NAME == "MaPLe", "the suggested command is understood"


def test_a_folder_that_does_not_exist_is_named_before_the_data(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "seed1").mkdir()
    words = ("--trainer", "CoOp", "--root", str(tmp_path), "DATASET.NAME", "Caltech101", "--backbone", "ViT-B/16")
    error = failing(capsys, tmp_path, *words, "--eval-only", "--model-dir", str(tmp_path / "seed2/"))
    assert "has no 'seed2' (did you mean seed1?)" in error


def test_a_negative_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--load-epoch is -3, expected an epoch from 0 on"):
        configured("--eval-only", "--model-dir", "x", "--load-epoch", "-3")


def test_a_test_without_weights_says_so_and_has_no_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    argv = ["--dataset-config-file", EMOJI, "--output-dir", str(run), "--seed", "1", "--eval-only"]
    argv += ["DATASET.NUM_SHOTS", "1", "TEST.SPLIT", "val"]
    assert train.main([*argv, "--trainer", "MaPLe", "--config-file", MICRO]) == 0
    log = capsys.readouterr().out
    assert "what MaPLe learns is untrained" in log and "--model-dir" in log
    assert json.loads((run / "results.json").read_text())["epoch"] is None
    zero_shot = ["--trainer", "ZeroshotCLIP", "--config-file", MICRO.replace("MaPLe", "ZeroshotCLIP")]
    assert train.main([*argv, *zero_shot, "--model-dir", str(run), "--load-epoch", "5"]) == 0
    log = capsys.readouterr().out
    assert "Nothing to load" in log and "untrained" not in log
    assert json.loads((run / "results.json").read_text())["epoch"] is None


@pytest.mark.parametrize(
    ("use_cuda", "gpu", "built_for", "line"),
    [
        (True, "H100", "13.0", "Device: GPU (H100)"),
        (False, "H100", "13.0", "Device: CPU (USE_CUDA is False; there is a GPU, H100)"),
        (False, None, None, "Device: CPU (USE_CUDA is False)"),
        (True, None, "13.0", "Device: CPU (no GPU was found"),
        (True, None, None, "is built without support for GPUs)"),
    ],
)
def test_the_device_and_why(
    monkeypatch: pytest.MonkeyPatch, use_cuda: bool, gpu: str | None, built_for: str | None, line: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: gpu)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(torch.version, "hip", None, raising=False)
    assert line in describe_device(use_cuda)


def test_the_device_is_a_flag_and_a_key() -> None:
    assert configured().DEVICE == "auto"
    assert configured("--device", "cuda:1").DEVICE == configured("DEVICE=cuda:1").DEVICE == "cuda:1"
    with pytest.raises(ValueError, match=r"DEVICE: 'gpu', expected one of auto, cpu, cuda, .* \(did you mean cuda\?\)"):
        configured("--device", "gpu")


def test_a_device_that_is_not_there_ends_the_run_first(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    argv = ["--trainer", "MaPLe", "--dataset-config-file", EMOJI, "--config-file", MICRO]
    assert train.main([*argv, "--output-dir", str(tmp_path / "run"), "--device", "cuda"]) == 2
    assert "error: device is cuda, but PyTorch finds no GPU" in "".join(capsys.readouterr())


# fmt: off
OPTION_WORDS = st.text(max_size=6) | st.sampled_from([
    "OPTIM.LR", "OPTIM.LR=1", "SEED", "-1", "-1e-5", "=", "--seed", "--seed=3", "--eval-only", "--model-dir", "x",
    "nan", "--transforms", "normalize", "--no-train", "INPUT.SIZE=(3,3)", "TRAINER.MAPLE.N_CTX", "--load-epoch", "2",
])
# fmt: on


@settings(max_examples=60, deadline=5000)
@given(st.lists(OPTION_WORDS, max_size=6))
def test_any_words_give_a_configuration_or_one_message(words: list[str]) -> None:
    silent = io.StringIO()
    refused = contextlib.suppress(ValueError, SystemExit)
    with contextlib.redirect_stderr(silent), contextlib.redirect_stdout(silent), refused:
        assert configured(*words).is_frozen()
