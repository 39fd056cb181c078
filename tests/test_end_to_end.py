"""Every method trains and tests on the embedded demonstration through its scripts, for one short epoch."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.paths import ROOT

pytestmark = pytest.mark.slow

TRAINED = {
    "maple": ("MaPLe", "", "vit_micro", "MultiModalPromptLearner"),
    "coop": ("CoOp", "", "vit_micro", "prompt_learner"),
    "cocoop": ("CoCoOp", "", "vit_micro", "prompt_learner"),
    "kgcoop": ("KgCoOp", "", "vit_micro", "prompt_learner"),
    "tcp": ("TCP", "", "vit_micro", "prompt_learner"),
    "vpt": ("VPT", "_vpt", "vit_micro", "prompt_learner"),
    "independent-vlp": ("IVLP", "_ivlp", "vit_micro", "VLPromptLearner"),
    "language-prompting": ("IVLP", "_lp", "vit_micro_language_only", "VLPromptLearner"),
    "promptsrc": ("PromptSRC", "", "vit_micro", "VLPromptLearner"),
    "prograd": ("ProGrad", "", "vit_micro", "prompt_learner"),
}


def run(script: str, *arguments: str, output: Path, **env: str) -> str:
    variables = os.environ | {"PYTHON": sys.executable, "OUTPUT": str(output), "OMP_NUM_THREADS": "1"} | env
    command = ["bash", str(ROOT / "scripts" / script), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def results(folder: Path, **expected: object) -> dict:
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert found["complete"] is True
    assert {key: found[key] for key in expected} == expected
    assert found["accuracy"] == pytest.approx(100 * found["correct"] / found["total"])
    assert math.isfinite(found["macro_f1"])
    return found


@pytest.mark.parametrize("method", TRAINED)
def test_method_through_its_scripts(method: str, tmp_path: Path) -> None:
    trainer, suffix, config, registered = TRAINED[method]
    short = ("OPTIM.MAX_EPOCH", "1", "DATALOADER.TRAIN_X.BATCH_SIZE", "4")
    run(f"{method}/base2new_train{suffix}.sh", "emoji", "1", *short, output=tmp_path, SHOTS="1")
    run(f"{method}/base2new_test{suffix}.sh", "emoji", "1", output=tmp_path, SHOTS="1")
    common = f"emoji/shots_1/{trainer}/{config}/seed1"
    train, test = tmp_path / "base2new/train_base" / common, tmp_path / "base2new/test_new" / common

    same = {"protocol": "base2new", "dataset": "Emoji", "trainer": trainer, "config": config, "seed": 1, "shots": 1}
    base = results(train, classes="base", epoch=1, **same)
    new = results(test, classes="new", epoch=1, **same)
    assert base["learned_parameters"] == new["learned_parameters"] > 0

    for name in ("log.txt", "config.yaml", "history.jsonl", "tensorboard"):
        assert (train / name).exists(), f"{name} is missing in {sorted(p.name for p in train.iterdir())}"
    checkpoint = torch.load(train / registered / "model.pth.tar-1", weights_only=True)
    learned = sum(tensor.numel() for tensor in checkpoint["state_dict"].values())
    assert learned == base["learned_parameters"], "a checkpoint holds the learned tensors only"


@pytest.mark.parametrize("trainer", ["ZeroshotCLIP", "ZeroshotCLIP2"])
def test_zero_shot_and_the_table(trainer: str, tmp_path: Path) -> None:
    run("zsclip/base2new_train.sh", "emoji", "1", output=tmp_path, TRAINER=trainer)
    run("zsclip/base2new_test.sh", "emoji", "1", output=tmp_path, TRAINER=trainer)
    folder = tmp_path / f"base2new/train_base/emoji/shots_16/{trainer}/vit_micro/seed1"
    found = results(folder, trainer=trainer, learned_parameters=0, protocol="base2new", precision="fp32")
    skipped = run("zsclip/base2new_train.sh", "emoji", "1", output=tmp_path, TRAINER=trainer)
    assert "Finished already, skipped" in skipped
    command = [sys.executable, str(ROOT / "scripts/results.py"), str(tmp_path)]
    table = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert f"{found['accuracy']:.2f}" in table
    assert "incomplete" not in table


def test_transfer_to_another_dataset(tmp_path: Path) -> None:
    """The cross-dataset protocol with the embedded demonstration as source and as target.

    The test takes the number of context tokens, which differs from the config's, from the training.
    """
    short = ("OPTIM.MAX_EPOCH", "1", "DATALOADER.TRAIN_X.BATCH_SIZE", "8")
    run("maple/xd_train.sh", "emoji", "1", *short, "TRAINER.MAPLE.N_CTX=3", output=tmp_path, SHOTS="1")
    run("maple/xd_test.sh", "emoji", "1", output=tmp_path, SHOTS="1", SOURCE="emoji")
    source = results(tmp_path / "emoji/MaPLe/vit_micro_1shots/seed1", protocol="few_shot", classes="all")
    folder = tmp_path / "evaluation_emoji/MaPLe/vit_micro_1shots/emoji/seed1"
    target = results(folder, protocol="cross_dataset", classes="all")
    assert target["accuracy"] == source["accuracy"], "the same weights on the same classes"
