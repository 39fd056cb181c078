"""Run a shell entry: ``python -m experiments.entry SCRIPT CALLER_FOLDER ENTRY METHOD [ARGUMENT ...]``.

``scripts/run.sh`` starts this in the repository's root, with PYTHON set. A finished run is skipped, an unfinished one
resumed. The exit status is that of the first train.py that fails, and 2 for errors that the user can fix.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace

from dassl.utils.console import prepare_console
from experiments.entries import ENTRIES, Call, UsageError
from experiments.methods import METHODS, method_named
from experiments.protocols import Job
from experiments.runs import ROOT


def main(argv: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    prepare_console()
    script, folder, *words = argv
    try:
        if words[0] == "sweep":
            return sweep(words[1:], folder, environment)
        entry, method, *words = words
        return run_entry(_call(script, folder, method, environment), entry, words, replace_process=True)
    except (OSError, ValueError) as error:
        return _report(error)


def _call(script: str, folder: str, method: str, environment: Mapping[str, str]) -> Call:
    row = method_named(method)
    if not row.trained:  # the two trainers of zero-shot CLIP share their entries
        row = replace(row, trainer=environment.get("TRAINER") or row.trainer)
    return Call(script, folder, row, environment)


def _report(error: Exception) -> int:
    print(error if isinstance(error, UsageError) else f"error: {error}", file=sys.stderr)
    return 2


# ---- running ---------------------------------------------------------------------------------------------------


def run_entry(call: Call, entry: str, words: Sequence[str], replace_process: bool = False) -> int:
    """Run the jobs of an entry one after the other, up to the first that fails.

    Args:
        call: how the entry was called.
        entry: its name in ``ENTRIES``.
        words: its arguments.
        replace_process: let the last train.py take the place of this process, so that signals reach it.

    Returns:
        The exit status of the last train.py that ran, 0 if none did.

    Raises:
        ValueError: wrong arguments, a missing training, or a finished run with other settings.
    """
    jobs = ENTRIES[entry](call, words)
    for job in jobs:
        command = _command_to_run(job, call)
        sys.stdout.flush()
        if command and replace_process and job is jobs[-1]:
            os.execvp(command[0], command)
        if command and (code := _run(command)):
            return code
    return 0


def _command_to_run(job: Job, call: Call) -> list[str] | None:
    """The command of a job that is still to be run, None if there is nothing to do; says which it is."""
    dry_run = call.get("DRY_RUN") == "1"
    if job.needs and not dry_run and not job.is_ready():
        train = call.entry.replace("test", "train", 1)
        raise ValueError(f"no finished training in {job.needs.folder}: run {train} with the same arguments first")
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
    return re.sub(r"[\s!\"$&'()*,;<>?\[\\\]^`{|}]|^[#~]", r"\\\g<0>", word)


def _run(command: Sequence[str]) -> int:
    """Run a command to its end and return its exit status.

    SIGTERM is passed on to it; Ctrl-C, which the terminal sends to both processes, ends the command alone. After
    either, this process ends as soon as the command has.
    """
    received: list[int] = []

    def stop(number: int, _frame: object) -> None:
        received.append(number)
        if number == signal.SIGTERM:
            process.terminate()

    process = subprocess.Popen(command)
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    code = process.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    if received:
        sys.exit(128 + received[0])
    return code if code >= 0 else 128 - code


# ---- sweeps ----------------------------------------------------------------------------------------------------


def sweep(words: Sequence[str], folder: str, environment: Mapping[str, str]) -> int:
    """An entry over datasets and seeds; a failure does not stop the others; failures are listed at the end."""
    if len(words) < 4:
        raise UsageError('usage: bash scripts/sweep.sh METHOD PROTOCOL "DATASET ..." "SEED ..." [KEY VALUE ...]')
    method, protocol, datasets, seeds, *options = words
    names = ["base2new_train", "base2new_test"] if protocol == "base2new" else [protocol]
    scripts = [_script(method, name) for name in names]
    failed = []
    for dataset in datasets.split():
        for seed in seeds.split():
            for script, entry in scripts:
                try:
                    code = run_entry(_call(script, folder, method, environment), entry, [dataset, seed, *options])
                except (OSError, ValueError) as error:
                    code = _report(error)
                if code:
                    failed.append(f"{script} {dataset} {seed}")
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failed else 0


def _script(method: str, name: str) -> tuple[str, str]:
    """The script of a method's entry, and the entry that it runs.

    ``name`` is that of the entry, or the script's own: base2new_train or base2new_train_vpt.
    """
    suffix = METHODS[method].script_suffix if method in METHODS else ""
    entry = name.replace(f"_{suffix}", "") if suffix else name
    for stem in (name, f"{entry}_{suffix}"):
        script = f"scripts/{method}/{stem}.sh"
        if entry in ENTRIES and (ROOT / script).is_file():
            return script, entry
    known = " ".join(path.name for path in sorted((ROOT / "scripts" / method).glob("*.sh")))
    raise ValueError(f"no scripts/{method}/{name}.sh. There are: {known or ' '.join(METHODS)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
