"""What a report says, from the run folders alone: every format shows this, and computes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dassl.utils.names import closest_hint
from experiments.report.comparisons import Comparison, compare
from experiments.report.data import as_frame, find_runs
from experiments.report.layouts import make_tables
from experiments.report.missing import Missing, find_missing
from experiments.report.references import published_lookup
from experiments.report.tables import Table

__all__ = ["Report", "make_report"]


@dataclass(frozen=True)
class Report:
    """The content of a report.

    Attributes:
        output: the folder of the runs.
        runs: one row per finished run, see data.py.
        frame: the rows of those that the report is about: without ``protocol`` and ``dataset``, all.
        tables: each protocol's summary before its datasets, ablations last.
        comparisons: of the methods of the summaries.
        missing: what the tables lack.
    """

    output: Path
    runs: pd.DataFrame
    frame: pd.DataFrame
    tables: list[Table]
    comparisons: list[Comparison]
    missing: list[Missing]


def make_report(
    output: str | Path, protocol: str | None = None, dataset: str | None = None, methods: Sequence[str] = ()
) -> Report:
    """The report of the runs below ``output``.

    Args:
        protocol, dataset: only these runs.
        methods: rows to compare in pairs, by their names in the tables; by default the best with every other one.

    Raises:
        FileNotFoundError: there is no such folder, or no run in it.
        ValueError: no table has such a row; the message has the closest names.
    """
    found = find_runs(output)
    runs = as_frame(found, output)
    frame = runs if dataset is None else runs[runs["dataset"] == dataset]
    tables = [table for table in make_tables(frame, published_lookup(frame)) if protocol in (None, table.protocol)]
    _check_methods(methods, tables)
    comparisons = compare(tables, methods)
    missing = [
        item
        for item in find_missing([item for item in found if dataset in (None, item.run.dataset)], output)
        if protocol in (None, item.protocol)
    ]
    frame = frame if protocol is None else frame[frame["protocol"] == protocol]
    return Report(Path(output), runs, frame, tables, comparisons, missing)


def _check_methods(methods: Sequence[str], tables: Sequence[Table]) -> None:
    known = {row.method for table in tables for row in table.rows}
    names = sorted({label for table in tables for label in table.labels})
    for name in methods:
        if name not in known and name not in names:
            raise ValueError(f"no row '{name}' in the tables{closest_hint(name, names)} There are: {', '.join(names)}")
