"""Jobs that run stand_in.py instead of train.py, in any process."""

from dataclasses import dataclass
from pathlib import Path

from experiments.methods import METHODS
from experiments.protocols import Job, Request, few_shot

STAND_IN = Path(__file__).parent / "stand_in.py"


@dataclass(frozen=True)
class StandIn(Job):
    action: str = ""  # "" succeeds at once

    def command(self, python: str) -> list[str]:
        return [python, str(STAND_IN), str(self.path), self.action]


def stand_ins(output: Path, *actions: str) -> list[StandIn]:
    """A job for each action; its number is the job's seed."""
    requests = [Request(METHODS["maple"], "emoji", seed=seed, output=str(output)) for seed in range(len(actions))]
    return [
        StandIn(**vars(few_shot(request)), action=action) for request, action in zip(requests, actions, strict=True)
    ]


def starts(job: Job) -> list[list[str]]:
    """The jobs that were started, in order: seed, and number of threads."""
    file = job.path.parents[1] / "starts.txt"
    return [line.split() for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
