"""Many entries in a row: a protocol over datasets and seeds (scripts/sweep.sh), and the demonstration's quick start."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from dassl.utils.names import closest_hint
from experiments.entries import ENTRIES, SHOTS, Call, UsageError, listed, numbers, script_of
from experiments.entry import describe, make_call, run_entry
from experiments.methods import method_named
from experiments.protocols import check_datasets
from experiments.report import command as report
from experiments.runs import DEMONSTRATION, ROOT

__all__ = ["quickstart", "sweep"]

_USAGE = 'usage: bash scripts/sweep.sh METHOD PROTOCOL "DATASET ..." "SEED ..." [KEY VALUE ...]'
_STAGES = {"base2new": ("base2new_train", "base2new_test")}  # the other protocols are one entry each
_OWN_LISTS = ("main", "eval")  # entries that take other arguments, and the seeds from SEEDS


class Step(NamedTuple):
    """One entry for one dataset and seed."""

    call: Call
    words: list[str]

    def __str__(self) -> str:
        return " ".join([self.call.script, *self.words[:2]])

    def command(self) -> str:
        return self.call.command(self.call.method.name, self.call.entry, self.words)


def sweep(words: Sequence[str], folder: str, environment: Mapping[str, str]) -> int:
    """An entry over datasets and seeds; a failure does not stop the others; failures are listed at the end.

    Returns:
        1 if a run failed, else 0.

    Raises:
        ValueError: a name or a number is wrong; nothing was started.
    """
    if len(words) < 4:
        raise UsageError(_USAGE)
    method, protocol, datasets, seeds, *options = words
    if not numbers(seeds):
        raise UsageError(f"error: the seeds are '{seeds}', expected whole numbers such as \"1 2 3\"\n{_USAGE}")
    stages = [_entry_named(method, name) for name in _STAGES.get(protocol, (protocol,))]
    check_datasets(*listed(datasets))
    calls = [make_call(script_of(method, stage), stage, folder, method, environment) for stage in stages]
    groups = [
        [Step(call, _arguments(call, dataset, seed, options)) for call in calls]
        for dataset in listed(datasets)
        for seed in (numbers(seeds) if protocol != "zeroshot" else [0])
    ]
    _check([step for group in groups for step in group])
    failed = [line for group in groups for line in _run(group)]
    for step, reason in failed:
        print(f"failed: {step}: {reason}", file=sys.stderr)
    if failed:
        print("To repeat only these, run the sweep again (finished runs are skipped), or:", file=sys.stderr)
        for step, _ in failed:
            print(f"  {step.command()}", file=sys.stderr)
    return 1 if failed else 0


def _arguments(call: Call, dataset: str, seed: int, options: Sequence[str]) -> list[str]:
    if call.entry == "few_shot":
        return [dataset, call.get("SHOTS", SHOTS), str(seed), *options]
    if call.entry == "zeroshot":
        return [dataset, *options]
    return [dataset, str(seed), *options]


def _check(steps: Sequence[Step]) -> None:
    """Make every job, so that a typo is reported once and before the first run.

    Raises:
        ValueError: with all different messages.
    """
    problems: dict[str, Exception] = {}
    for step in steps:
        try:
            _ = step.call.dry_run
            trial = replace(step.call, environment={**step.call.environment, "DRY_RUN": "1"})  # weights may come later
            ENTRIES[step.call.entry](trial, step.words)
        except ValueError as error:
            problems.setdefault(str(error), error)
    if problems:
        raise UsageError("\n".join(map(describe, problems.values())))


def _run(group: Sequence[Step]) -> list[tuple[Step, str]]:
    """Run the steps for one dataset and seed; what failed, and why. A test is not tried after its training failed."""
    for number, step in enumerate(group):
        try:
            ended = run_entry(step.call, step.words)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.filename is None:
                raise  # the standard output cannot be written
            print(describe(error), file=sys.stderr)
            reason = str(error).splitlines()[0]
        else:
            if not ended.code:
                continue
            reason = f"exit status {ended.code}" + (f", {ended.error}" if ended.error else "")
        return [(step, reason), *((later, "not run, its training failed") for later in group[number + 1 :])]
    return []


def _entry_named(method: str, name: str) -> str:
    """The entry that a method's script runs, by its own name or the script's: base2new_train or base2new_train_vpt.

    Raises:
        ValueError: there is none; the message has the closest names.
    """
    suffix = method_named(method).script_suffix
    entry = name.removesuffix(".sh").removesuffix(f"_{suffix}" if suffix else "")
    script = script_of(method, entry)
    if entry in ENTRIES and (ROOT / script).is_file():
        if entry in _OWN_LISTS:
            raise ValueError(f"{script} runs a list of seeds itself: SEEDS='1 2 3' bash {script} shows its arguments")
        return entry
    scripts = " ".join(path.name for path in sorted((ROOT / "scripts" / method).glob("*.sh")))
    hint = closest_hint(name, [*_STAGES, *ENTRIES])
    raise ValueError(f"no scripts/{method}/{name}.sh. There are: {scripts}, and base2new for both halves{hint}")


def quickstart(words: Sequence[str], folder: str, environment: Mapping[str, str]) -> int:
    """Train and test the methods on the demonstration, for each seed, and print their table.

    Returns:
        The status of the first train.py that fails, else 0.
    """
    seeds = numbers(" ".join(words) or "1")
    if not seeds:
        given = " ".join(words)
        usage = "usage: bash scripts/quickstart.sh [SEED ...]"
        raise UsageError(f"error: the seeds are '{given}', expected whole numbers such as 1 2 3\n{usage}")
    for seed in seeds:
        for method in ("zsclip", "maple", "coop", "cocoop"):
            print(f"== {method}, seed {seed}")
            for entry in _STAGES["base2new"]:
                call = make_call(script_of(method, entry), entry, folder, method, environment)
                if code := run_entry(call, [DEMONSTRATION, str(seed)]).code:
                    return code
    print("\nDemonstration: emoji pictures and ViT-Micro/8, a tiny CLIP trained on drawings.", end=" ")
    print("These are not CLIP's numbers.")
    output = call.request(DEMONSTRATION, []).output
    return report.main([str(Path(ROOT, output)), "--protocol", "base2new", "--dataset", DEMONSTRATION])
