"""The report's plots, from one row per finished run (``read_results``) and the runs' history.jsonl.

Each function returns the plots of a section, at most :data:`MOST` of them, so that the page of thousands of runs stays
readable and is made in seconds; the tables have the rest.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from statistics import mean, stdev

import pandas as pd

from experiments.report.drawing import Line, Plot, Point, bars, curves, legend
from experiments.report.layouts import swept
from experiments.report.tables import Cell, Column, Row, Table

__all__ = ["MOST", "Section", "ablations", "base2new", "cost", "few_shot", "learning_curves"]

MOST = 12  # plots of a section
_MOST_LINES = 24  # of a plot
_MOST_HISTORIES = 1000  # files read for the learning curves
_MOST_BYTES = 2**22  # of a history.jsonl
_PERCENT = "accuracy (%)"
METRICS = {"base": "base", "new": "new", "harmonic_mean": "harmonic mean"}


@dataclass(frozen=True)
class Section:
    """Plots of one kind, and sentences on what is not among them. The first few belong together, with their legend."""

    plots: list[Plot] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    first: int = 1


def _section(plots: Sequence[Plot], legends: Sequence[Plot] = (), what: str = "") -> Section:
    if not plots:
        return Section()
    left_out = len(plots) - MOST
    notes = [f"Not drawn: {left_out} more {what}, see the tables."] if left_out > 0 else []
    return Section([plots[0], *legends, *plots[1:MOST]], notes, first=1 + len(legends))


def short_names(frame: pd.DataFrame) -> dict[str, str]:
    """For each method of the frame its name, without the config where the trainer has only one."""
    methods = frame.drop_duplicates("method")
    configs = methods.groupby("trainer")["config"].nunique()
    return {
        item.method: Row(item.trainer, item.config, item.variant, item.reproduced).label(configs[item.trainer] > 1)
        for item in methods.itertuples()
    }


def _point(x: float, cell: Cell) -> Point:
    return Point(x, cell.mean, cell.deviation, tuple(cell.seeds.values()))


def _cells(table: Table) -> Iterator[tuple[str, dict[Column, Cell]]]:
    """The label of each row, and the numbers that it has."""
    for label, cells in zip(table.labels, table.cells, strict=True):
        yield label, {column: cell for column, cell in zip(table.columns, cells, strict=True) if cell is not None}


# ---- from the tables -------------------------------------------------------------------------------------------


def base2new(tables: Iterable[Table]) -> Section:
    """Bars of base, new and harmonic mean, of each table of methods; tables that sum up others come first.

    Rows of ablations, beside others, are left to :func:`ablations`.
    """
    found = [table for table in tables if table.protocol == "base2new" and not table.ablation]
    plots = []
    for table in sorted(found, key=lambda table: not table.summary):
        rows = {
            label: {
                METRICS[column.metric]: _point(0, cell) for column, cell in cells.items() if column.metric in METRICS
            }
            for label, cells in _cells(table)
        }
        plain = {label for label, row in zip(table.labels, table.rows, strict=True) if not swept(row.variant)}
        rows = {label: points for label, points in rows.items() if points and (label in plain or not plain)}
        if rows:
            plots.append(bars(table.title, dict(list(rows.items())[:_MOST_LINES]), _PERCENT))
    return _section(plots, what="tables")


def few_shot(tables: Iterable[Table]) -> Section:
    """Accuracy over shots, of each dataset and of their average; methods without training are horizontal lines."""
    tables = list(tables)
    found = {protocol: _by_datasets(tables, protocol) for protocol in ("few_shot", "zero_shot")}
    lines = {of: rows for of, rows in found["few_shot"].items() if len({p.x for ps in rows.values() for p in ps}) > 1}
    levels = {of: rows for of, rows in found["zero_shot"].items() if of in lines}
    labels = dict.fromkeys(label for rows in (*lines.values(), *levels.values()) for label in rows)
    numbers = {label: number for number, label in enumerate(list(labels)[:_MOST_LINES])}
    plots = []
    for datasets, rows in lines.items():
        drawn, level = (
            [Line(label, numbers[label], points) for label, points in of.items() if label in numbers]
            for of in (rows, levels.get(datasets, {}))
        )
        title = datasets[0] if len(datasets) == 1 else f"average of {len(datasets)} datasets"
        plots.append(curves(title, drawn, "training images per class", _PERCENT, level, scale="log2"))
    return _section(plots, [legend(numbers, {label for rows in levels.values() for label in rows})], "datasets")


def _by_datasets(tables: Iterable[Table], protocol: str) -> dict[tuple[str, ...], dict[str, list[Point]]]:
    """For each dataset, and each average over several, the rows' points over shots; all images have no place there."""
    found: dict[tuple[str, ...], dict[str, list[Point]]] = {}
    for table in tables:
        for label, cells in _cells(table) if table.protocol == protocol and not table.ablation else ():
            for column, cell in cells.items():
                if column.shots >= 0:
                    rows = found.setdefault(column.datasets, {})
                    rows.setdefault(label, []).append(_point(float(column.shots), cell))
    return found


