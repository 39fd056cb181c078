"""Tables of an output folder, from the results.json files in it: mean ± standard deviation over seeds.

Base-to-new has base, new and the harmonic mean of the averaged accuracies; cross-dataset transfer and domain
generalization also have the source, which is not in their average. Runs without complete results are left out and
named below the tables.
"""

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tabulate import tabulate

PROTOCOLS = ("base2new", "cross_dataset", "domain_generalization", "few_shot", "zero_shot")
IMAGENET_VARIANTS = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")


@dataclass(frozen=True)
class Run:
    """One run folder, told from its place in the output tree; accuracy in percent, None if it is incomplete."""

    folder: str
    protocol: str
    method: str  # Trainer/config, with a subfolder such as CoOp's nctx16_cscFalse_ctpend
    dataset: str
    part: str  # base-to-new: base or new; transfer: the dataset trained on
    shots: int
    seed: int
    accuracy: float | None


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


def read_runs(root: Path) -> list[Run]:
    """Every run folder below ``root``, complete or not."""
    marks = {"results.json", "config.yaml", "log.txt", "resume.pth.tar"}
    folders = sorted({path.parent for path in root.rglob("*") if path.name in marks})
    runs = [run for folder in folders if (run := _read_run(folder, folder.relative_to(root).parts))]
    trained = {_key(run) for run in runs if "train_base" in Path(run.folder).parts}
    # A training run's own test is on the base classes, so that another test of it adds nothing
    return [run for run in runs if "test_base" not in Path(run.folder).parts or _key(run) not in trained]


def _key(run: Run) -> tuple[Any, ...]:
    return run.protocol, run.part, run.method, run.shots, run.dataset, run.seed


def _read_run(folder: Path, parts: tuple[str, ...]) -> Run | None:
    """None for a folder that lies outside the published tree. `reproduce/` holds tests of downloaded weights."""
    seed, label = 0, ""
    if parts and parts[0] == "reproduce":
        label, parts = "reproduced ", parts[1:]
    if parts and (match := re.fullmatch(r"seed(\d+)", parts[-1])):
        seed, parts = int(match[1]), parts[:-1]
    accuracy = _accuracy(folder / "results.json")
    match parts:
        case ("base2new", stage, dataset, shots, trainer, *config) if config and shots.startswith("shots_"):
            protocol, part = "base2new", stage.rpartition("_")[2]
            number = shots.removeprefix("shots_")
        case (tree, trainer, *config, dataset) if config and re.match(r"evaluation(_|$)", tree):
            protocol = "domain_generalization" if dataset in IMAGENET_VARIANTS else "cross_dataset"
            part, number = tree.partition("_")[2] or "imagenet", _shots(config)
        case (dataset, trainer, *config) if config and _shots(config):
            protocol, part, number = "few_shot", "", _shots(config)
        case (trainer, *config, dataset) if config and trainer.startswith("Zeroshot"):
            protocol, part, number = "zero_shot", "", "0"
        case _:
            return None
    label += "/".join([trainer, *(re.sub(r"_\d+shots$", "", name) for name in config)])
    if not number.isdigit():
        return None
    return Run(str(folder), protocol, label, dataset, part, int(number), seed, accuracy)


def _shots(config: list[str]) -> str:
    found = re.search(r"_(\d+)shots$", config[0])
    return found[1] if found else ""


def _accuracy(path: Path) -> float | None:
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        return float(results["accuracy"]) if results.get("complete") is True else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


# ---- tables ----------------------------------------------------------------------------------------------------


def base2new(runs: list[Run], missing: list[str]) -> list[dict[str, Any]]:
    """A row for each method, shots and dataset; seeds that lack a half are named in ``missing`` and left out."""
    cells: dict[tuple, dict[str, dict[int, float]]] = defaultdict(lambda: {"base": {}, "new": {}})
    for run in runs:
        half = cells[run.method, run.shots, run.dataset][run.part]
        if run.accuracy is not None:
            half[run.seed] = run.accuracy
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
            rows.append(row | {"harmonic_mean": harmonic_mean(means["base"].mean, means["new"].mean)})
    return _with_averages(rows, ("method", "shots"), ("base", "new"))


