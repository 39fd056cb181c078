"""The report as one HTML page, which loads nothing: tables with details, plots, comparisons, what is missing.

``page.html.j2`` is its structure, ``page.css`` its style, ``page.js`` its script. Every text in it is escaped: names of
classes, folders and methods are a user's.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from dassl.utils.console import printable, utf8_text
from experiments.report import plots
from experiments.report.classes import ClassGains, class_gains
from experiments.report.comparisons import Comparison
from experiments.report.contents import Report
from experiments.report.drawing import Plot
from experiments.report.grid import COMPARISON_COLUMNS, comparison_lines, explain_comparisons, explanations
from experiments.report.missing import Missing
from experiments.report.plots import Section
from experiments.report.tables import NAMES, Cell, Column, Table, is_partial

__all__ = ["page"]

_FOLDER = Path(__file__).parent
_MOST_RUNS = 12  # whose folders and commands a number shows
_MOST_MISSING = 200
_MINUS = "−"
_ABOUT_PUBLISHED = (
    "Below a number are the published one, its source, and the difference to it; ▲ and ▼ mark a difference outside of "
    "twice the seeds' deviation."
)
_NO_PREDICTIONS = (
    "What each class gains over a baseline, and which classes are confused, is shown where two methods or more have "
    "predictions: set TEST.PREDICTIONS True for the tests (in a plan, TEST.PREDICTIONS: True under options)."
)
_ABOUT_PAGE = "Select a number for its seeds, run folders and commands, and a heading to sort."


class Value(NamedTuple):
    """A number of a plain table: what is shown, and what the column is sorted by."""

    text: str
    number: float


class PlainTable(NamedTuple):
    """A table without details; the first column heads the rows, None is an empty cell."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Value | None]]


class Block(NamedTuple):
    """Tables below each other, and beside them the plots that belong to them, where the screen is wide enough."""

    tables: Sequence[dict[str, Any]] = ()
    plain: Sequence[PlainTable] = ()
    plots: Sequence[Plot] = ()


@dataclass
class Part:
    """A section of the page, left out if it holds nothing."""

    id: str
    title: str
    text: Sequence[str] = ()
    blocks: Sequence[Block] = ()
    plots: Sequence[Plot] = ()
    notes: Sequence[str] = ()
    folded: Sequence[dict[str, Any]] = ()
    folded_title: str = ""
    missing: Sequence[Missing] = ()

    def __bool__(self) -> bool:
        return bool(self.text or any(map(any, self.blocks)) or self.plots or self.folded or self.missing)


def page(report: Report) -> str:
    """The page of a report."""
    frame = report.frame
    numbers = _Numbers(frame)
    parts = [part for part in [*_results(report.tables, numbers), *_others(report)] if part]
    script, style = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("page.html.j2").render(
        title="Results",
        summary=_summary(frame, report.output),
        about=[*explanations(report.tables, "bold", "underlined", _ABOUT_PUBLISHED), _ABOUT_PAGE],
        parts=parts,
        sources=list(numbers.sources),
        data={"runs": numbers.runs, "notes": list(numbers.notes)},
        style=style,
        script=script,
        script_hash=f"sha256-{digest}",
    )
    return utf8_text(printable(text.strip(), keep="\n")) + "\n"


def _summary(frame: pd.DataFrame, output: Path) -> str:
    counts = (
        _count(len(frame), "finished run"),
        _count(frame["method"].nunique(), "method"),
        _count(frame["dataset"].nunique(), "dataset"),
    )
    return f"{counts[0]} of {counts[1]} on {counts[2]}, in {output}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


# ---- tables ----------------------------------------------------------------------------------------------------


