"""Tables of an output folder, from the results.json files in it: mean ± standard deviation over seeds.

Base-to-new has base, new and the harmonic mean of the averaged accuracies, as it is published; the deviation beside it
is that of the harmonic means of the single seeds. Cross-dataset transfer and domain generalization also have the
source, which is not in their average. Runs without complete results are left out and listed below the tables.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tabulate import tabulate

from dassl.utils.console import prepare_console
from dassl.utils.files import atomic_write
from dassl.utils.results import read_results
from experiments.runs import Run

PROTOCOLS = ("base2new", "cross_dataset", "domain_generalization", "few_shot", "zero_shot")
RUN_FILES = {"results.json", "config.yaml", "log.txt", "resume.pth.tar"}  # any of them marks a run folder


@dataclass(frozen=True)
class Result:
    """A run folder and its accuracy in percent, None if the run is incomplete or was not tested."""

    folder: str
    run: Run
    accuracy: float | None

    @property
    def seed(self) -> int:
        return self.run.seed or 0


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (0 for one value), in percent, over n seeds."""

    mean: float
    std: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.std:.2f} ({self.n})" if self.n > 1 else f"{self.mean:.2f}"


def spread(values: Iterable[float]) -> Spread:
    values = list(values)
    return Spread(mean(values), stdev(values) if len(values) > 1 else 0.0, len(values))


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b); 0 if both are 0."""
    return 2 * a * b / (a + b) if a + b else 0.0


# ---- reading ---------------------------------------------------------------------------------------------------


def read_runs(root: Path) -> list[Result]:
    """Every run folder below ``root``, complete or not."""
    folders = sorted({path.parent for path in root.rglob("*") if path.name in RUN_FILES})
    found = [
        Result(str(folder), run, _accuracy(folder))
        for folder in folders
        if (run := Run.parse(folder.relative_to(root).as_posix()))
    ]
    runs = {result.run for result in found}
    # A training run's own test is on the base classes, so that another test of it adds nothing
    return [
        result
        for result in found
        if result.run.stage != "test_base" or replace(result.run, stage="train_base") not in runs
    ]


def _accuracy(folder: Path) -> float | None:
    return (read_results(folder / "results.json") or {}).get("accuracy")


# ---- tables ----------------------------------------------------------------------------------------------------


def base2new(results: list[Result], missing: list[str]) -> list[dict[str, Any]]:
    """A row for each method, shots and dataset; seeds that lack a half are left out and listed in ``missing``."""
    cells: dict[tuple, dict[str, dict[int, float]]] = defaultdict(lambda: {"base": {}, "new": {}})
    for result in results:
        run, classes = result.run, result.run.stage.rpartition("_")[2]
        half = cells[run.method, run.shots, run.dataset].get(classes)
        if half is not None and result.accuracy is not None:
            half[result.seed] = result.accuracy
    rows = []
    for (method, shots, dataset), halves in sorted(cells.items()):
        base, new = halves["base"], halves["new"]
        for seed in sorted(base.keys() ^ new.keys()):
            lacking = "new" if seed in base else "base"
            missing.append(f"{method}, {dataset}, {shots} shots, seed {seed}: no result on the {lacking} classes")
        seeds = sorted(base.keys() & new.keys())
        if seeds:
            means = {"base": spread(base[s] for s in seeds), "new": spread(new[s] for s in seeds)}
            row = {"method": method, "shots": shots, "dataset": dataset, "seeds": seeds, **means}
            row["harmonic_mean"] = harmonic_mean(means["base"].mean, means["new"].mean)
            rows.append(row | {"harmonic_mean_of_seeds": spread(harmonic_mean(base[s], new[s]) for s in seeds)})
    return _with_averages(rows, ("method", "shots"), ("base", "new"))


def accuracies(results: list[Result]) -> list[dict[str, Any]]:
    """A row for each method, shots and dataset: the accuracy over seeds."""
    cells: dict[tuple, dict[int, float]] = defaultdict(dict)
    for result in results:
        if result.accuracy is not None:
            cells[result.run.method, result.run.shots, result.run.dataset][result.seed] = result.accuracy
    rows = [
        {"method": method, "shots": shots, "dataset": dataset, "seeds": sorted(found)}
        | {"accuracy": spread(found.values())}
        for (method, shots, dataset), found in sorted(cells.items())
    ]
    return _with_averages(rows, ("method", "shots"), ("accuracy",))


def transfer(results: list[Result], all_classes: list[Result]) -> list[dict[str, Any]]:
    """The targets of each method, source and shots, preceded by the accuracy on the source itself."""
    groups: dict[tuple, list[Result]] = defaultdict(list)
    for result in results:
        groups[result.run.method, result.run.source, result.run.shots].append(result)
    rows = []
    for key, members in sorted(groups.items()):
        trained = [r for r in all_classes if (r.run.method, r.run.dataset, r.run.shots) == key]
        for row in accuracies(trained):
            rows.append(row | {"dataset": f"{row['dataset']} (source)"})
        rows += accuracies(members)
    return rows


def _with_averages(rows: list[dict], keys: tuple[str, ...], columns: tuple[str, ...]) -> list[dict]:
    """After each group of more than one dataset, the mean over datasets; its harmonic mean is that of the means."""
    groups: dict[tuple, list[dict]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    result = []
    for group, members in groups.items():
        result += members
        if len(members) > 1:
            average: dict[str, Any] = dict(zip(keys, group, strict=True))
            average |= {"dataset": f"Average of {len(members)}", "seeds": []}
            average |= {column: Spread(mean(r[column].mean for r in members), 0.0, 1) for column in columns}
            if "new" in columns:
                average["harmonic_mean"] = harmonic_mean(average["base"].mean, average["new"].mean)
            result.append(average)
    return result


def tables(results: list[Result]) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Rows by protocol, and a line for each incomplete run or pair."""
    missing = [f"{result.folder}: no complete results.json" for result in results if result.accuracy is None]
    by_protocol: dict[str, list[Result]] = {protocol: [] for protocol in PROTOCOLS}
    for result in results:
        by_protocol[result.run.protocol].append(result)
    rows = {}
    for protocol, found in by_protocol.items():
        if protocol == "base2new":
            rows[protocol] = base2new(found, missing)
        elif protocol in ("cross_dataset", "domain_generalization"):
            rows[protocol] = transfer(found, by_protocol["few_shot"])
        else:
            rows[protocol] = accuracies(found)
    return {protocol: found for protocol, found in rows.items() if found}, missing


