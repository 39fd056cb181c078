"""Experiments: run a plan, see how far it is, make its tables, hold a run against a published log."""

import argparse
import fnmatch
import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from dassl.interpreter import require_python

with require_python():
    from tabulate import tabulate
    from tqdm import tqdm

    from dassl.utils import DEVICES, closest_device, command, is_device, write_json
    from dassl.utils.console import prepare_console
    from experiments import logs, plans
    from experiments.launch import Launcher, Outcome, drive
    from experiments.local import Local, gpus_for
    from experiments.protocols import Job
    from experiments.report import command as report
    from experiments.runs import ROOT
    from experiments.slurm import Slurm
    from experiments.slurm_queue import states_in
    from experiments.states import LOG, JobState, state_of

EXAMPLES = """\
examples:
  python -m experiments run demo                        the demonstration: minutes
  python -m experiments run maple_base2new --data /data the table of MaPLe's paper
  python -m experiments run maple_base2new --dry-run    its jobs, commands, and what is finished
  python -m experiments run maple_base2new --launcher ray --gpus-per-job 0.25   four jobs on each GPU of a cluster
  python -m experiments run maple_base2new --launcher slurm --sbatch partition=gpu   submit them to a cluster
  python -m experiments status maple_base2new           per job: finished, running, failed, waiting, not started
  python -m experiments report output                   tables, beside the published numbers
  python -m experiments compare-log LOG RUN             a run beside a published training log

A plan is a YAML file: by its path, or by its name in configs/experiments/. Repeat a command to continue where it was
interrupted: what is finished is not run again."""


# Flags that not every launcher has
FLAGS_OF = {
    "local": (),
    "ray": ("address", "gpus_per_job", "cpus_per_job", "memory_per_job", "copy_code"),
    "slurm": ("time", "gpus_per_job", "cpus_per_job", "sbatch", "wait"),
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m experiments", description=__doc__, epilog=EXAMPLES, formatter_class=layout
    )
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("plan", help="YAML file, or its name in configs/experiments/")
    shared.add_argument("--data", default="./data", help="folder of the datasets (./data)")
    shared.add_argument("--output", default="output", help="folder of all runs (output)")
    shared.add_argument("--only", action="append", metavar="TEXT", help="only jobs with TEXT (or a*b) in their folder")
    shared.add_argument("--json", type=Path, metavar="FILE", help="also write the state of every job to FILE")

    sub = commands.add_parser("run", parents=[shared], help="run what is not finished")
    sub.add_argument("--dry-run", action="store_true", help="print the jobs, their commands, and what is finished")
    sub.add_argument("--retry-failed", action="store_true", help="also run the jobs that failed before")
    sub.add_argument("--launcher", choices=FLAGS_OF, default="local", help="where the jobs run (local)")
    where = "auto (GPUs if there are any), cpu, cuda, cuda:N (that GPU alone), mps"
    sub.add_argument("--device", default="auto", help=f"where each job computes: {where}")
    sub.add_argument("--jobs", type=int, metavar="N", help="jobs at a time (one for each GPU, else by the cores)")
    sub.add_argument("--gpus-per-job", type=float, metavar="X", help="of a cluster: 0 to 1 (1); fractions on Ray alone")
    sub.add_argument("--cpus-per-job", type=int, metavar="N", help="of a cluster (8; Ray: those of a node, shared out)")
    ray = sub.add_argument_group("of --launcher ray", "It stays until the jobs have ended, as the local one does")
    ray.add_argument("--address", help="auto or HOST:PORT of a running cluster (RAY_ADDRESS, else a new cluster)")
    ray.add_argument("--memory-per-job", type=float, metavar="GIB", help="reserved for a job (3 without a GPU)")
    ray.add_argument("--copy-code", action="store_true", help="copy this folder to the nodes, which do not share it")
    slurm = sub.add_argument_group(
        "of --launcher slurm", "It submits the jobs, and ends: status shows how far they are"
    )
    slurm.add_argument("--time", metavar="LIMIT", help="time of a job, as sbatch takes it (4:00:00)")
    slurm.add_argument("--sbatch", action="append", metavar="KEY=VALUE", help="an option of sbatch: partition=gpu")
    slurm.add_argument("--wait", action="store_true", help="stay until no job is in the queue, and show the progress")
    sub = commands.add_parser("status", parents=[shared], help="how far each job is")
    report.add_arguments(
        commands.add_parser("report", help="tables beside the published numbers, of the runs of a folder")
    )
    sub = commands.add_parser("compare-log", help="a run beside a published training log, and what differs")
    sub.add_argument("log", type=Path, help="the published log")
    sub.add_argument("run", type=Path, help="folder of the run, or its log")
    sub.add_argument("--json", type=Path, metavar="FILE", help="also write every compared value to FILE")
    args = parser.parse_args(argv)
    if args.command == "run" and args.jobs is not None and args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: expected at least 1")
    if args.command == "run" and (error := _wrong_for_launcher(args)):
        parser.error(error)
    return args


