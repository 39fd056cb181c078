"""Running the jobs of a plan: where they run, in which order, what became of them.

The run folders are the only state. Besides what train.py writes, a job leaves ``job.log`` there, all that it printed,
and ``job.json``: host, process and command, and the exit status once it has ended.
"""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dassl.utils.files import remove_temporaries
from experiments.protocols import Job
from experiments.states import JOB_FILE, JobState, state_of

__all__ = ["Handle", "Launcher", "Outcome", "drive"]

_LOOK = 0.02  # seconds between two looks at the running jobs
_PATIENCE = 30.0  # seconds that a stopped job has to end by itself
_ELSEWHERE = 2.0  # seconds between two looks at a job that another process runs


class Handle(Protocol):
    """A job that was started."""

    def poll(self) -> int | None:
        """Its exit status, None while it runs.

        Raises:
            BlockingIOError: it was not run, since another process runs it: where that is seen only on a node.
        """

    def stop(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""


class Launcher(Protocol):
    """Where jobs run."""

    def describe(self) -> str:
        """How many jobs run at a time, and on what."""

    def has_room(self) -> bool:
        """Whether another job may start now."""

    def start(self, job: Job, alone: bool = False) -> Handle:
        """Start a job; ``alone`` when nothing else runs, so that it may take all of the machine.

        Raises:
            BlockingIOError: another process has just started the job.
        """


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
        for job, handle in list(self.running.values()):
            try:
                if (status := handle.poll()) is not None:
                    ended.append((job, status))
            except BlockingIOError:
                del self.running[job.folder]
                self.waiting.append(job)
                self._wait_for_another(job)
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
            remove_temporaries(job.path, JOB_FILE)  # of a driver that was killed as the job ended
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
    said = any(words in reason.lower() for words in ("out of memory", "memory ran out"))
    return said or status in (-signal.SIGKILL, 128 + signal.SIGKILL)