def accuracies(runs: list[Run]) -> list[dict[str, Any]]:
    """A row for each method, shots and dataset: the accuracy over seeds."""
    cells: dict[tuple, dict[int, float]] = defaultdict(dict)
    for run in runs:
        if run.accuracy is not None:
            cells[run.method, run.shots, run.dataset][run.seed] = run.accuracy
    rows = [
        {"method": method, "shots": shots, "dataset": dataset, "seeds": sorted(found)}
        | {"accuracy": spread(found.values())}
        for (method, shots, dataset), found in sorted(cells.items())
    ]
    return _with_averages(rows, ("method", "shots"), ("accuracy",))


def transfer(runs: list[Run], all_classes: list[Run]) -> list[dict[str, Any]]:
    """The targets of each method, trained source and shots, preceded by the source's own accuracy."""
    groups: dict[tuple, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.method, run.part, run.shots].append(run)
    rows = []
    for (method, source, shots), members in sorted(groups.items()):
        trained = [r for r in all_classes if (r.method, r.dataset, r.shots) == (method, source, shots)]
        for row in accuracies(trained):
            rows.append(row | {"dataset": f"{source} (source)"})
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


def tables(runs: list[Run]) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Rows by protocol, and a line for each incomplete run or pair."""
    missing = [f"{run.folder}: no complete results.json" for run in runs if run.accuracy is None]
    rows = {}
    for protocol in PROTOCOLS:
        of_protocol = [run for run in runs if run.protocol == protocol]
        if protocol == "base2new":
            rows[protocol] = base2new(of_protocol, missing)
        elif protocol in ("cross_dataset", "domain_generalization"):
            rows[protocol] = transfer(of_protocol, [run for run in runs if run.protocol == "few_shot"])
        else:
            rows[protocol] = accuracies(of_protocol)
    return {protocol: found for protocol, found in rows.items() if found}, missing


# ---- output ----------------------------------------------------------------------------------------------------


def as_text(protocol: str, rows: list[dict[str, Any]]) -> str:
    lines = [
        {k: f"{v:.2f}" if isinstance(v, float) else v for k, v in row.items() if k != "seeds"}
        | {"seeds": " ".join(map(str, row["seeds"]))}
        for row in rows
    ]
    return f"{protocol} (accuracy in percent, mean ± standard deviation over seeds)\n" + tabulate(
        lines, headers="keys", disable_numparse=True
    )


def as_json(rows: dict[str, list[dict[str, Any]]], missing: list[str]) -> str:
    plain = {
        protocol: [{k: asdict(v) if isinstance(v, Spread) else v for k, v in row.items()} for row in of_protocol]
        for protocol, of_protocol in rows.items()
    }
    return json.dumps({"tables": plain, "incomplete": missing}, indent=2)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", default="output", type=Path, help="output folder (default: output)")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="this protocol only")
    parser.add_argument("--dataset", help="this dataset only, by the name of its YAML file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the tables to FILE, in full precision")
    args = parser.parse_args(argv)
    if not args.root.is_dir():
        print(f"error: no folder {args.root}: name the OUTPUT folder of the runs", file=sys.stderr)
        return 2
    rows, missing = tables([run for run in read_runs(args.root) if args.dataset in (None, run.dataset)])
    if args.protocol:
        rows = {protocol: found for protocol, found in rows.items() if protocol == args.protocol}
    for protocol, of_protocol in rows.items():
        print(as_text(protocol, of_protocol), end="\n\n")
    if not rows:
        print(f"No runs in {args.root}")
    for line in missing:
        print(f"incomplete: {line}")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(as_json(rows, missing) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
