"""What `run` shows while jobs run: a bar on a terminal, else a line for each job."""

import io
import sys

import pytest

from experiments import __main__ as experiments
from experiments.__main__ import Progress
from experiments.methods import METHODS
from experiments.protocols import Request, few_shot
from experiments.states import JobState


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def jobs():
    return [few_shot(Request(METHODS["maple"], "emoji", seed=seed)) for seed in range(6)]


def test_a_bar_counts_what_runs_now_and_estimates_from_this_run_alone(jobs, monkeypatch, capsys):
    """Two of six were finished before. After 10 s one of two running ones has ended: 3 left at 10 s each."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    clock = [1000.0]
    with Progress(6) as progress:
        progress._bar._time = lambda: clock[0]
        progress._bar.start_t = progress._bar.last_print_t = clock[0]
        for job in jobs[:2]:
            progress.tell("finished", job, JobState("finished"))
        for job in jobs[2:4]:
            progress.tell("started", job, JobState("running"))
        clock[0] += 10
        progress.tell("failed", jobs[2], JobState("failed", reason="error: no data"))
    text = terminal.getvalue()
    last = text.split("\r")[-1]
    assert "3/6 [00:10<00:30, 10.00s/job" in last and "failed=1, running=1" in last
    out = capsys.readouterr().out
    assert out == f"[3/6] failed: {jobs[2].folder}: error: no data\n"  # above the bar


def test_without_a_terminal_there_is_a_line_for_every_start_and_end(jobs, capsys):
    with Progress(6) as progress:
        progress.tell("started", jobs[0], JobState("running"))
        progress.tell("again", jobs[0], JobState("failed"))
        progress.tell("finished", jobs[0], JobState("finished", accuracy=50.0))
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == [
        "started",
        "out of memory, to be tried alone",
        "[1/6] finished",
    ]
    assert out.endswith("(50.00 %)\n") and not err


def test_the_command_line_has_the_launchers_that_there_are():
    assert experiments.LAUNCHERS.keys() <= experiments.FLAGS_OF.keys()
