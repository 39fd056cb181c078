"""One task of an array of jobs, on a node: ``python -m experiments.slurm_task LIST [INDEX]``, by experiments/slurm.py.

Shortly before its time is up, train.py is stopped, and the task goes back into the queue, to resume from the last
finished epoch. One that has finished no epoch since it started would do so for ever, and ends instead. After SIGTERM
(scancel, preemption) train.py is stopped, too; a preempted job is put back into the queue by SLURM.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from submitit import JobEnvironment

from experiments.local import Process
from experiments.protocols import Job
from experiments.slurm_queue import FOLDER_DELAY, read_jobs
from experiments.states import LOG

__all__ = ["main"]

_LOOK = 0.1  # seconds between two looks at the process


def main(argv: list[str]) -> int:
    """Run the job at INDEX (by default the task's own) of a list; returns the exit status of its train.py."""
    path, *index = argv
    environment = JobEnvironment()
    job = read_jobs(Path(path))[int(index[0] if index else environment.array_task_id or 0)]
    status = job.status()
    if status.state == "finished" and not status.differences:
        print(f"{job.folder} is finished already")
        return 0
    return _run(job, environment)


def _run(job: Job, environment: JobEnvironment) -> int:
    asked: list[int] = []  # the signals so far
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    # SLURM sends SIGUSR2 to every process of a job. train.py inherits that it is blocked, so that it is not ended by it
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    _wait_for_folder(job)
    before = _epochs(job)
    threads = os.environ.get("OMP_NUM_THREADS") or os.environ.get("SLURM_CPUS_PER_TASK", "1")
    try:
        process = Process(job, {"OMP_NUM_THREADS": threads}, {"slurm": environment.job_id})
    except BlockingIOError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    stopped = False
    while (status := process.poll()) is None:
        if signal.sigtimedwait({signal.SIGUSR2}, _LOOK):
            asked.append(signal.SIGUSR2)
        if asked and not stopped:
            process.stop()
            stopped = True
    if status and signal.SIGUSR2 in asked:
        _continue_later(job, environment, _epochs(job) != before)
    elif status == -signal.SIGKILL and not asked:
        _note(job, "killed, as when memory runs out: give the job more, such as --sbatch mem=32G")
    return status if status >= 0 else 128 - status


def _wait_for_folder(job: Job) -> None:
    """Wait until the training that a test needs is seen on this node: in a network folder, that takes a moment."""
    deadline = time.monotonic() + FOLDER_DELAY
    while not job.is_ready() and time.monotonic() < deadline:
        time.sleep(1)


def _epochs(job: Job) -> int:
    """Changes with every epoch that is saved."""
    try:
        return (job.path / "resume.pth.tar").stat().st_mtime_ns
    except OSError:
        return 0


def _continue_later(job: Job, environment: JobEnvironment, advanced: bool) -> None:
    """Put the task back into the queue, or say in the job's log why not."""
    if not advanced:
        _note(job, "the time limit came before an epoch, or the test, was finished: give the job more time (--time)")
        return
    try:
        environment._requeue(0)
    except (OSError, subprocess.SubprocessError) as error:
        _note(job, f"the time limit came, and the job cannot go back into the queue: {error}")


def _note(job: Job, line: str) -> None:
    with open(job.path / LOG, "a", encoding="utf-8") as log:
        print(f"error: {line}", file=log)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