def _wrong_for_launcher(args: argparse.Namespace) -> str:
    """What is wrong with the flags that not every launcher has; "" if nothing is."""
    for name in {name: None for names in FLAGS_OF.values() for name in names}:
        given, has = getattr(args, name), [launcher for launcher, names in FLAGS_OF.items() if name in names]
        if given not in (None, False) and args.launcher not in has:
            return f"--{name.replace('_', '-')}: only with --launcher {' or '.join(has)}"
    if not is_device(args.device):
        return f"--device {args.device}: no such device{closest_device(args.device)} There are {', '.join(DEVICES)}"
    if args.launcher != "local" and args.device.startswith("cuda:"):
        return f"--device {args.device}: only with --launcher local, since a cluster hands out its GPUs. Use cuda"
    if args.device == "cpu" and args.gpus_per_job:
        return f"--gpus-per-job {args.gpus_per_job:g}: a job with --device cpu uses none"
    if args.gpus_per_job is not None and not 0 <= args.gpus_per_job <= 1:
        return f"--gpus-per-job {args.gpus_per_job:g}: expected 0 to 1, since a run uses one GPU"
    if args.launcher == "slurm" and args.gpus_per_job not in (None, 0, 1):
        return f"--gpus-per-job {args.gpus_per_job:g}: expected 0 or 1, since SLURM gives whole GPUs"
    if args.cpus_per_job is not None and args.cpus_per_job < 1:
        return f"--cpus-per-job {args.cpus_per_job}: expected at least 1"
    if args.memory_per_job is not None and not 0 <= args.memory_per_job < math.inf:
        return f"--memory-per-job {args.memory_per_job:g}: expected a number of GiB"
    if args.copy_code and not os.path.isabs(args.output):
        return f"--copy-code: expected an absolute --output that all nodes share, found {args.output}"
    return ""


# ---- launchers -------------------------------------------------------------------------------------------------


def _local(args: argparse.Namespace) -> Launcher:
    return Local(1 if args.device == "mps" and args.jobs is None else args.jobs, gpus_for(args.device))


def _gpus_per_job(args: argparse.Namespace) -> float | None:
    return 0 if args.device == "cpu" else args.gpus_per_job


def _ray(args: argparse.Namespace) -> Launcher:
    from experiments.ray_cluster import RayCluster

    memory = None if args.memory_per_job is None else int(args.memory_per_job * 2**30)
    return RayCluster(args.jobs, args.address, _gpus_per_job(args), args.cpus_per_job, memory, args.copy_code)


LAUNCHERS: dict[str, Callable[[argparse.Namespace], Launcher]] = {"local": _local, "ray": _ray}


# ---- plans -----------------------------------------------------------------------------------------------------


def _jobs(args: argparse.Namespace) -> list[Job]:
    """The jobs of the plan that are asked for; a test's training stays where it is."""
    device = "auto" if args.command == "status" else args.device.partition(":")[0]  # the launcher picks the GPU
    options = () if device == "auto" else ("DEVICE", device)
    jobs = plans.jobs(plans.read_plan(args.plan), args.data, args.output, options)
    patterns = [f"*{text}*" for text in args.only or ["*"]]
    chosen = [job for job in jobs if any(fnmatch.fnmatch(job.folder, pattern) for pattern in patterns)]
    if not chosen:
        raise ValueError(f"no job of {args.plan} has {' or '.join(args.only)} in its folder, such as {jobs[0].folder}")
    return chosen


def run(args: argparse.Namespace) -> int:
    """Run the plan; the status is 1 if a job failed."""
    jobs = _jobs(args)
    if args.dry_run:
        return _dry_run(jobs, states_in(args.output))
    if args.launcher == "slurm":
        return _submit(args, jobs)
    launcher = LAUNCHERS[args.launcher](args)
    print(f"{args.plan}: {len(jobs)} jobs, {launcher.describe()}")
    with Progress(len(jobs)) as progress:
        outcome = drive(jobs, launcher, args.retry_failed, progress.tell)
    _summarize(outcome, jobs)
    _write(args.json, jobs, state_of)
    return int(bool(outcome.failed))


def _submit(args: argparse.Namespace, jobs: Sequence[Job]) -> int:
    """Submit what is not finished, and with --wait stay until it has left the queue."""
    settings = {"limit": args.time, "gpus": _gpus_per_job(args), "cpus": args.cpus_per_job, "options": args.sbatch}
    given = {name: value for name, value in settings.items() if value is not None}
    slurm = Slurm(args.plan, args.output, at_once=args.jobs, **given)
    print(f"{args.plan}: {len(jobs)} jobs {slurm.describe()}")
    try:
        outcome = slurm.submit(jobs, args.retry_failed)
        if args.wait:
            with Progress(len(jobs)) as progress:
                outcome = slurm.wait(jobs, outcome, progress.tell)
    except KeyboardInterrupt as stop:
        stop.args = (slurm.advice(),)
        raise
    _summarize(outcome, jobs)
    if slurm.arrays and not args.wait:
        status = shlex.join(["python", "-m", "experiments", "status", args.plan, "--output", args.output])
        print(f"Unfinished ones are in SLURM's queue. How far they are:\n  {status}")
        print(f"To cancel them:\n  scancel {' '.join(slurm.arrays)}")
    _write(args.json, jobs, states_in(args.output))
    return int(bool(outcome.failed))


