"""A plan whose driver and jobs are killed at random moments and started again ends as if nothing had happened.

A stand-in replaces train.py: it has epochs, resumes from its last one, refuses a folder that another process uses, and
has a worker; its result is a sum over its epochs. tests/test_killed_run.py kills the real one.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from experiments.methods import METHODS
from experiments.protocols import Job, Request, few_shot
from experiments.states import JOB_FILE, state_of
from tests.paths import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")]

SEEDS = range(14)
EPOCHS = 8
KILLS = 10
TRAIN = """\
import fcntl, json, os, subprocess, sys, time
from pathlib import Path

folder, seed, epochs = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

def note(what):
    with open(folder.parents[1] / "notes.txt", "a") as file:
        file.write(f"{what} {seed}\\n")

def write(name, content):
    (folder / f".{name}.new").write_text(json.dumps(content))
    os.replace(folder / f".{name}.new", folder / name)

lock = open(folder / ".lock", "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    note("overlap")
    sys.exit("error: another process is writing to the folder")
note("start")
worker = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", str(folder)], stdin=subprocess.PIPE)
state = folder / "state.json"
done = json.loads(state.read_text()) if state.exists() else []
for epoch in range(len(done), epochs):
    time.sleep(0.05)
    done.append((epoch + 1) * (seed + 1) % 7)
    write("state.json", done)
worker.stdin.close()
worker.wait()
write("results.json", {"accuracy": float(sum(done)), "complete": True})
note("end")
"""
DRIVE = """\
import sys
from pathlib import Path

from experiments.launch import drive
from experiments.local import Local
from experiments.methods import METHODS
from experiments.protocols import Job, Request, few_shot

output, train, epochs, seeds = sys.argv[1:5]
Job.command = lambda job, python: [python, train, str(job.path), str(job.run.seed), epochs]
jobs = [few_shot(Request(METHODS["maple"], "emoji", seed=seed, output=output)) for seed in range(int(seeds))]
sys.exit(bool(drive(jobs, Local(2, [])).failed))
"""


class Plan:
    """A plan of stand-ins, and its driver."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output"
        self.train = folder / "train.py"
        self.train.parent.mkdir(parents=True, exist_ok=True)
        self.train.write_text(TRAIN, encoding="utf-8")
        self.driver: subprocess.Popen[bytes] | None = None

    @property
    def jobs(self) -> list[Job]:
        return [few_shot(Request(METHODS["maple"], "emoji", seed=seed, output=str(self.output))) for seed in SEEDS]

    def start(self) -> subprocess.Popen[bytes]:
        words = [str(self.output), str(self.train), str(EPOCHS), str(len(SEEDS))]
        self.driver = subprocess.Popen([sys.executable, "-c", DRIVE, *words], cwd=ROOT)
        return self.driver

    def is_running(self) -> bool:
        return self.driver is not None and self.driver.poll() is None

    def finish(self) -> dict[int, float]:
        """Drive the plan to its end; the accuracies by seed."""
        status = 1
        for _ in range(3):  # a job that was killed twice counts as failed, until the next command
            driver = self.driver if self.driver and self.is_running() else self.start()
            status = status and driver.wait(60)
        assert status == 0
        return {job.run.seed: json.loads((job.path / "results.json").read_text())["accuracy"] for job in self.jobs}

    def processes(self) -> list[int]:
        """Those that have the plan's folder on their command line."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if any(str(self.output).encode() in word for word in words):
                found.append(int(path.parent.name))
        return found

    def running_jobs(self) -> list[int]:
        records = [path for job in self.jobs if (path := job.path / JOB_FILE).exists()]
        found = [record for path in records if (record := json.loads(path.read_text()))["status"] is None]
        return [record["process"] for record in found if record["process"] in self.processes()]


def kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def test_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    plan, drawn, killed = Plan(tmp_path), random.Random(1), {"driver": 0, "jobs": 0}
    for number in range(KILLS):
        if not plan.is_running():
            plan.start()
        while plan.is_running() and not plan.running_jobs():
            time.sleep(0.01)
        assert plan.is_running(), f"the plan was over after {number} kills"
        time.sleep(drawn.uniform(0.0, 0.5))
        what = ("driver and jobs", "a job", "the driver")[number % 3]
        jobs = plan.running_jobs()
        for job in {"driver and jobs": jobs, "a job": jobs[:1], "the driver": []}[what]:
            kill(job)
            killed["jobs"] += 1
        if what != "a job" and plan.driver:
            kill(plan.driver.pid)
            plan.driver.wait()
            killed["driver"] += 1
    accuracies = {s: float(sum((epoch + 1) * (s + 1) % 7 for epoch in range(EPOCHS))) for s in SEEDS}
    assert plan.finish() == accuracies
    assert killed["driver"] >= 6 and killed["jobs"] >= 3

    [file] = plan.output.rglob("notes.txt")
    notes = file.read_text(encoding="utf-8").splitlines()
    assert not [note for note in notes if note.startswith("overlap")], "a job was started while it ran"
    for seed in SEEDS:
        own = [note.split()[0] for note in notes if note.endswith(f" {seed}")]
        assert own.count("end") == 1 and own[-1] == "end", f"seed {seed} ran again after its end: {own}"
    assert [state_of(job).name for job in plan.jobs] == ["finished"] * len(SEEDS)

    deadline = time.monotonic() + 10
    while plan.processes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not plan.processes()
    assert not list(plan.output.rglob("*.dassl-tmp"))
    for lock in plan.output.rglob("*.lock"):
        with FileLock(lock, blocking=False):
            pass
