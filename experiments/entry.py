"""Running a shell entry: its train.py commands, one after the other (started by ``python -m experiments.start``).

A finished run is skipped, an unfinished one resumed. The exit status is that of the first train.py that fails, 2 for
errors that the user can fix, and 128 + the number of a signal that ended the entry.
"""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dassl.utils.console import prepare_console
from dassl.utils.names import check_availability
from experiments import processes
from experiments.entries import ENTRIES, Call, UsageError, training_command
from experiments.methods import method_named
from experiments.processes import Ended, Stopped
from experiments.protocols import Job
from experiments.runs import ROOT

__all__ = ["main", "make_call", "run_entry"]


def main(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    prepare_console()
    processes.stop_on_signals()
    try:
        code = _main(argv, environment)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        return 1
    except (OSError, ValueError) as error:
        print(describe(error), file=sys.stderr)
        return 2
    except Stopped as signal:
        print(f"stopped by {signal}: the same command continues; finished runs are skipped", file=sys.stderr)
        return 128 + signal.number
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # already reported: Python would complain again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(argv: Sequence[str], environment: Mapping[str, str]) -> int:
    script, folder, command, *words = argv
    if command in ("sweep", "quickstart"):
        from experiments import sweeps

        return getattr(sweeps, command)(words, folder, environment)
    method, *words = words
    return run_entry(make_call(script, command, folder, method, environment), words, replace_process=True).code


def make_call(script: str, entry: str, folder: str, method: str, environment: Mapping[str, str]) -> Call:
    row = method_named(method)
    trainer = environment.get("TRAINER")
    if trainer and not row.trained:  # the two trainers of zero-shot CLIP share their entries
        check_availability(trainer, (path.name for path in (ROOT / "configs/trainers").iterdir()), "TRAINER")
        row = replace(row, trainer=trainer)
    return Call(script, entry, folder, row, environment)


def describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is None:
        return f"error: the standard output cannot be written: {error.strerror}"
    return str(error) if isinstance(error, UsageError) else f"error: {error}"


def run_entry(call: Call, words: Sequence[str], replace_process: bool = False) -> Ended:
    """Run the jobs of an entry one after the other, up to the first that fails.

    Args:
        call: how the entry was called.
        words: its arguments.
        replace_process: let the last train.py take the place of this process, so that signals reach it.

    Returns:
        How the last train.py that ran ended; status 0 if none did.

    Raises:
        ValueError: wrong arguments, a missing training, or a finished run with other settings.
        Stopped: a signal.
    """
    jobs = ENTRIES[call.entry](call, words)
    for job in jobs:
        command = _command_to_run(job, call, words)
        features = call.path(given) if (given := call.get("FEATURES")) else job.features
        sys.stdout.flush()
        if command and replace_process and job is jobs[-1]:
            os.execvpe(command[0], command, {**os.environ, "FEATURES": features})
        if command and (ended := processes.run(command, {**os.environ, "FEATURES": features})).code:
            return ended if ended.error else ended._replace(error=_logged_error(job))
    return Ended(0, "")


def _command_to_run(job: Job, call: Call, words: Sequence[str]) -> list[str] | None:
    """The command of a job that is still to be run, None if there is nothing to do; says which it is."""
    dry_run = call.dry_run
    if job.needs and not dry_run and not job.is_ready():
        other = " (or set SOURCE to the dataset that was trained on)" if job.run.source else ""
        train = training_command(call, words, job.run.seed)
        raise ValueError(f"no finished training in {job.needs.folder}: run it first{other}:\n  {train}")
    status = job.status()
    if status.differences:
        raise ValueError(
            f"{job.folder} holds a finished run with other settings:\n  "
            + "\n  ".join(status.differences)
            + "\nSet OUTPUT to another folder for this run, or delete that folder to run it again."
        )
    if status.state == "finished":
        result = "not tested" if status.accuracy is None else f"accuracy {status.accuracy:.2f} %"
        print(f"Finished already, skipped: {job.folder} ({result})")
        return None
    command = job.command(call.get("PYTHON", sys.executable))
    if dry_run:
        print(*map(quoted, command), "")
        return None
    if status.state == "unfinished":
        print(f"Unfinished, resuming: {job.folder}")
    return command


def quoted(word: str) -> str:
    """A word as bash's ``printf %q`` writes it."""
    if not word or not word.isprintable():
        return shlex.quote(word)
    return re.sub(r"[\s!\"$&'()*,;<>?\[\\\]^`{|}]|^[#~]|(?<=[:=])~", r"\\\g<0>", word)


def _logged_error(job: Job) -> str:
    """The last error in a run's log, for a failure whose message went to the terminal; "" without one."""
    try:
        lines = (job.path / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.startswith("error:")), "")
