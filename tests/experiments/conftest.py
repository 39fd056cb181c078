"""The fixture of tests that send signals to scripts."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.experiments.waiting import WAITING, Started
from tests.paths import ROOT


@pytest.fixture
def start(tmp_path: Path):
    """Start a script whose train.py waits (see waiting.py); returns once that has started."""
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
        started.process.kill()
        for pid in started.left():
            os.kill(pid, signal.SIGKILL)
        started.process.communicate()
