"""Signals to the entries: the current run ends with them, no other starts, and nothing is left (looked up in /proc).

Stand-ins replace train.py and pip: they wait, with a child of their own, and note every signal.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")]

WAITING = """\
#!{python}
import os, signal, subprocess, sys, time
WAITS = ("train.py", "-m pip install", "-m mypy")
words = " ".join(sys.argv[1:])
if words.startswith("-m pip --version"):
    sys.exit()
if not words.startswith(WAITS):
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]] if not words.startswith("-m ruff") else ["true"])

def note(*what):
    with open(os.environ["NOTES"], "a") as notes:
        print(*what, file=notes, flush=True)

def stop(number, frame):
    note("stopped", number)
    if os.environ.get("STUBBORN"):
        return
    worker.kill()
    worker.wait()
    sys.exit(7)

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, stop)
worker = subprocess.Popen(["sleep", "3.14159" + str(os.getpid())])
note("started", os.getpid(), worker.pid)
while True:
    time.sleep(60)
"""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SWEEP = ("scripts/sweep.sh", "maple", "base2new", "dtd", "1 2")
LISTS = (SWEEP, ("scripts/maple/few_shot.sh", "dtd", "1", "1 2"))


class Started:
    """A script whose stand-in waits."""

    def __init__(self, command: list[str], folder: Path, notes: Path, env: dict[str, str]) -> None:
        self.notes_file = notes
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            start_new_session=True,
            text=True,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        wait_until(lambda: bool(self.notes()), self.process)

    def notes(self) -> list[str]:
        text = self.notes_file.read_text(encoding="utf-8") if self.notes_file.exists() else ""
        return text.splitlines() if text.endswith("\n") else []

    def send(self, number: int, to_group: bool = False) -> None:
        (os.killpg if to_group else os.kill)(self.process.pid, number)

    def end(self) -> tuple[int, list[str]]:
        """The exit status, and the lines on stderr."""
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors.splitlines()

    def left(self) -> list[int]:
        """The processes that it started and that still run."""
        pids = [int(word) for line in self.notes() if line.startswith("started") for word in line.split()[1:]]
        return [pid for pid in pids if is_running(pid)]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], process: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path):
    stand_in, notes = tmp_path / "python", tmp_path / "notes"
    stand_in.write_text(WAITING.format(python=sys.executable), encoding="utf-8")
    stand_in.chmod(0o755)
    env = os.environ | {"PYTHON": str(stand_in), "NOTES": str(notes), "OUTPUT": str(tmp_path / "out")}
    all_started = []

    def script(*words: str, folder: Path = ROOT, before: tuple[str, ...] = (), **settings: str) -> Started:
        started = Started([*before, "bash", *words], folder, notes, env | settings)
        all_started.append(started)
        return started

    yield script
    for started in all_started:
        for pid in [started.process.pid, *started.left()]:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
        started.process.communicate()


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
