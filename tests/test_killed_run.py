"""MaPLe through its script, killed by SIGKILL at several moments and started again, ends with the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.paths import ROOT

pytestmark = pytest.mark.slow

EPOCHS = 3
OPTIONS = ("OPTIM.MAX_EPOCH", str(EPOCHS), "DATASET.NUM_SHOTS", "2", "TRAIN.PRINT_FREQ", "1")
OPTIONS += ("TRAIN.CHECKPOINT_FREQ", "1")
RUN = "base2new/train_base/emoji/shots_16/MaPLe/vit_micro/seed0"


def start(output: Path) -> subprocess.Popen[bytes]:
    env = os.environ | {"PYTHON": sys.executable, "OUTPUT": str(output), "OMP_NUM_THREADS": "1"}
    command = ["bash", str(ROOT / "scripts/maple/base2new_train.sh"), "emoji", "0", *OPTIONS]
    log = open(output / "shell.log", "ab")  # noqa: SIM115  (the process keeps it)
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True)


def kill_when(output: Path, condition) -> int:
    """Start the script; kill all of its processes as soon as the condition on the run's folder holds.

    Returns 1 if that was so, 0 if the script came to its end because the moment was missed.
    """
    process = start(output)
    while not condition(output / RUN):
        if process.poll() is not None:
            assert process.returncode == 0, (output / "shell.log").read_text()[-3000:]
            return 0
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    return process.wait() < 0


def finish(output: Path) -> dict[str, torch.Tensor]:
    """Let the script end; the bits of every epoch's checkpoint."""
    assert start(output).wait(200) == 0, (output / "shell.log").read_text()[-3000:]
    folder = output / RUN / "MultiModalPromptLearner"
    tensors = {}
    for epoch in range(1, EPOCHS + 1):
        state = torch.load(folder / f"model.pth.tar-{epoch}", weights_only=True)["state_dict"]
        tensors |= {f"{epoch} {name}": value for name, value in state.items()}
    return tensors


def log_says(text: str):
    """Whether the log has a line that holds the text."""
    return lambda run: (run / "log.txt").exists() and text in (run / "log.txt").read_text()


def writing(name: str):
    """Whether a file of that name is being written: its temporary file is there."""
    return lambda run: any(run.glob(f"**/.{name}*.dassl-tmp"))


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_killed_through_the_script(tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    expected = finish(undisturbed)
    kills = kill_when(killed, log_says("epoch [1/3] batch [4/"))  # inside the first epoch
    kills += kill_when(killed, writing("model.pth.tar"))  # while a checkpoint is written
    kills += kill_when(killed, log_says("epoch [2/3] batch [7/"))  # inside the second
    kills += kill_when(killed, writing("resume.pth.tar"))  # while the state to resume from is written
    kills += kill_when(killed, log_says("Evaluate on"))  # in the final test
    assert kills >= 3, "files are written in milliseconds: those moments may be missed, the others not"
    found = finish(killed)
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []
    assert "Unfinished, resuming" in (killed / "shell.log").read_text()
    assert not list(killed.rglob("*.dassl-tmp"))
