"""Running the jobs of a plan: where they run, in which order, what became of them.

The run folders are the only state. Besides what train.py writes, a job leaves ``job.log`` there, all that it printed,
and ``job.json``: host, process and command, and the exit status once it has ended.
"""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Protocol

from filelock import FileLock, Timeout

from dassl.utils.files import write_json
from experiments.processes import end_with_parent
from experiments.protocols import Job
from experiments.runs import ROOT
from experiments.states import JOB_FILE, LOG, JobState, state_of

__all__ = ["Handle", "Launcher", "Local", "Outcome", "drive"]

_LOCK = ".job.lock"
_LOOK = 0.02  # seconds between two looks at the running jobs
_PATIENCE = 30.0  # seconds that a stopped job has to end by itself
_ELSEWHERE = 2.0  # seconds between two looks at a job that another process runs
_JOB_MEMORY = 3 * 2**30  # bytes of a job on a CPU, ViT-B/16


class Handle(Protocol):
    """A job that was started."""

    def poll(self) -> int | None:
        """Its exit status, None while it runs."""

    def stop(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""


class Launcher(Protocol):
    """Where jobs run."""

    def has_room(self) -> bool:
        """Whether another job may start now."""

    def start(self, job: Job, alone: bool = False) -> Handle:
        """Start a job; ``alone`` when nothing else runs, so that it may take all of the machine."""


# ---- this machine ----------------------------------------------------------------------------------------------


class Process:
    """A train.py on this machine.

    Args:
        job: what to run.
        environment: variables that differ from this process's.

    Raises:
        BlockingIOError: another process has just started the job.
    """

    def __init__(self, job: Job, environment: Mapping[str, str]) -> None:
        command = job.command(sys.executable)
        job.path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(job.path / _LOCK, blocking=False)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise BlockingIOError(f"{job.folder} is run by another process") from error
        self._file = job.path / JOB_FILE
        self._log: IO[bytes] = open(job.path / LOG, "wb")  # noqa: SIM115  (closed when the process has ended)
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then stops its jobs
            preexec_fn=end_with_parent(),
        )
        self._record = {
            "host": socket.gethostname(),
            "process": self._process.pid,
            "command": shlex.join(command),
            "status": None,
        }
        write_json(self._record, self._file)

    def poll(self) -> int | None:
        status = self._process.poll()
        if status is not None and not self._log.closed:
            self._log.close()
            with contextlib.suppress(OSError):  # the folder was removed, or the disk is full: the job has ended anyway
                write_json(self._record | {"status": status}, self._file)
            self._lock.release()
        return status

    def stop(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class Local:
    """Processes on this machine, shared out over its GPUs, or over the cores of a machine without.

    Args:
        at_once: jobs at the same time; by default one for each GPU, or as many as cores and memory allow.
        gpus: identifiers of the GPUs; by default those of CUDA_VISIBLE_DEVICES, or all.
    """

    def __init__(self, at_once: int | None = None, gpus: Sequence[str] | None = None) -> None:
        self.gpus = list(_gpus() if gpus is None else gpus)
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.at_once = at_once or len(self.gpus) or max(1, min(self.cores, _free_memory() // _JOB_MEMORY))
        self._slots: list[Process | None] = [None] * self.at_once

    def _free(self) -> int | None:
        return next((i for i, process in enumerate(self._slots) if process is None or process.poll() is not None), None)

    def has_room(self) -> bool:
        return self._free() is not None

    def start(self, job: Job, alone: bool = False) -> Process:
        slot = self._free()
        assert slot is not None, "start() without room"
        threads = self.cores if alone else max(1, self.cores // self.at_once)
        environment = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(threads)}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        process = self._slots[slot] = Process(job, environment)
        return process


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines()))]


def _free_memory() -> int:
    """Available bytes of this machine; without a way to know, enough for one job."""
    with contextlib.suppress(OSError, StopIteration, ValueError), open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    return _JOB_MEMORY


# ---- the jobs of a plan ----------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What became of the jobs, by run folder."""

    finished: list[str] = field(default_factory=list)  # including those that were before
    failed: dict[str, str] = field(default_factory=dict)  # with the reason
    blocked: list[str] = field(default_factory=list)  # tests whose training failed


def drive(
    jobs: Sequence[Job],
    launcher: Launcher,
    retry_failed: bool = False,
    tell: Callable[[str, Job, JobState], None] = lambda event, job, state: None,
) -> Outcome:
    """Run the jobs that are not finished, each once what it needs is; a failure stops nothing else.

    A job that ran out of memory is tried once more, alone, after the others. One that another process runs is waited
    for. When this function is left early (Ctrl-C, SIGTERM), the running jobs are stopped and save their state.

    Args:
        jobs: a test after the training that it needs.
        launcher: where they run.
        retry_failed: also run those that failed before.
        tell: called with started, finished, failed, blocked or again, the job, and its state.
    """
    return _Driver(list(jobs), launcher, retry_failed, tell).run()