def _dry_run(jobs: Sequence[Job], look: Callable[[Job], JobState]) -> int:
    for job in jobs:
        state = look(job)
        print(f"{state.name:12s} {job.folder}")
        if state.name != "finished":
            print(f"    {shlex.join(job.command(os.path.basename(sys.executable)))}")
    return 0


def _summarize(outcome: Outcome, jobs: Sequence[Job]) -> None:
    print(f"{len(outcome.finished)} of {len(jobs)} jobs are finished")
    by_folder = {job.folder: job for job in jobs}
    for folder, reason in outcome.failed.items():
        print(f"failed: {folder}\n    {reason}\n    log: {folder}/{LOG}")
        print(f"    command: {shlex.join(by_folder[folder].command('python'))}")
    for folder in outcome.blocked:
        print(f"not started, since its training failed: {folder}")
    if outcome.failed:
        print("Repeat the command with --retry-failed to run them again")


class Progress:
    """A bar on a terminal, else a line for every job that starts or ends."""

    def __init__(self, total: int) -> None:
        # The time left by the average over all jobs of this run: they end in bursts
        self._bar = tqdm(total=total, unit="job", smoothing=0, disable=not sys.stderr.isatty(), dynamic_ncols=True)
        self._total = total
        self._count: Counter[str] = Counter()
        self._running: set[str] = set()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def tell(self, event: str, job: Job, state: JobState) -> None:
        self._count[event] += 1
        ran = job.folder in self._running
        if event == "started":
            self._running.add(job.folder)
        else:
            self._running.discard(job.folder)
        if event in ("finished", "failed", "blocked"):
            if not self._bar.disable:
                self._bar.initial += not ran  # it took no time
            self._bar.update()
            done = sum(self._count[name] for name in ("finished", "failed", "blocked"))
            accuracy = "" if state.accuracy is None else f" ({state.accuracy:.2f} %)"
            line = f"[{done}/{self._total}] {event}: {job.folder}{accuracy}{': ' if state.reason else ''}{state.reason}"
        elif event == "again":
            line = f"out of memory, to be tried alone: {job.folder}"
        else:
            line = f"started: {job.folder}"
        if self._bar.disable:
            print(line, flush=True)
        elif event in ("failed", "blocked", "again"):
            self._bar.write(line)
        self._bar.set_postfix(running=len(self._running), failed=self._count["failed"])


def status(args: argparse.Namespace) -> int:
    """Print the state of every job."""
    jobs = _jobs(args)
    look = states_in(args.output)
    rows: list[list[str]] = []
    count: Counter[str] = Counter()
    for job in jobs:
        state = look(job)
        count[state.name] += 1
        rows.append([state.name, job.folder.removeprefix(f"{args.output}/"), _details(state)])
    print(tabulate(rows, ["state", "job", ""], disable_numparse=True))
    print(", ".join(f"{number} {name}" for name, number in count.items()))
    _write(args.json, jobs, look)
    return 0


def _details(state: JobState) -> str:
    if state.name == "finished":
        return "not tested" if state.accuracy is None else f"{state.accuracy:.2f} %"
    if state.name == "running":
        left = "" if state.seconds_left is None else f", {timedelta(seconds=round(state.seconds_left))} left"
        return f"epoch {state.epoch or '?'}{left}, on {state.host}"
    return state.reason


def _write(path: Path | None, jobs: Sequence[Job], look: Callable[[Job], JobState]) -> None:
    if path:
        write_json([{"folder": job.folder, **vars(look(job))} for job in jobs], path)


# ---- logs ------------------------------------------------------------------------------------------------------


def compare_log(args: argparse.Namespace) -> int:
    """Print the comparison; the status is 1 where a value differs, or where there is nothing to compare."""
    found = logs.compare(logs.read_log(args.log), logs.read_log(args.run))
    print(logs.table(found))
    if args.json:
        write_json(found, args.json)
    return int(not found["values"] or any(of["first_difference"] for of in found["values"].values()))


COMMANDS: dict[str, Any] = {"run": run, "status": status, "compare-log": compare_log, "report": report.run}


def main(argv: list[str] | None = None) -> int:
    """Run; returns 2, with one message, for errors that the user can fix."""
    prepare_console()
    args = parse_args(argv)
    try:
        return COMMANDS[args.command](args)
    except KeyboardInterrupt as stop:
        stop.args = stop.args or ("the running jobs have ended, the same command continues",)
        raise
    except Exception as error:
        return command.fail(error)


if __name__ == "__main__":
    os.chdir(ROOT)
    command.run(main)
