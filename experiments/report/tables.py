"""The tables of the finished runs, in the published form.

A cell is a mean over seeds with its sample standard deviation (divided by n - 1). An average over datasets is the mean
of the datasets' means; its deviation is that of the averages of single seeds, of those that every dataset has. A
harmonic mean of base and new is that of the two means, of an average that of the averaged accuracies; its deviation is
that of the harmonic means of single seeds.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any, NamedTuple

from experiments.published import Published

__all__ = ["AVERAGE", "Cell", "Column", "Lookup", "Row", "Table", "harmonic_mean", "table"]

_ROUNDING = 0.005  # of published numbers, which have two decimals
AVERAGE = "Average"  # stands for the dataset of an average


class Row(NamedTuple):
    """What a row is about. Rows of one table differ in these."""

    trainer: str
    config: str  # "" where each number of shots has the config that is published for it
    variant: str = ""
    reproduced: bool = False

    @property
    def method(self) -> str:
        """Its full name, as :attr:`experiments.runs.Run.method`."""
        return self.label(with_config=True)

    def label(self, with_config: bool) -> str:
        config = (self.config or "published configs") if with_config else ""
        name = "/".join(part for part in (self.trainer, config, self.variant) if part)
        return f"reproduced {name}" if self.reproduced else name


class Column(NamedTuple):
    """What a column is about."""

    label: str
    metric: str  # accuracy, base, new, harmonic_mean or all
    shots: int
    datasets: tuple[str, ...]  # one, or those of an average
    trained_on: str = ""  # in a transfer: the source
    is_source: bool = False  # in a transfer: the accuracy on the source itself

    @property
    def dataset(self) -> str:
        return self.datasets[0] if len(self.datasets) == 1 else AVERAGE


@dataclass(frozen=True)
class Cell:
    """A number of a table, in percent, and what it was made from.

    Attributes:
        mean: over the seeds.
        deviation: sample standard deviation over the seeds, None for fewer than two.
        seeds: the value of each seed; 0 stands for a run without one. Of an average: those that all datasets have.
        datasets: those of an average that the row has.
        published, source: the published number, and where it was published.
        rank: 1 for the best of a column, 2 for the second; of equal printed numbers both. None for others, for a
            column with a single number, and for averages that lack a dataset.
        folders: of the runs, relative to the output folder.
        notes: what the runs say that a reader of the number should know.
    """

    mean: float
    deviation: float | None
    seeds: dict[int, float]
    datasets: tuple[str, ...] = ()
    published: float | None = None
    source: str = ""
    rank: int | None = None
    folders: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def n(self) -> int:
        return len(self.seeds)

    @property
    def difference(self) -> float | None:
        """mean - published."""
        return None if self.published is None else self.mean - self.published

    @property
    def outside(self) -> bool | None:
        """Whether the difference is more than twice the deviation, and than the published number's rounding.

        None without a deviation.
        """
        if self.difference is None or self.deviation is None:
            return None
        return abs(self.difference) > 2 * self.deviation + _ROUNDING


# The published number for a row's number in a column, None if there is none
Lookup = Callable[[Row, Column, str], Published | None]  # the last is the protocol


@dataclass(frozen=True)
class Table:
    """A table: ``cells[i][j]`` belongs to ``rows[i]`` and ``columns[j]``, None where nothing was measured.

    Attributes:
        protocol: base2new, cross_dataset, domain_generalization, few_shot or zero_shot.
        title: without the protocol's name, such as "dtd, 16 shots".
        heading: what the rows are: "method", or the settings of an ablation.
        labels: of the rows, short: no more of Row.method than tells the rows of a protocol's tables apart.
        summary: whether it sums up a protocol: the average over datasets, or the only dataset.
        ablation: the settings that differ between the rows, () for a table of methods.
    """

    protocol: str
    title: str
    heading: str
    labels: tuple[str, ...]
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    summary: bool = False
    ablation: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{NAMES[self.protocol]}, {self.title}"


NAMES = {
    "base2new": "Base-to-new generalization",
    "cross_dataset": "Cross-dataset transfer",
    "domain_generalization": "Domain generalization",
    "few_shot": "Few-shot learning",
    "zero_shot": "Zero-shot",
}


# ---- cells -----------------------------------------------------------------------------------------------------


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b); 0 if both are 0."""
    return 2 * a * b / (a + b) if a + b else 0.0


