"""What a report says, from the run folders alone: every format shows this, and computes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

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
        frame: one row per finished run, see data.py.
        tables: each protocol's summary before its datasets, ablations last.
        comparisons: of the methods of the summaries.
        missing: what the tables lack.
    """

    output: Path
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
        ValueError: no table has two of the methods.
    """
    found = [item for item in find_runs(output) if dataset in (None, item.run.dataset)]
    frame = as_frame(found, output)
    tables = [table for table in make_tables(frame, published_lookup(frame)) if protocol in (None, table.protocol)]
    comparisons = compare(tables, methods)
    if methods and not comparisons:
        names = sorted({label for table in tables for label in table.labels})
        raise ValueError(f"no table has results of {' and '.join(methods)} to compare. There are: {', '.join(names)}")
    missing = [item for item in find_missing(found, output) if protocol in (None, item.protocol)]
    return Report(Path(output), frame, tables, comparisons, missing)
