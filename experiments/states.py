"""The state of a job, read from its run folder."""

import json
import math
import os
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dassl.utils.files import read_json
from experiments.protocols import Job
from experiments.runs import read_settings

__all__ = ["JOB_FILE", "LOG", "JobState", "last_line", "state_of"]

JOB_FILE = "job.json"
LOG = "job.log"
_MOST_BYTES = 2**20  # of what a launcher writes about a job
_QUIET = 600  # seconds
_INTERRUPTED = (-1, -2, -9, -15, 129, 130, 137, 143)  # exit statuses of a process that a signal ended


@dataclass(frozen=True)
class JobState:
    """A job's state.

    Attributes:
        name: ``queued`` is one that waits in a scheduler's queue, ``waiting`` a test whose training is not finished,
            ``interrupted`` one that the next run resumes.
        accuracy: of a finished job, in percent; None if it was not tested.
        epoch, seconds_left: of a running one: epochs done, and the time that the others take at their pace.
        host: where it runs.
        reason: of a failed one: the last line that it printed.
    """

    name: Literal["finished", "running", "queued", "failed", "interrupted", "waiting", "not started"]
    accuracy: float | None = None
    epoch: str = ""
    seconds_left: float | None = None
    host: str = ""
    reason: str = ""


def state_of(job: Job, queue: Collection[str] | None = None) -> JobState:
    """The state of a job.

    Args:
        queue: ids of the jobs that SLURM has now; None if it was not asked.
    """
    folder = job.path
    record = _read(folder / JOB_FILE)
    if record and record.get("status") is None and _is_alive(record, folder, queue):
        return _progress(folder, str(record.get("host")))
    status = job.status()
    if status.differences:
        return JobState("failed", reason="it has finished with other settings: " + "; ".join(status.differences))
    if status.state == "finished":
        return JobState("finished", status.accuracy)
    ended = record.get("status") if record else None
    if isinstance(ended, int) and ended and ended not in _INTERRUPTED:
        return JobState("failed", reason=last_line(folder / LOG) or f"exit status {ended}")
    if record:
        return JobState("interrupted", reason=last_line(folder / LOG))
    if not job.is_ready():
        return JobState("waiting")
    return JobState("interrupted" if status.state == "unfinished" else "not started")


def last_line(path: Path) -> str:
    """The last line of a file that is not empty, "" if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _read(path: Path) -> Mapping[str, Any]:
    """What a launcher wrote about a job; nothing if there is no such file, or another one."""
    try:
        content = read_json(path, _MOST_BYTES)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, Mapping) else {}


def _is_alive(record: Mapping[str, Any], folder: Path, queue: Collection[str] | None) -> bool:
    """Whether the process of a job is there; on another host, whether it has written in the last ten minutes."""
    if queue is not None and "slurm" in record:
        return record["slurm"] in queue
    if record.get("host") != socket.gethostname():
        return time.time() - max((path.stat().st_mtime for path in folder.iterdir()), default=0) < _QUIET
    process = record.get("process")
    if not isinstance(process, int):
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # it is somebody else's
    command = Path(f"/proc/{process}/cmdline")  # on Linux: another process may have taken over the number
    try:
        return not command.exists() or b"train.py" in command.read_bytes()
    except OSError:
        return False


def _progress(folder: Path, host: str) -> JobState:
    """How far a running job is, from what it has written."""
    try:
        rows = [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
        epochs = _epochs(read_settings(folder / "config.yaml"), rows)
        pace = sum(row["seconds"] for row in rows) / len(rows) if rows else None
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError, RecursionError):
        return JobState("running", host=host)
    left = None if pace is None or epochs is None else pace * (epochs - len(rows))
    return JobState("running", epoch=f"{len(rows)}/{epochs or '?'}", seconds_left=left, host=host)


def _epochs(settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> int | None:
    """The epochs of a training; None if a number of steps decides on them, and no epoch has told its own yet."""
    steps = int(settings.get("OPTIM.STEPS_PER_SHOT") or 0) * int(settings.get("DATASET.NUM_SHOTS") or 0)
    if steps <= 0:
        return int(settings["OPTIM.MAX_EPOCH"])
    return math.ceil(steps / rows[0]["steps"]) if rows else None
