"""What waits and runs in SLURM's queue, and the lists of jobs that were submitted.

What the tasks of an array run is in a list of jobs, ``OUTPUT/.slurm/NAME.json``, where each has the task's index in the
array. NAME is also the array's name in the queue, so that SLURM and the lists together say which jobs are queued.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from dassl.utils.files import read_json, write_json
from dassl.utils.schema import describe
from experiments.protocols import Job
from experiments.runs import ROOT
from experiments.states import JobState, state_of

__all__ = ["FOLDER", "FOLDER_DELAY", "Queue", "Task", "answer", "read_jobs", "states_in", "write_jobs"]

FOLDER = ".slurm"  # below the output folder
FOLDER_DELAY = 60.0  # seconds until a file that another machine wrote is seen in a network folder
_ENDED = ("COMPLETING", "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE")
_MOST_BYTES = 2**26  # of a list of jobs


@dataclass(frozen=True)
class Task:
    """A task of an array that SLURM has."""

    array: str
    index: int
    running: bool
    reason: str  # why it waits

    @property
    def id(self) -> str:
        return f"{self.array}_{self.index}"


class Queue:
    """The jobs of an output folder that SLURM has at this moment.

    Attributes:
        tasks: those that wait or run, by run folder.

    Raises:
        OSError: SLURM does not answer.
        ValueError: the list of an array in the queue is broken.
    """

    def __init__(self, output: str) -> None:
        self.tasks: dict[str, Task] = {}
        lists: dict[str, dict[int, Job]] = {}
        for line in answer("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%r|%j").splitlines():
            number, state, reason, name = line.split("|", 3)
            array, _, index = number.partition("_")
            path = ROOT / output / FOLDER / f"{name}.json"
            if state in _ENDED or not index.isdecimal() or "/" in name or not path.is_file():
                continue
            if name not in lists:
                lists[name] = read_jobs(path)
            if job := lists[name].get(int(index)):
                self.tasks[job.folder] = Task(array, int(index), state == "RUNNING", reason)
        self._ids = {task.id for task in self.tasks.values()}

    def state_of(self, job: Job) -> JobState:
        """The state of a job, from its run folder and the queue."""
        task = self.tasks.get(job.folder)
        if task and not task.running:
            return JobState("queued", reason=f"SLURM {task.id} ({task.reason})")
        state = state_of(job, self._ids)
        if task and state.name not in ("finished", "running"):
            return JobState("running", host=f"SLURM {task.id}")  # it has just started
        return state


def states_in(output: str) -> Callable[[Job], JobState]:
    """What tells the state of a job: its run folder, and SLURM's queue if jobs were submitted from this folder."""
    if not (ROOT / output / FOLDER).is_dir():
        return state_of
    try:
        return Queue(output).state_of
    except OSError as error:
        print(f"{error}. Jobs in SLURM's queue are shown as not started", file=sys.stderr)
        return state_of


def answer(*command: str) -> str:
    """What a command of SLURM prints.

    Raises:
        OSError: there is no such command, or it fails.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise OSError(f"SLURM cannot be asked here: {command[0]}: {error.strerror}") from error
    if done.returncode:
        raise OSError(f"SLURM does not answer: {command[0]}: {done.stderr.strip() or f'status {done.returncode}'}")
    return done.stdout


# ---- lists of jobs ---------------------------------------------------------------------------------------------


def write_jobs(jobs: Mapping[int, Job], path: Path) -> None:
    """Write the jobs of an array, by their index in it."""
    write_json({str(index): asdict(job) for index, job in jobs.items()}, path)


def read_jobs(path: Path) -> dict[int, Job]:
    """Read what :func:`write_jobs` wrote.

    Raises:
        OSError: the list cannot be read.
        ValueError: it is broken, or of another version.
    """
    content = read_json(path, _MOST_BYTES)
    try:
        return {int(index): _typed(Job, found) for index, found in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a list of jobs of this version ({error}): submit them again") from error


def _typed(kind: Any, found: Any) -> Any:
    """A value of JSON as a class of plain data: the entries and their types are exactly those that it declares.

    Raises:
        TypeError: they are others.
    """
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        if not isinstance(found, dict) or found.keys() != hints.keys():
            entries = ", ".join(found) if isinstance(found, dict) else describe(found)
            raise TypeError(f"expected {', '.join(hints)}, found {entries}")
        return kind(**{name: _typed(hint, found[name]) for name, hint in hints.items()})  # type: ignore[operator]
    choices = get_args(kind)
    if get_origin(kind) is tuple and isinstance(found, list):
        return tuple(_typed(choices[0], item) for item in found)
    if type(None) in choices:
        return None if found is None else _typed(choices[0], found)
    if type(found) is not kind:
        raise TypeError(f"expected {kind}, found {describe(found)}")
    return found