def ablations(tables: Iterable[Table]) -> Section:
    """Accuracy over a setting that a plan varied, of each table with exactly one whose values are numbers."""
    numbers: dict[str, int] = {}
    plots = []
    for table in tables:
        values = [_value(row.variant, table.ablation) for row in table.rows]
        if len(set(values)) < 2 or None in values:
            continue
        points: dict[str, list[Point]] = {}
        for x, (_, cells) in zip(values, _cells(table), strict=True):
            for column, cell in cells.items():
                name = METRICS.get(column.metric, column.label) if table.protocol == "base2new" else column.label
                points.setdefault(name, []).append(_point(x or 0.0, cell))
        lines = [Line(name, numbers.setdefault(name, len(numbers)), of) for name, of in points.items()]
        plots.append(curves(f"{table.heading}: {table.title}", lines, table.heading, _PERCENT))
    return _section(plots, [legend(numbers)] if numbers else [], "tables")


def _value(variant: str, settings: Sequence[str]) -> float | None:
    """The value of the only setting of an ablation's row, None if there are more or it is no number."""
    try:
        return float(swept(variant)[settings[0]]) if len(settings) == 1 else None
    except (KeyError, ValueError):
        return None


# ---- learning curves -------------------------------------------------------------------------------------------


def learning_curves(frame: pd.DataFrame, output: Path) -> Section:
    """The training loss over epochs, for each protocol and dataset: every method's mean over seeds."""
    trained = frame[frame["stage"].isin(["train_base", "all_classes"]) & (frame["train_seconds"].fillna(0) > 0)]
    trained = trained[trained["shots"] == trained.groupby(["stage", "dataset"])["shots"].transform("max")]
    names = short_names(trained)
    groups = list(trained.groupby(["stage", "dataset"]))
    numbers = {names[method]: n for n, method in enumerate(trained["method"].unique()[:_MOST_LINES])}
    plots, read = [], 0
    for (stage, dataset), rows in groups[:MOST]:
        lines = []
        for method, runs in rows.groupby("method", sort=False):
            if names[str(method)] in numbers and read < _MOST_HISTORIES:
                read += len(runs)
                points = list(_losses([output / folder / "history.jsonl" for folder in runs["folder"]]))
                lines += [Line(names[str(method)], numbers[names[str(method)]], points)] if points else []
        if lines:
            title = f"{dataset}, {'base' if stage == 'train_base' else 'all'} classes"
            plots.append(curves(title, lines, "epoch", "training loss"))
    section = _section(plots, [legend(numbers)])
    if len(groups) > MOST:
        section.notes.append(f"Drawn: {MOST} of {len(groups)} pairs of protocol and dataset.")
    return section


def _losses(files: Sequence[Path]) -> Iterator[Point]:
    """The loss of each epoch, over the runs that have it."""
    found: dict[int, list[float]] = {}
    for file in files:
        for epoch, loss in _history(file):
            found.setdefault(epoch, []).append(loss)
    for epoch, losses in sorted(found.items()):
        yield Point(float(epoch), mean(losses), stdev(losses) if len(losses) > 1 else None)


def _history(file: Path) -> Iterator[tuple[int, float]]:
    """Epochs and losses of a history.jsonl; nothing of a file that is absent or holds something else."""
    try:
        with open(file, "rb") as stream:
            rows = [json.loads(line) for line in stream.read(_MOST_BYTES).splitlines()]
        losses = [(row["epoch"], float(row["losses"]["loss"])) for row in rows]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    yield from ((epoch, loss) for epoch, loss in losses if isinstance(epoch, int) and isfinite(loss))


# ---- cost ------------------------------------------------------------------------------------------------------

COSTS = (
    ("learned_parameters", "learned parameters", 1, 0),
    ("train_seconds", "seconds of a training", 1, 1),
    ("peak_memory_bytes", "peak memory (GiB)", 2**30, 2),
)


def cost(frame: pd.DataFrame) -> Section:
    """Bars of learned parameters, seconds and peak memory: each method's mean over its trainings."""
    trained = frame[frame["stage"].isin(["train_base", "all_classes"]) & (frame["learned_parameters"].fillna(0) > 0)]
    names = short_names(trained)
    plots = []
    for column, title, unit, digits in COSTS:
        means = trained.dropna(subset=[column]).groupby("method")[column].mean().astype(float) / unit
        means = means[means > 0].sort_values().tail(_MOST_LINES)
        rows = {names[str(method)]: {title: Point(0, float(value))} for method, value in means.items()}
        if rows:
            log = means.max() > 30 * means.min()
            plots.append(bars(title, rows, f"{title}, logarithmic" if log else title, digits, log))
    return _section(plots)
