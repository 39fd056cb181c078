"""The report for programs, in full precision: CSV with a row per run or per number of a table, JSON."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pandas as pd

from experiments.report.contents import Report
from experiments.report.tables import Cell, Column, Row, Table, is_partial

__all__ = ["as_json", "runs_as_csv", "tables_as_csv"]


def runs_as_csv(report: Report) -> str:
    """A row for each finished run: ``results.csv``."""
    return report.runs.to_csv(index=False, lineterminator="\n")


def tables_as_csv(report: Report) -> str:
    """A row for each number of each table."""
    rows = [
        {**_about(table), "method": row.method, "label": label, **_column(column), **_cell(cell, column)}
        for table in report.tables
        for row, label, column, cell in _cells(table)
    ]
    frame = pd.DataFrame(rows)
    if rows:
        frame["ablation"] = frame["ablation"].map(" ".join)
        frame["datasets"] = frame["datasets"].map(" ".join)
        frame["seeds"] = frame["seeds"].map(
            lambda seeds: " ".join(f"{seed}={value!r}" for seed, value in seeds.items())
        )
        frame["folders"] = frame["folders"].map(" ".join)
        frame["notes"] = frame["notes"].map(" | ".join)
    return frame.to_csv(index=False, lineterminator="\n")


def as_json(report: Report) -> str:
    """Tables, comparisons, and what is missing."""
    tables = [
        {
            **_about(table),
            "heading": table.heading,
            "cells": [
                {"method": row.method, "label": label, **_column(column), **_cell(cell, column)}
                for row, label, column, cell in _cells(table)
            ],
        }
        for table in report.tables
    ]
    content = {
        "output": str(report.output),
        "tables": tables,
        "comparisons": [asdict(comparison) for comparison in report.comparisons],
        "incomplete": [asdict(item) for item in report.missing],
    }
    return json.dumps(content, indent=2) + "\n"


def _cells(table: Table) -> Iterator[tuple[Row, str, Column, Cell]]:
    for row, label, cells in zip(table.rows, table.labels, table.cells, strict=True):
        for column, cell in zip(table.columns, cells, strict=True):
            if cell:
                yield row, label, column, cell


def _about(table: Table) -> dict[str, Any]:
    return {"protocol": table.protocol, "table": table.title, "ablation": table.ablation}


def _column(column: Column) -> dict[str, Any]:
    return {
        **{"column": column.label, "dataset": column.dataset, "metric": column.metric},
        **{"shots": column.shots, "trained_on": column.trained_on},
    }


def _cell(cell: Cell, column: Column) -> dict[str, Any]:
    return {
        **{"mean": cell.mean, "deviation": cell.deviation, "n": cell.n, "seeds": cell.seeds, "rank": cell.rank},
        **{"datasets": cell.datasets or column.datasets, "partial": is_partial(cell, column)},
        **{"published": cell.published, "source": cell.source},
        **{"difference": cell.difference, "outside": cell.outside},
        **{"folders": cell.folders, "notes": cell.notes},
    }