def measured(value: float, seed: int, folder: str, notes: Sequence[str] = ()) -> Cell:
    """The number of a single run."""
    return Cell(value, None, {seed: value}, (), folders=(folder,), notes=tuple(notes))


def over_seeds(cells: Iterable[Cell]) -> Cell:
    """The mean of runs of different seeds."""
    cells = list(cells)
    seeds = {seed: value for cell in cells for seed, value in cell.seeds.items()}
    seeds = dict(sorted(seeds.items()))
    return _made_of(cells, mean(seeds.values()), seeds)


def over_datasets(cells: dict[str, Cell]) -> Cell:
    """The average of several datasets' numbers."""
    common = set.intersection(*(set(cell.seeds) for cell in cells.values()))
    seeds = {seed: mean(cell.seeds[seed] for cell in cells.values()) for seed in sorted(common)}
    average = mean(cell.mean for cell in cells.values())
    return replace(_made_of(list(cells.values()), average, seeds), datasets=tuple(cells))


def harmonic(base: Cell, new: Cell) -> Cell:
    """The harmonic mean of the numbers on base and on new classes."""
    seeds = {seed: harmonic_mean(base.seeds[seed], new.seeds[seed]) for seed in base.seeds if seed in new.seeds}
    return replace(_made_of([base, new], harmonic_mean(base.mean, new.mean), seeds), datasets=base.datasets)


def _made_of(cells: list[Cell], value: float, seeds: dict[int, float]) -> Cell:
    deviation = stdev(seeds.values()) if len(seeds) > 1 else None
    folders = (folder for cell in cells for folder in cell.folders)
    notes = (note for cell in cells for note in cell.notes)
    return Cell(
        *(value, deviation, seeds),
        folders=tuple(dict.fromkeys(folders)),
        notes=tuple(dict.fromkeys(notes)),
    )


# ---- tables ----------------------------------------------------------------------------------------------------


def table(
    protocol: str,
    title: str,
    cells: dict[tuple[Row, Column], Cell],
    rows: dict[Row, str],
    columns: Sequence[Column],
    published: Lookup,
    **more: Any,
) -> Table:
    """A table of these cells, with published numbers and ranks.

    Args:
        rows: every row's label, in order; those without a cell are left out.
        more: further attributes of the table.
    """
    present = [row for row in rows if any((row, column) in cells for column in columns)]
    complete = {key: _with_published(cell, *key, protocol, published) for key, cell in cells.items()}
    for column in columns:
        _rank({row: complete[row, column] for row in present if (row, column) in complete}, column, complete)
    return Table(
        *(protocol, title, more.pop("heading", "method")),
        tuple(rows[row] for row in present),
        tuple(present),
        tuple(columns),
        tuple(tuple(complete.get((row, column)) for column in columns) for row in present),
        **more,
    )


def _with_published(cell: Cell, row: Row, column: Column, protocol: str, published: Lookup) -> Cell:
    column = column._replace(datasets=cell.datasets or column.datasets)  # those that the row has
    found = published(row, column, protocol)
    return replace(cell, published=found.value, source=found.source) if found else cell


def _rank(cells: dict[Row, Cell], column: Column, into: dict[tuple[Row, Column], Cell]) -> None:
    """Mark the best and the second of a column, as they are printed: in hundredths of a percent."""
    complete = {row: cell for row, cell in cells.items() if not is_partial(cell, column)}
    best = sorted({round(cell.mean, 2) for cell in complete.values()}, reverse=True)[:2]
    for row, cell in cells.items():
        is_ranked = row in complete and len(complete) > 1 and round(cell.mean, 2) in best
        into[row, column] = replace(cell, rank=best.index(round(cell.mean, 2)) + 1 if is_ranked else None)


def is_partial(cell: Cell, column: Column) -> bool:
    """Whether a row lacks a dataset of a column's average."""
    return bool(cell.datasets) and len(cell.datasets) < len(column.datasets)
