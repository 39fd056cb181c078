"""What the tables lack: runs that are not finished, and runs that other rows have; with the commands that make them."""

import os
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from dassl.config import flatten, get_cfg_default
from dassl.config.saved import IRRELEVANT
from experiments import protocols
from experiments.methods import METHODS, Method
from experiments.protocols import Job, Request
from experiments.report.data import Found
from experiments.report.layouts import joint_rows, order_of_datasets, published_configs
from experiments.report.tables import Row
from experiments.runs import ROOT, ZERO_SHOT_PREFIX, Run, read_settings, run_settings, same

__all__ = ["Missing", "find_missing"]

MOST_TESTS = 200  # that get a command, for which configurations are read; others get theirs once these have run
# What train.py's other arguments and the protocols set
_GIVEN = {"OUTPUT_DIR", "SEED", "RESUME", "TRAINER.NAME", "DATASET.ROOT", "DATASET.NUM_SHOTS", "PROTOCOL"}
_GIVEN |= {"DATASET.SUBSAMPLE_CLASSES", "TEST.NO_TEST", *IRRELEVANT}


@dataclass(frozen=True)
class Missing:
    """A run that a table lacks.

    Attributes:
        reason: ``unfinished`` (a folder without results.json), ``broken`` (its results.json is not that of a finished
            run), ``untested`` (trained, without an accuracy) or ``missing`` (no folder; other runs of the table have
            this seed, or are its other half).
        what: a sentence about it.
        protocol: of the table.
        folder: of the run, relative to the output folder.
        command: that makes it; "" where its config or dataset is not part of the project any more.
    """

    reason: str
    what: str
    protocol: str
    folder: str
    command: str


def find_missing(found: Iterable[Found], output: str | Path) -> list[Missing]:
    """What the tables of these runs lack: unfinished runs first, then runs that were never started."""
    found = list(found)
    commands = _Commands(found, Path(output))
    lines = [_unfinished(item, commands) for item in found if item.accuracy is None]
    known = {item.run for item in found}
    for protocol, run in _expected(found):
        if run not in known:
            known.add(run)
            lines.append(Missing("missing", _describe(run), protocol, run.folder, commands.of(run, protocol)))
    return lines


def _unfinished(item: Found, commands: "_Commands") -> Missing:
    if item.results is not None:
        # The weights are there: a training on base classes is completed by a test of its own
        test = replace(item.run, stage="test_base") if item.run.stage == "train_base" else item.run
        what = f"{item.path}: finished without a test"
        return Missing("untested", what, item.run.protocol, test.folder, commands.of(test, test.protocol))
    reason, more = (
        ("broken", ": what is there is not the result of a finished run") if item.broken else ("unfinished", "")
    )
    what = f"{item.path}: no complete results.json{more}"
    return Missing(reason, what, item.run.protocol, item.run.folder, commands.of(item.run, item.run.protocol))


def _describe(run: Run) -> str:
    shots = "" if run.stage == "zero_shot" else f", {run.shots} shots"
    where = f"{run.method}, {run.dataset}{shots}" + ("" if run.seed is None else f", seed {run.seed}")
    classes = run.stage.rpartition("_")[2]
    if classes in ("base", "new"):
        return f"{where}: no result on the {classes} classes"
    return f"{where}: no result"


# ---- the runs that belong to those that are there --------------------------------------------------------------


def _expected(found: Iterable[Found]) -> Iterator[tuple[str, Run]]:
    """Protocol and run of every number that the tables' rows need for the seeds and datasets of the others."""
    runs = [item.run for item in found if item.accuracy is not None and item.run.stage != "test_all"]
    transfers = {_row(run) for run in runs if run.stage == "evaluation"}
    # The source of a transfer is no point of a few-shot curve
    runs = [run for run in runs if run.stage != "all_classes" or _row(run) not in transfers]
    joint = joint_rows((_row(run), run.dataset, run.shots) for run in runs if run.stage == "all_classes")
    tables: dict[tuple[str, int, str], Rows] = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    for run in runs:
        row = joint.get(_row(run), _row(run)) if run.stage == "all_classes" else _row(run)
        tables[run.protocol, run.shots, run.source][row][run.dataset].add(run.seed)
    for (protocol, shots, source), rows in sorted(tables.items()):
        for row, dataset, seed in _grid(rows):
            config = row.config or published_configs(row.trainer, dataset, shots)[0]
            for stage, name in _parts(protocol, row.reproduced, dataset, source):
                run = Run(stage, name, row.trainer, config, shots, seed, row.variant, reproduced=row.reproduced)
                yield protocol, replace(run, source=source if stage == "evaluation" else "")


Rows = dict[Row, dict[str, set[int | None]]]  # the seeds of each dataset


def _row(run: Run) -> Row:
    return Row(run.trainer, run.config, run.variant, run.reproduced)


def _grid(rows: Rows) -> Iterator[tuple[Row, str, int | None]]:
    """Row, dataset and seed of every number that a full table has."""
    for dataset in order_of_datasets(dataset for of_row in rows.values() for dataset in of_row):
        drawn = [of_row.get(dataset, set()) for row, of_row in rows.items() if not _is_fixed(row)]
        for row, of_row in rows.items():
            own = set().union(*of_row.values())
            seeds = own if _is_fixed(row) else set().union(*drawn) or own
            for seed in sorted(seeds, key=lambda seed: -1 if seed is None else seed):
                yield row, dataset, seed