class _Numbers:
    """The numbers of tables as the template shows them; runs, notes and sources are kept once and numbered."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.runs = [list(pair) for pair in zip(frame["folder"], frame["command"], strict=True)]
        self.notes: dict[str, int] = {}
        self.sources: dict[str, int] = {}
        self._run = {folder: number for number, (folder, _) in enumerate(self.runs)}

    def table(self, table: Table) -> dict[str, Any]:
        rows = [
            {
                **{"label": label, "name": row.method},
                "cells": [cell and self._cell(cell, of) for of, cell in zip(table.columns, cells, strict=True)],
            }
            for label, row, cells in zip(table.labels, table.rows, table.cells, strict=True)
        ]
        columns = [column.label for column in table.columns]
        title = f"{table.heading}: {table.title}" if table.ablation else table.title
        return {
            **{"title": title, "name": table.name, "heading": table.heading},
            **{"columns": columns, "rows": rows},
        }

    def _cell(self, cell: Cell, column: Column) -> dict[str, Any]:
        shown: dict[str, Any] = {
            **{"value": repr(cell.mean), "mean": f"{cell.mean:.2f}", "spread": _spread(cell), "rank": cell.rank},
            "partial": f"{len(cell.datasets)} of {len(column.datasets)} datasets" if is_partial(cell, column) else "",
            "seeds": " ".join(f"{seed}:{value:.2f}" for seed, value in cell.seeds.items()),
            "runs": " ".join(str(self._run[folder]) for folder in cell.folders[:_MOST_RUNS]),
            "more": max(0, len(cell.folders) - _MOST_RUNS),
            "notes": " ".join(str(self.notes.setdefault(note, len(self.notes))) for note in cell.notes),
            "published": None,
        }
        if cell.published is not None and cell.difference is not None:
            number = self.sources.setdefault(cell.source, len(self.sources) + 1)
            mark = ("above" if cell.difference > 0 else "below") if cell.outside else ""
            difference = _signed(cell.difference)
            shown |= {"published": f"{cell.published:.2f}", "source": f"[{number}]", "difference": difference}
            shown |= {"mark": mark, "published_details": f"{cell.published:.2f} ({cell.source}), {_judged(cell)}"}
        return shown


def _spread(cell: Cell) -> str:
    deviation = f"± {cell.deviation:.2f}" if cell.deviation is not None else ""
    return f"{deviation} ({cell.n})".strip() if cell.n else ""


def _signed(value: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f}".replace("-", _MINUS)


def _judged(cell: Cell) -> str:
    difference = f"difference {_signed(cell.difference or 0)}"
    if cell.outside is None:
        return f"{difference}; a deviation needs two seeds"
    return f"{difference}, {'outside of' if cell.outside else 'within'} twice the deviation"


def _results(tables: Sequence[Table], numbers: _Numbers) -> Iterable[Part]:
    """A part for each protocol, and one for the ablations."""
    drawn = {"base2new": plots.base2new, "few_shot": plots.few_shot}
    for protocol, title in NAMES.items():
        found = [table for table in tables if table.protocol == protocol and not table.ablation]
        summaries, single = ([table for table in found if table.summary is is_one] for is_one in (True, False))
        section = drawn[protocol](tables) if protocol in drawn else Section()
        beside = section.first if len(summaries) == 1 else 0
        yield Part(
            *(protocol, title),
            blocks=[Block(list(map(numbers.table, summaries)), plots=section.plots[:beside])],
            plots=section.plots[beside:],
            notes=section.notes,
            folded=list(map(numbers.table, single)),
            folded_title=f"Single datasets: {_count(len(single), 'table')}",
        )
    ablations = [numbers.table(table) for table in tables if table.ablation]
    section = plots.ablations(tables)
    yield Part("ablations", "Ablations", (), [Block(ablations)], section.plots, section.notes)


# ---- the other sections ----------------------------------------------------------------------------------------


def _others(report: Report) -> Iterable[Part]:
    output, tables = report.output, report.tables
    order = {method: n for n, method in enumerate(dict.fromkeys(row.method for of in tables for row in of.rows))}
    place = report.frame["method"].map(order).fillna(len(order))
    frame = report.frame.loc[place.sort_values(kind="stable").index]
    names = plots.short_names(frame)
    compared = _comparisons(report.comparisons)
    yield Part("differences", "Differences", [explain_comparisons()] if compared else (), [Block(plain=compared)])
    gains, left = class_gains(frame, output, names)
    blocks = [block for of in gains for block in _class_blocks(of)]
    yield Part("classes", "Classes", _about_classes(gains, left), blocks)
    learning = plots.learning_curves(frame, output)
    text = ["Training loss over epochs: the mean over seeds, with their deviation as a band."]
    yield Part("learning", "Learning curves", text if learning.plots else (), (), learning.plots, learning.notes)
    yield Part("cost", "Cost", (), [Block(plain=_costs(frame, names))], plots.cost(frame).plots)
    left = len(report.missing) - _MOST_MISSING
    text = [f"The first {_MOST_MISSING} of {len(report.missing):,} runs; the terminal's report lists all."] * (left > 0)
    yield Part("missing", "Missing", text, missing=report.missing[:_MOST_MISSING])


def _comparisons(comparisons: Sequence[Comparison]) -> list[PlainTable]:
    tables: dict[str, list[Any]] = {}
    for of, (table, metric, methods, *texts) in zip(comparisons, comparison_lines(comparisons), strict=True):
        numbers = (of.difference, of.n, of.t_test, of.wilcoxon)
        values = [n if n is None else Value(text, n) for text, n in zip(texts, numbers, strict=True)]
        tables.setdefault(table, []).append((methods, metric, *values))
    columns = ("methods", *COMPARISON_COLUMNS[1:2], *COMPARISON_COLUMNS[3:])
    return [PlainTable(title, columns, rows) for title, rows in tables.items()]


def _about_classes(gains: Sequence[ClassGains], left: int) -> list[str]:
    if not gains:
        return [_NO_PREDICTIONS]
    text = "Differences of single classes to a baseline, in percentage points of their accuracy over all seeds."
    return [text, *([f"Not read: predictions of {_count(left, 'more run')}."] if left else [])]


def _class_blocks(gains: ClassGains) -> list[Block]:
    rows = [
        (
            row.method,
            Value(f"{row.accuracy:.2f}", row.accuracy),
            Value(str(row.better), row.better),
            Value(str(row.worse), row.worse),
            f"{row.most[0]} ({_signed(row.most[1], 1)})",
            f"{row.least[0]} ({_signed(row.least[1], 1)})",
        )
        for row in gains.methods
    ]
    columns = ("method", "accuracy", "classes better", "worse", "largest gain", "smallest gain")
    pairs = [
        (pair.true, pair.predicted, Value(f"{pair.share:.1f}", pair.share), _share(pair.baseline))
        for pair in gains.confusions
    ]
    names = ("class", "taken for", f"{gains.best}, % of its images", f"{gains.baseline}, %")
    confused = [PlainTable(f"{gains.title}, most confused pairs", names, pairs)] if pairs else []
    methods = PlainTable(f"{gains.title}, against {gains.baseline}", columns, rows)
    return [Block(plain=[methods]), Block(plain=confused, plots=[gains.plot])]


def _share(value: float | None) -> Value | None:
    return None if value is None else Value(f"{value:.1f}", value)


def _costs(frame: pd.DataFrame, names: dict[str, str]) -> list[PlainTable]:
    """For each method learned parameters, and means over its runs."""
    rows = []
    for method, runs in frame.groupby("method", sort=False):
        trainings = runs[runs["learned_parameters"].fillna(0) > 0]
        learned, total = runs["learned_parameters"].max(), runs["total_parameters"].max()
        rows.append(
            (
                names[str(method)],
                *(None if pd.isna(count) else Value(f"{count:,}", count) for count in (learned, total)),
                _mean(trainings.loc[trainings["train_seconds"] > 0, "train_seconds"], 1),
                _mean(runs["test_seconds"], 1),
                _mean(runs["peak_memory_bytes"] / 2**30, 2),
            )
        )
    columns = ("method", "learned parameters", "all parameters", "training (s)", "test (s)", "peak memory (GiB)")
    return [PlainTable("Means over the runs of each method", columns, rows)] if rows else []


def _mean(values: "pd.Series[Any]", digits: int) -> Value | None:
    mean = values.dropna().mean()
    return None if pd.isna(mean) else Value(f"{mean:,.{digits}f}", float(mean))
