"""Commands that messages suggest are run as they are printed, and do what the message says."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.stand_in import SCRIPTS, Shell, option

pytestmark = pytest.mark.slow


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def suggested(message: str) -> str:
    """The last command of a message, with its settings."""
    return re.findall(r"(?:\b[A-Z]+=(?:'[^']*'|\S)+ )*\bbash (?!\S+ DATASET).*", message)[-1]


def run_suggested(shell: Shell, message: str, cwd: Path = SCRIPTS.parent) -> subprocess.CompletedProcess[str]:
    done, _ = shell.run(["bash", "-c", suggested(message)], cwd)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize(
    ("entry", "words", "settings", "trains"),
    [
        ("maple/base2new_test.sh", ("dtd", "2"), {}, "base2new/train_base/dtd/shots_16/MaPLe"),
        ("maple/base2new_test_maple.sh", ("dtd", "2"), {"SHOTS": "4"}, "base2new/train_base/dtd/shots_4/MaPLe"),
        ("vpt/base2new_test_vpt.sh", ("dtd", "2", "OPTIM.LR=0.1"), {"DATA": "some data"}, "base2new/train_base/dtd"),
        ("maple/xd_test.sh", ("eurosat", "2"), {}, "imagenet/MaPLe/vit_b16_c2_ep5_batch4_2ctx_cross_datasets_16shots"),
        ("coop/xd_test.sh", ("eurosat", "2"), {"SHOTS": "1", "CFG": "vit_b16"}, "imagenet/CoOp/vit_b16_1shots"),
        ("maple/xd_test.sh", ("eurosat", "2"), {"SOURCE": "emoji"}, "emoji/MaPLe/vit_micro_16shots"),
        ("coop/eval.sh", ("eurosat", "vit_b16"), {"SEEDS": "2"}, "imagenet/CoOp/vit_b16_16shots/nctx16_cscFalse"),
        ("coop/eval.sh", ("dtd", "vit_b16"), {"SEEDS": "2", "NCTX": "4", "SHOTS": "8"}, "imagenet/CoOp/vit_b16_8shots"),
    ],
)
def test_a_test_names_the_training_that_it_needs(
    shell: Shell, tmp_path: Path, elsewhere: bool, entry: str, words: tuple, settings: dict, trains: str
) -> None:
    folder = tmp_path if elsewhere else SCRIPTS.parent
    if elsewhere:
        settings = settings | {"OUTPUT": "my runs"}
    refused, calls = shell(entry, *words, cwd=folder, **settings)
    assert refused.returncode == 2 and not calls
    assert "no finished training in " in refused.stderr
    run_suggested(shell, refused.stderr, folder)
    (call,) = shell.calls.read_text(encoding="utf-8").splitlines()
    output = f"{tmp_path}/my runs" if elsewhere else f"{tmp_path}/out"
    assert f"--output-dir {output}/{trains}" in call and "seed2" in call
    if "DATA" in settings:
        assert f"--root {folder / 'some data' if elsewhere else 'some data'} " in call
    tested, calls = shell(entry, *words, cwd=folder, **settings)
    assert tested.returncode == 0, tested.stderr
    assert f"--model-dir {output}/{trains}" in calls[1]


@pytest.mark.parametrize(
    ("entry", "words", "runs"),
    [
        ("maple/base2new_train.sh", ("dtd", "1 2 3"), 3),
        ("maple/base2new_train.sh", ("dtd", "1,2"), 2),
        ("maple/base2new_train.sh", ("dtd", "1", "2", "3", "OPTIM.LR", "0.1"), 3),
        ("maple/base2new_train_maple.sh", ("dtd eurosat", "1"), 2),
        ("independent-vlp/base2new_train_ivlp.sh", ("dtd", "1 2"), 2),
        ("maple/xd_train.sh", ("1 2 3",), 3),
        ("zsclip/base2new_test.sh", ("dtd,eurosat", "1 2"), 4),
    ],
)
def test_lists_given_to_an_entry_of_one_run(shell: Shell, entry: str, words: tuple, runs: int) -> None:
    refused, calls = shell(entry, *words)
    assert refused.returncode == 2 and not calls
    assert "one dataset and one seed at a time" in refused.stderr and "usage: bash" in refused.stderr
    line = next(line for line in refused.stderr.splitlines() if line.startswith("error:"))
    run_suggested(shell, line)
    calls = shell.calls.read_text(encoding="utf-8").splitlines()
    assert len({option(call, "--output-dir") for call in calls}) == runs
    assert all("OPTIM.LR 0.1" in call for call in calls) == ("OPTIM.LR" in words)


def test_failed_runs_of_a_sweep_are_repeated_by_the_printed_commands(shell: Shell) -> None:
    words = ("sweep.sh", "vpt", "base2new", "dtd", "1 2", "OPTIM.LR=0.1")
    failed, calls = shell(*words, FAIL="the disk is full", SHOTS="4")
    assert failed.returncode == 1
    assert len(calls) == 2, "no test without its training"
    lines = failed.stderr.splitlines()
    assert lines.count("failed: scripts/vpt/base2new_train_vpt.sh dtd 1: exit status 1, error: the disk is full") == 1
    assert "failed: scripts/vpt/base2new_test_vpt.sh dtd 2: not run, its training failed" in lines
    commands = [line.strip() for line in lines if line.startswith("  ")]
    assert len(commands) == 4
    for command in commands:
        run_suggested(shell, command)
    again, calls = shell(*words, SHOTS="4")
    assert again.returncode == 0 and len(calls) == 2 + 4, "all of them are finished"
    assert again.stdout.count("Finished already, skipped") == 4