def _is_fixed(row: Row) -> bool:
    """Whether a row's seeds say nothing about those of others: nothing is trained, or downloaded weights are tested."""
    return row.reproduced or row.trainer.startswith(ZERO_SHOT_PREFIX)


def _parts(protocol: str, reproduced: bool, dataset: str, source: str) -> list[tuple[str, str]]:
    """Stage and dataset of the runs that a number is made of."""
    if protocol == "base2new":
        return [("test_base" if reproduced else "train_base", dataset), ("test_new", dataset)]
    if protocol in ("cross_dataset", "domain_generalization"):
        return [("all_classes", source)] * (not reproduced) + [("evaluation", dataset)]
    return [("all_classes" if protocol == "few_shot" else "zero_shot", dataset)]


# ---- commands --------------------------------------------------------------------------------------------------


class _Commands:
    """The commands of runs, with the settings that the runs of the same row have."""

    def __init__(self, found: list[Found], output: Path) -> None:
        self._folders = {item.run: item.path for item in found}
        self._alike: dict[Row, list[Found]] = defaultdict(list)
        for item in found:
            self._alike[_row(item.run)].append(item)
        inside = output.resolve().is_relative_to(ROOT)
        self._output = os.path.relpath(output.resolve(), ROOT) if inside else str(output.resolve())
        self._tests = 0

    def of(self, run: Run, protocol: str) -> str:
        """The command of a run that a protocol's table lacks, "" if there is none."""
        self._tests += run.stage not in ("train_base", "all_classes")
        if self._tests > MOST_TESTS:
            return ""
        try:
            data, options = self._settings(run, protocol)
            job = _job(run, protocol, options=options, data=data, output=self._output)
            return shlex.join(job.command("python"))
        except (OSError, ValueError):  # no such dataset or config any more
            return ""

    def _settings(self, run: Run, protocol: str) -> tuple[str, tuple[str, ...]]:
        """The folder of the datasets, and the KEY VALUE words that the folder's name does not have.

        They are the run's own if it has started, else those of a run of the same row. A test takes what matters from
        its training (see Job), if that has started.
        """
        training = replace(run, stage="train_base")
        if run.source:
            training = replace(run, stage="all_classes", dataset=run.source, source="")
        alike = sorted(
            self._alike[_row(run)], key=lambda item: (item.run.stage != run.stage, item.run.dataset != run.dataset)
        )
        for other in [run, training, *(item.run for item in alike)]:
            if other in self._folders and (saved := _saved(self._folders[other])):
                is_training = other == training and other != run
                options = () if is_training else _own_options(saved, _job(other, protocol))
                return str(saved.get("DATASET.ROOT") or "./data"), options
        return "./data", ()


def _saved(folder: Path) -> Mapping[str, Any]:
    """The settings of a run; {} if there are none that can be read."""
    try:
        return run_settings(folder) or {}
    except (OSError, ValueError):
        return {}


@cache
def _defaults() -> dict[str, Any]:
    return dict(flatten(get_cfg_default()))


def _own_options(saved: Mapping[str, Any], job: Job) -> tuple[str, ...]:
    """KEY VALUE words for the settings of a run that neither its config files nor its method's published ones have."""
    run, known = job.run, dict(_defaults())
    for file in (f"configs/datasets/{run.dataset}.yaml", f"configs/trainers/{run.trainer}/{run.config}.yaml"):
        known |= read_settings(ROOT / file)
    known |= zip(job.published[::2], job.published[1::2], strict=True)
    words: list[str] = []
    for key, value in saved.items():
        of_others = key.startswith("TRAINER.") and not key.startswith(f"TRAINER.{run.trainer.upper()}.")
        if value is not None and key not in _GIVEN and not of_others and not same(key, value, known.get(key)):
            words += [key, str(value)]
    return tuple(words)


def _job(run: Run, protocol: str, **more: Any) -> Job:
    """The job that makes a run: if its config is the published one of a method, that method's.

    Raises:
        ValueError: there is none, or no such dataset or config.
    """
    own = Method(run.trainer.lower(), run.trainer, run.config, trained=not run.trainer.startswith(ZERO_SHOT_PREFIX))
    methods = [method for method in METHODS.values() if method.trainer == run.trainer] or [own]
    classes = run.stage.rpartition("_")[2] if run.stage.startswith("test_") else "new"
    for method, config in [*((method, "") for method in methods), (methods[0], run.config)]:
        words = (method, run.dataset, run.seed, run.shots, config, run.variant)
        request = Request(*words, classes=classes, source=run.source or "imagenet", **more)
        for make in _makers(run, protocol):
            if (job := make(request)).run == run:
                return job
    raise ValueError(f"no protocol makes {run.folder}")


def _makers(run: Run, protocol: str) -> list[Callable[[Request], Job]]:
    """The functions that make a job of a run's stage, the one of the table's protocol first."""
    if run.reproduced and run.stage == "evaluation":
        return [lambda request: protocols.reproduce_xd(request, "WEIGHTS")[0]]
    if run.reproduced:
        return [
            lambda request: protocols.reproduce(request, "WEIGHTS")[0],
            lambda request: protocols.reproduce(request, "WEIGHTS")[1],
        ]
    if run.stage == "all_classes":
        makers: list[Callable[[Request], Job]] = [protocols.few_shot, protocols.xd_train]
        return makers if protocol == "few_shot" else makers[::-1]
    by_stage = {"train_base": protocols.base2new_train, "zero_shot": protocols.zero_shot}
    return [(by_stage | {"evaluation": protocols.xd_test}).get(run.stage, protocols.base2new_test)]
