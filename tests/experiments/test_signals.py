"""Signals to the entries: the current run ends with them, no other starts, and nothing is left (looked up in /proc).

Stand-ins replace train.py and pip (waiting.py).
"""

import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.experiments.waiting import wait_until
from tests.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SWEEP = ("scripts/sweep.sh", "maple", "base2new", "dtd", "1 2")
LISTS = (SWEEP, ("scripts/maple/few_shot.sh", "dtd", "1", "1 2"))


@pytest.mark.parametrize("to_group", [False, True], ids=["alone", "group"])
@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("words", LISTS, ids=["sweep", "few_shot"])
def test_a_list_of_runs_ends(start, words: tuple, number: signal.Signals, to_group: bool) -> None:
    started = start(*words)
    started.send(number, to_group)
    code, errors = started.end()
    assert code == 128 + number
    name = "Ctrl-C" if number == signal.SIGINT else number.name
    assert errors == [f"stopped by {name}: the same command continues; finished runs are skipped"]
    assert [line.split()[0] for line in started.notes()] == ["started", "stopped"], "one run got one signal"
    assert started.notes()[1] == f"stopped {int(number)}"
    assert not started.left()


@pytest.mark.parametrize("number", ENDING)
def test_a_single_run_gets_the_signal_itself(start, number: signal.Signals) -> None:
    started = start("scripts/maple/base2new_train_maple.sh", "dtd", "1")
    started.send(number)
    assert started.end() == (7, []) and not started.left()


def test_a_second_signal_ends_at_once(start) -> None:
    started = start(*SWEEP, STUBBORN="1")
    started.send(signal.SIGINT)
    wait_until(lambda: len(started.notes()) == 2)
    time.sleep(0.3)
    assert started.process.poll() is None and started.left()
    started.send(signal.SIGINT)
    assert started.end()[0] == 130
    wait_until(lambda: not started.left())


def test_a_signal_sent_twice_at_once_is_one(start) -> None:
    """timeout(1) sends it to its command and then to the group that the command is in."""
    started = start(*SWEEP, before=("timeout", "-s", "TERM", "3"))
    assert started.end()[0] == 124
    wait_until(lambda: not started.left())
    assert [line.split()[0] for line in started.notes()] == ["started", "stopped"]


def test_ignored_signals_stay_ignored(start) -> None:
    started = start(*SWEEP, before=("nohup",))
    started.send(signal.SIGHUP, to_group=True)
    time.sleep(0.3)
    assert started.process.poll() is None and len(started.notes()) == 1
    started.send(signal.SIGTERM)
    assert started.end()[0] == 143


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells a process that its parent ended")
def test_a_killed_sweep_leaves_nothing(start) -> None:
    started = start(*SWEEP)
    started.send(signal.SIGKILL)
    assert started.end()[0] == -9
    wait_until(lambda: not started.left())


def test_stopped_and_continued(start) -> None:
    """Ctrl-Z and fg: the run pauses with the sweep."""
    started = start(*SWEEP)
    run = int(started.notes()[0].split()[1])
    state = lambda pid: Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]  # noqa: E731
    started.send(signal.SIGTSTP)
    wait_until(lambda: state(run) == "T" and state(started.process.pid) == "T")
    started.send(signal.SIGCONT)
    wait_until(lambda: state(run) != "T")
    started.send(signal.SIGTERM)
    assert started.end()[0] == 143


# ---- scripts that install and test -----------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the scripts with a virtual environment whose pip, or mypy, waits."""
    copy = tmp_path / "clone"
    shutil.copytree(ROOT / "scripts", copy / "scripts", ignore=shutil.ignore_patterns("demo"))
    (copy / "requirements.txt").write_text("one==1\n", encoding="utf-8")
    (copy / ".venv/bin").mkdir(parents=True)
    return copy


@pytest.mark.parametrize("to_group", [False, True], ids=["alone", "group"])
@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("script", ["setup.sh", "quickstart.sh", "test.sh"])
def test_an_installation_ends(
    start, checkout: Path, tmp_path: Path, script: str, number: signal.Signals, to_group: bool
) -> None:
    shutil.copy(tmp_path / "python", checkout / ".venv/bin/python")
    started = start(f"scripts/{script}", folder=checkout, PYTHON=sys.executable)
    started.send(number, to_group)
    code, errors = started.end()
    assert code == 128 + number
    assert errors == [f"stopped by {number.name}: the same command starts again"]
    assert len(started.notes()) == 2, "nothing is started after it"
    assert not started.left() and not (checkout / ".venv/requirements.installed").exists()


def test_the_checks_end(start, checkout: Path, tmp_path: Path) -> None:
    """SIGTERM during mypy."""
    (checkout / ".venv/requirements.installed").write_text("one==1\n", encoding="utf-8")
    shutil.copy(tmp_path / "python", checkout / ".venv/bin/python")
    started = start("scripts/test.sh", folder=checkout)
    started.send(signal.SIGTERM)
    code, errors = started.end()
    assert (code, errors) == (143, ["stopped by SIGTERM: the same command starts again"])
    assert not started.left()
