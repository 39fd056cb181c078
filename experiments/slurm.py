"""The launcher for SLURM: it hands all jobs to the queue at once, as arrays that run without this process.

submitit writes the batch script, hands it to sbatch, and tells a task which one it is. The functions that it can pickle
are not used: a task takes its job from a list (experiments/slurm_queue.py, experiments/slurm_task.py).
"""

import contextlib
import io
import itertools
import re
import secrets
import shlex
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from experiments.launch import Outcome
from experiments.protocols import Job
from experiments.runs import ROOT
from experiments.slurm_queue import FOLDER, FOLDER_DELAY, Queue, answer, write_jobs
from experiments.states import JobState

__all__ = ["Slurm"]

_WARNING = 90  # seconds between the signal that a job's time is up and its end
_SET_HERE = (
    *("array", "chdir", "dependency", "error", "job-name", "kill-on-invalid-dep", "open-mode", "output", "parsable"),
    *("nodes", "ntasks", "ntasks-per-node", "requeue", "no-requeue", "signal", "wait", "wrap"),
)
_LOOK = 15.0  # seconds between two looks at the queue; SLURM's controller serves the whole cluster
_TRIES = 20  # looks in a row that may fail
_LARGEST_ARRAY = 1000  # where the cluster does not say


class Slurm:
    """A SLURM cluster, from a machine that can submit to it.

    Args:
        name: of the plan, for names in the queue.
        output: folder of all runs, on a disk that the nodes share.
        limit: time of a job, as sbatch takes it. A job that reaches it goes back into the queue and resumes.
        gpus: of each job, 0 or 1.
        cpus: of each job.
        at_once: how many tasks of an array run at the same time; None for as many as SLURM starts.
        options: KEY=VALUE or KEY, of sbatch.

    Raises:
        ValueError: submitit or SLURM is not there, or options that are set here.
    """

    def __init__(
        self,
        name: str,
        output: str,
        limit: str = "4:00:00",
        gpus: float = 1,
        cpus: int = 8,
        at_once: int | None = None,
        options: Sequence[str] = (),
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            raise ValueError(
                f"--launcher slurm needs submitit, and {sys.executable} has no such package: "
                "run `bash scripts/setup.sh slurm`, or `pip install 'submitit>=1.5,<2'`"
            ) from error
        given = _given(options)
        own_gpus = any(key.startswith(("gpus", "gres")) for key in given)
        self.settings: dict[str, object] = {"time": limit, "nodes": 1, "cpus-per-task": cpus}
        self.settings |= {} if own_gpus or not gpus else {"gpus-per-node": int(gpus)}
        self.settings |= given | {"requeue": True, "signal": f"USR2@{_WARNING}", "chdir": str(ROOT)}
        self.name = re.sub(r"[^\w.-]", "-", Path(name).stem)
        self.output, self.folder, self.at_once = output, ROOT / output / FOLDER, at_once
        self.arrays: list[str] = []  # ids of those that were submitted, or found in the queue
        try:
            self._executor = submitit.SlurmExecutor(self.folder)
        except RuntimeError as error:
            raise ValueError("--launcher slurm: no srun here. Use a machine of the cluster") from error
        self._refused = submitit.core.utils.FailedJobError

    def describe(self) -> str:
        settings = [(key, value) for key, value in self.settings.items() if key not in _SET_HERE]
        words = [key if value is True else f"{key} {value}" for key, value in settings]
        return f"through SLURM, each with {', '.join(words)}"

    def submit(self, jobs: Sequence[Job], retry_failed: bool = False) -> Outcome:
        """Submit the jobs that are neither finished nor in the queue, each test so that it starts after its training.

        Returns:
            What is finished, what has failed before, and the tests of trainings that have.

        Raises:
            OSError: SLURM does not answer, or sbatch refuses an array; those before it are submitted.
        """
        queue = Queue(self.output)
        self.arrays += sorted({queue.tasks[job.folder].array for job in jobs if job.folder in queue.tasks}, key=int)
        free, after = _sort(jobs, queue, retry_failed, outcome := Outcome())
        at = {folder: (task.array, task.index) for folder, task in queue.tasks.items()}
        largest = _largest_array() if free else _LARGEST_ARRAY
        for start in range(0, len(free), largest):
            chunk = dict(enumerate(free[start : start + largest]))
            array = self._submit(chunk)
            at |= {job.folder: (array, index) for index, job in chunk.items()}
        for trainings, tests in _corresponding(after, at):
            self._submit(tests, trainings)
        return outcome

    def _submit(self, jobs: Mapping[int, Job], after: str = "") -> str:
        """Submit an array; returns its id.

        Args:
            jobs: by their index in it.
            after: id of another array; each task starts once the one with the same index there has succeeded.
        """
        name = f"{self.name}-{secrets.token_hex(4)}"
        path = self.folder / f"{name}.json"
        write_jobs(jobs, path)
        array = _ranges(jobs) + (f"%{self.at_once}" if self.at_once else "")
        settings = self.settings | {"array": array}
        if after:
            settings |= {"dependency": f"aftercorr:{after}", "kill-on-invalid-dep": "yes"}
        self._executor.update_parameters(
            job_name=name,
            additional_parameters=settings,
            srun_args=[f"--cpus-per-task={settings['cpus-per-task']}"],  # from SLURM 22.05 on, srun takes 1 otherwise
            stderr_to_stdout=True,
            wckey=None,
        )
        self._executor.parameters["map_count"] = len(jobs)  # an array: its logs get the task's index
        try:
            command = [sys.executable, "-m", "experiments.slurm_task", str(path)]
            with contextlib.redirect_stderr(io.StringIO()):  # the error has the same text
                submitted = self._executor._submit_command(shlex.join(command))  # its public methods pickle a function
        except self._refused as error:
            path.unlink()
            raise OSError(f"sbatch did not take {len(jobs)} jobs: {error}") from error
        self.arrays.append(submitted.job_id)
        where = f", each after its training in {after}" if after else ""
        print(f"submitted: {len(jobs)} jobs as array {submitted.job_id}{where}", flush=True)
        return submitted.job_id

    def advice(self) -> str:
        """What becomes of the jobs when this process ends, and how to cancel them."""
        if not self.arrays:
            return "nothing was submitted"
        return f"the jobs stay in SLURM's queue, 'scancel {' '.join(self.arrays)}' cancels them"

    def wait(self, jobs: Sequence[Job], outcome: Outcome, tell: Callable[[str, Job, JobState], None]) -> Outcome:
        """Follow the jobs until none of them is in the queue.

        Args:
            outcome: what :meth:`submit` returned.
            tell: called with started, finished, failed or blocked, the job, and its state.
        """
        left = [job for job in jobs if job.folder not in {*outcome.failed, *outcome.blocked}]
        started: set[str] = set()
        gone: dict[str, float] = {}  # when a job was first seen to be neither in the queue nor finished
        outcome.finished.clear()
        while True:
            queue = self._look()
            unsettled = {job.folder for job in left}
            for job in left:
                state = queue.state_of(job)
                if state.name in ("queued", "running"):
                    gone.pop(job.folder, None)
                    if state.name == "running" and job.folder not in started:
                        started.add(job.folder)
                        tell("started", job, state)
                elif state.name == "finished":
                    outcome.finished.append(job.folder)
                    tell("finished", job, state)
                elif job.needs and job.needs.folder in unsettled:
                    continue  # what becomes of its training says why
                elif time.monotonic() - gone.setdefault(job.folder, time.monotonic()) >= FOLDER_DELAY:
                    _leave(job, state, outcome, tell)
            settled = {*outcome.finished, *outcome.failed, *outcome.blocked}
            left = [job for job in left if job.folder not in settled]
            if not left:
                return outcome
            time.sleep(_LOOK)

    def _look(self) -> Queue:
        """The queue; SLURM's controller may be busy, or start anew, for a while."""
        for _ in range(_TRIES):
            with contextlib.suppress(OSError):
                return Queue(self.output)
            time.sleep(_LOOK)
        return Queue(self.output)


def _given(options: Iterable[str]) -> dict[str, object]:
    """Options of sbatch: {"partition": "gpu", "exclusive": True}."""
    given: dict[str, object] = {}
    for option in options:
        key, equals, value = option.partition("=")
        key = key.removeprefix("--").replace("_", "-")
        if not re.fullmatch(r"[a-z][a-z0-9-]*", key) or (equals and not value) or not value.isprintable():
            raise ValueError(f"--sbatch {option!r}: expected KEY=VALUE or KEY, such as partition=gpu or exclusive")
        if key in _SET_HERE:
            raise ValueError(f"--sbatch {option}: the launcher sets {key} itself. It sets {', '.join(_SET_HERE)}")
        given[key] = value if equals else True
    return given


def _sort(jobs: Sequence[Job], queue: Queue, retry_failed: bool, outcome: Outcome) -> tuple[list[Job], list[Job]]:
    """The jobs that can start at once, and the tests of trainings that are to run; notes the others in ``outcome``."""
    free: dict[str, Job] = {}
    after: list[Job] = []
    for job in jobs:
        state = queue.state_of(job)
        training = job.needs.folder if job.needs else ""
        if state.name in ("queued", "running"):
            continue
        if state.name == "failed" and not retry_failed:
            outcome.failed[job.folder] = state.reason
        elif training in free or training in queue.tasks:
            after.append(job)
        elif state.name == "finished":
            outcome.finished.append(job.folder)
        elif training in outcome.failed:
            outcome.blocked.append(job.folder)
        elif job.is_ready():
            free[job.folder] = job
        else:
            outcome.failed[job.folder] = "the training whose weights it tests is neither finished nor among these jobs"
    return list(free.values()), after


def _corresponding(tests: Sequence[Job], at: Mapping[str, tuple[str, int]]) -> list[tuple[str, dict[int, Job]]]:
    """Arrays of tests: the array of trainings that each comes after, and its jobs at the indices of their trainings.

    Args:
        at: array and index of each training, by run folder.
    """
    arrays: dict[tuple[str, int], dict[int, Job]] = defaultdict(dict)
    count: Counter[str] = Counter()
    for job in tests:
        training = job.needs.folder if job.needs else ""
        array, index = at[training]
        arrays[array, count[training]][index] = job
        count[training] += 1
    return [(array, jobs) for (array, _), jobs in arrays.items()]


def _leave(job: Job, state: JobState, outcome: Outcome, tell: Callable[[str, Job, JobState], None]) -> None:
    """Note a job that has left the queue and is not finished."""
    if job.needs and job.needs.folder in {*outcome.failed, *outcome.blocked}:
        outcome.blocked.append(job.folder)
        tell("blocked", job, JobState("waiting", reason=f"the training in {job.needs.folder} failed"))
        return
    left = f"it has left the queue unfinished, as when it is cancelled (logs: {job.output}/{FOLDER})"
    reason = state.reason if state.name == "failed" else f"{left}{': ' if state.reason else ''}{state.reason}"
    outcome.failed[job.folder] = reason
    tell("failed", job, JobState("failed", reason=reason))


def _ranges(indices: Iterable[int]) -> str:
    """0-3,7 for 0, 1, 2, 3, 7."""
    runs = [list(run) for _, run in itertools.groupby(enumerate(sorted(indices)), lambda pair: pair[1] - pair[0])]
    return ",".join(f"{run[0][1]}-{run[-1][1]}" if len(run) > 1 else str(run[0][1]) for run in runs)


def _largest_array() -> int:
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", answer("scontrol", "show", "config"))
    return max(1, int(found[1])) if found else _LARGEST_ARRAY