class _Driver:
    def __init__(self, jobs: list[Job], launcher: Launcher, retry_failed: bool, tell: Callable) -> None:
        self.launcher, self.retry_failed, self.tell = launcher, retry_failed, tell
        self.waiting, self.planned = jobs, {job.folder for job in jobs}
        self.again: list[Job] = []  # that ran out of memory
        self.alone: set[str] = set()  # those that were started alone
        self.elsewhere: dict[str, float] = {}  # when to look again at a job that another process runs
        self.running: dict[str, tuple[Job, Handle]] = {}
        self.ended: dict[str, bool] = {}  # whether a job is finished
        self.outcome = Outcome()

    def run(self) -> Outcome:
        try:
            while self.waiting or self.running or self.again:
                changed = self._collect()
                changed = self._start_all() or changed
                if self.again and not self.running and not changed:
                    if self._start(self.again[0], alone=True):
                        del self.again[0]
                elif not changed:
                    time.sleep(_LOOK)
        finally:
            self._stop()
        return self.outcome

    def _collect(self) -> bool:
        """Take note of the jobs that have ended."""
        ended = []
        for job, handle in self.running.values():
            if (status := handle.poll()) is not None:
                ended.append((job, status))
        for job, status in ended:
            del self.running[job.folder]
            state = state_of(job)
            if state.name == "finished":
                self._end(job, "finished", state)
            elif _ran_out_of_memory(status, state.reason) and job.folder not in self.alone:
                self.again.append(job)
                self.tell("again", job, state)
            else:
                self._fail(job, state.reason or f"exit status {status}")
        return bool(ended)

    def _fail(self, job: Job, reason: str) -> None:
        self.outcome.failed[job.folder] = reason
        self._end(job, "failed", JobState("failed", reason=reason))

    def _end(self, job: Job, event: str, state: JobState) -> None:
        self.ended[job.folder] = event == "finished"
        if event == "finished":
            self.outcome.finished.append(job.folder)
        self.tell(event, job, state)

    def _start_all(self) -> bool:
        """Start what may start."""
        still, changed = [], False
        for number, job in enumerate(self.waiting):
            if not self.launcher.has_room():
                still += self.waiting[number:]
                break
            if self._settle(job):
                changed = True
            else:
                still.append(job)
        self.waiting = still
        return changed

    def _settle(self, job: Job) -> bool:
        """Start a job, or see that it need not or cannot run; False if it has to wait."""
        if time.monotonic() < self.elsewhere.get(job.folder, 0.0):
            return False
        if job.needs and job.needs.folder in self.planned:
            if job.needs.folder not in self.ended:
                return False
            if not self.ended[job.needs.folder]:
                self.outcome.blocked.append(job.folder)
                self._end(job, "blocked", JobState("waiting", reason=f"the training in {job.needs.folder} failed"))
                return True
        state = state_of(job)
        if state.name == "running":
            return self._wait_for_another(job)
        if state.name == "finished":
            self._end(job, "finished", state)
        elif state.name == "failed" and not self.retry_failed:
            self._fail(job, state.reason)
        elif state.name == "waiting":
            self._fail(job, "the training whose weights it tests is neither finished nor among these jobs")
        else:
            return self._start(job)
        return True

    def _wait_for_another(self, job: Job) -> bool:
        self.elsewhere[job.folder] = time.monotonic() + _ELSEWHERE
        return False

    def _start(self, job: Job, alone: bool = False) -> bool:
        try:
            handle = self.launcher.start(job, alone)
        except BlockingIOError:
            return self._wait_for_another(job)
        if alone:
            self.alone.add(job.folder)
        self.running[job.folder] = (job, handle)
        self.tell("started", job, JobState("running"))
        return True

    def _stop(self) -> None:
        """Stop what still runs, and wait for it."""
        for _, handle in self.running.values():
            handle.stop()
        deadline = time.monotonic() + _PATIENCE
        while self.running and time.monotonic() < deadline:
            self.running = {folder: found for folder, found in self.running.items() if found[1].poll() is None}
            time.sleep(_LOOK)
        for _, handle in self.running.values():
            handle.kill()


def _ran_out_of_memory(status: int, reason: str) -> bool:
    """Whether a job was killed, as Linux does when memory runs out, or said so itself."""
    return status in (-signal.SIGKILL, 128 + signal.SIGKILL) or "out of memory" in reason.lower()