# ---- output ----------------------------------------------------------------------------------------------------


def as_text(protocol: str, rows: list[dict[str, Any]]) -> str:
    heading = f"{protocol} (accuracy in percent"
    if any(len(row["seeds"]) > 1 for row in rows):
        heading += ": mean ± standard deviation over seeds, the number of seeds in parentheses"
    return f"{heading})\n" + tabulate(map(_as_line, rows), headers="keys", disable_numparse=True)


def _as_line(row: dict[str, Any]) -> dict[str, Any]:
    """The cells of a row as they are printed."""
    line: dict[str, Any] = {key: f"{value:.2f}" if isinstance(value, float) else value for key, value in row.items()}
    line["seeds"] = " ".join(map(str, line.pop("seeds")))
    if of_seeds := line.pop(
        "harmonic_mean_of_seeds", None
    ):  # the deviation of the seeds' own, around the harmonic mean of the averages
        line["harmonic_mean"] = replace(of_seeds, mean=row["harmonic_mean"])
    return line


def as_json(rows: dict[str, list[dict[str, Any]]], missing: list[str]) -> str:
    plain = {
        protocol: [{k: asdict(v) if isinstance(v, Spread) else v for k, v in row.items()} for row in of_protocol]
        for protocol, of_protocol in rows.items()
    }
    return json.dumps({"tables": plain, "incomplete": missing}, indent=2)


def main(argv: list[str] | None = None) -> int:
    prepare_console()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", default="output", type=Path, help="output folder (default: output)")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="this protocol only")
    parser.add_argument("--dataset", help="this dataset only, by the name of its YAML file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the tables to FILE, in full precision")
    args = parser.parse_args(argv)
    if not args.root.is_dir():
        print(f"error: no folder {args.root}: name the OUTPUT folder of the runs", file=sys.stderr)
        return 2
    rows, missing = tables([found for found in read_runs(args.root) if args.dataset in (None, found.run.dataset)])
    if args.protocol:
        rows = {protocol: found for protocol, found in rows.items() if protocol == args.protocol}
    for protocol, of_protocol in rows.items():
        print(as_text(protocol, of_protocol), end="\n\n")
    if not rows:
        print(f"No runs in {args.root}")
    for line in missing:
        print(f"incomplete: {line}")
    if args.json:
        try:
            with atomic_write(args.json, "w") as file:
                file.write(as_json(rows, missing) + "\n")
        except OSError as error:
            print(f"error: cannot write {args.json}: {error.strerror}", file=sys.stderr)
            return 2
    return 0
