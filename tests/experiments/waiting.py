"""Scripts whose train.py and pip are stand-ins that wait, with a child of their own, and note every signal."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

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
