"""Differences between two methods, tested over the seeds and datasets that both have."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, stdev

from experiments.report.layouts import order_of_datasets
from experiments.report.tables import Column, Row, Table, is_partial

__all__ = ["LEAST_PAIRS", "Comparison", "compare"]

LEAST_PAIRS = 5  # for a test: fewer differences say next to nothing about their distribution
# Wilcoxon's smallest two-sided p is 2 / 2**n, so that five differences cannot reach 0.05
_LEAST_WILCOXON = 6


@dataclass(frozen=True)
class Comparison:
    """The differences first - second of the accuracies with the same dataset and seed, in percentage points.

    Attributes:
        first, second: the rows' full names; labels: as in the table.
        metric, shots: of the accuracies.
        n: number of pairs.
        datasets, seeds: those that the pairs come from.
        difference, deviation: mean and sample standard deviation of the n differences (None for one).
        t_test, wilcoxon: two-sided p of the paired t-test and of Wilcoxon's signed-rank test, not corrected for the
            number of comparisons. None where a test does not apply: for fewer than 5 pairs (t-test) or than 6
            differences that are not 0 (Wilcoxon), or where all differences are equal.
    """

    protocol: str
    table: str
    first: str
    second: str
    labels: tuple[str, str]
    metric: str
    shots: int
    n: int
    datasets: tuple[str, ...]
    seeds: tuple[int, ...]
    difference: float
    deviation: float | None
    t_test: float | None
    wilcoxon: float | None


def compare(tables: Iterable[Table], methods: Sequence[str] = ()) -> list[Comparison]:
    """Compare the best row of each protocol's summary with every other one, where they have at least 5 pairs.

    Rows with settings of their own (variants) are left out where there are two others.

    Args:
        tables: all tables, since the pairs come from those of the single datasets.
        methods: full names or labels of rows: instead, every two of these, also with fewer pairs.
    """
    tables = list(tables)
    found = []
    for summary in tables:
        if summary.summary and not summary.ablation:
            values = _values(summary, tables)
            for column in _columns(summary):
                for first, second in _pairs(summary, column, methods):
                    labels = summary.labels[first], summary.labels[second]
                    rows = summary.rows[first], summary.rows[second]
                    comparison = _compare(summary, column, rows, labels, values)
                    if comparison and (methods or comparison.n >= LEAST_PAIRS):
                        found.append(comparison)
    return found


Values = dict[tuple[Row, str, int], dict[tuple[str, int], float]]  # by row, metric and shots: of (dataset, seed)


def _values(summary: Table, tables: Iterable[Table]) -> Values:
    """The accuracy of every seed on every dataset of a summary."""
    values: Values = {}
    for table in tables:
        same = table.protocol == summary.protocol and not table.ablation
        for row, cells in zip(table.rows, table.cells, strict=True):
            for column, cell in zip(table.columns, cells, strict=True):
                if same and cell and not cell.datasets and _belongs(column, summary):
                    of = values.setdefault((row, column.metric, column.shots), {})
                    of.update({(column.dataset, seed): value for seed, value in cell.seeds.items()})
    return values


def _belongs(column: Column, summary: Table) -> bool:
    """Whether a column of a single dataset is part of what a summary averages."""
    return not column.is_source and any(
        (of.shots, of.trained_on) == (column.shots, column.trained_on) for of in summary.columns
    )


def _columns(summary: Table) -> list[Column]:
    """A column for each metric and number of shots: the average, or that of the only dataset."""
    chosen: dict[tuple[str, int], Column] = {}
    for column in summary.columns:
        if not column.is_source:
            chosen[column.metric, column.shots] = column  # the average is the last one
    return list(chosen.values())


def _pairs(summary: Table, column: Column, methods: Sequence[str]) -> list[tuple[int, int]]:
    j = summary.columns.index(column)
    present = [i for i in range(len(summary.rows)) if summary.cells[i][j]]
    plain = [i for i in present if not summary.rows[i].variant]
    numbers = plain if len(plain) > 1 else present
    if methods:
        numbers = [i for i in present if {summary.labels[i], summary.rows[i].method} & {*methods}]

    def value(i: int) -> tuple[bool, float]:
        cell = summary.cells[i][j]
        return (not is_partial(cell, column), cell.mean) if cell else (False, 0.0)

    best_first = sorted(numbers, key=value, reverse=True)
    pairs = list(combinations(best_first, 2))
    return pairs if methods else pairs[: len(numbers) - 1]


def _compare(
    summary: Table, column: Column, rows: tuple[Row, Row], labels: tuple[str, str], values: Values
) -> Comparison | None:
    first, second = (values.get((row, column.metric, column.shots), {}) for row in rows)
    common = sorted(first.keys() & second.keys())
    if not common:
        return None
    differences = [first[key] - second[key] for key in common]
    t_test, wilcoxon = _tests(differences)
    return Comparison(
        protocol=summary.protocol,
        table=summary.title,
        first=rows[0].method,
        second=rows[1].method,
        labels=labels,
        metric=column.metric,
        shots=column.shots,
        n=len(common),
        datasets=tuple(order_of_datasets(dataset for dataset, _ in common)),
        seeds=tuple(sorted({seed for _, seed in common})),
        difference=mean(differences),
        deviation=stdev(differences) if len(differences) > 1 else None,
        t_test=t_test,
        wilcoxon=wilcoxon,
    )


def _tests(differences: Sequence[float]) -> tuple[float | None, float | None]:
    """p of the paired t-test and of Wilcoxon's test, None where one does not apply."""
    rounded = [round(difference, 9) for difference in differences]  # so that rounding errors break no tie
    if len(rounded) < LEAST_PAIRS or len(set(rounded)) == 1:
        return None, None
    from scipy import stats  # here, since it takes a second to import

    t_test = float(stats.ttest_1samp(rounded, 0.0).pvalue)
    if sum(difference != 0 for difference in rounded) < _LEAST_WILCOXON:
        return t_test, None
    return t_test, float(stats.wilcoxon(rounded).pvalue)
