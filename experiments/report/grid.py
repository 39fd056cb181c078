"""What is printed of a report, for every format that people read: lines of texts, footnotes, explanations."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from experiments.report.comparisons import LEAST_PAIRS, Comparison
from experiments.report.layouts import HEADINGS, shots_label
from experiments.report.tables import NAMES, Cell, Column, Table, is_partial

__all__ = ["COMPARISON_COLUMNS", "Entry", "Footnotes", "Line", "comparison_lines", "explain_comparisons", "lines"]

OUTSIDE = "!"  # marks a difference to the published number
COMPARISON_COLUMNS = ("table", "metric", "methods", "difference", "pairs", "p, t-test", "p, Wilcoxon")


@dataclass(frozen=True)
class Entry:
    """A cell: ``text`` is the number that a rank marks, what follows it is behind it."""

    text: str
    behind: str = ""
    rank: int | None = None


@dataclass(frozen=True)
class Line:
    """A line of a table: a row, or the published numbers of the row above it."""

    label: str
    entries: tuple[Entry | None, ...]
    is_published: bool = False


@dataclass
class Footnotes:
    """Texts in the order in which they are first referred to; their marks are 1, 2, … or a, b, …"""

    texts: list[str] = field(default_factory=list)

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1

    def letter(self, text: str) -> str:
        number, letters = self.number(text), ""
        while number:
            number, rest = divmod(number - 1, 26)
            letters = chr(ord("a") + rest) + letters
        return letters


def lines(table: Table, sources: Footnotes, notes: Footnotes) -> Iterator[Line]:
    """The lines of a table. Sources of published numbers and notes on runs are added to the footnotes."""
    for label, cells in zip(table.labels, table.cells, strict=True):
        said = dict.fromkeys(note for cell in cells if cell for note in cell.notes)
        letters = "".join(f" ({notes.letter(note)})" for note in said)
        yield Line(label + letters, tuple(map(_entry, cells, table.columns)))
        if found := dict.fromkeys(cell.source for cell in cells if cell and cell.published is not None):
            numbers = ", ".join(str(sources.number(source)) for source in found)
            yield Line(f"published [{numbers}]", tuple(map(_published, cells)), is_published=True)


def _entry(cell: Cell | None, column: Column) -> Entry | None:
    if cell is None:
        return None
    behind = "" if cell.deviation is None else f" ± {cell.deviation:.2f} ({cell.n})"
    if is_partial(cell, column):
        behind += f" [{len(cell.datasets)} of {len(column.datasets)}]"
    return Entry(f"{cell.mean:.2f}", behind, cell.rank)


def _published(cell: Cell | None) -> Entry | None:
    if cell is None or cell.published is None:
        return None
    difference = round(cell.mean - cell.published, 2) + 0.0  # no -0.00
    return Entry(f"{cell.published:.2f}", f" ({difference:+.2f}{f' {OUTSIDE}' * bool(cell.outside)})")


# ---- explanations ----------------------------------------------------------------------------------------------


_PUBLISHED = (
    "Below a method are its published numbers, in parentheses the difference to them; "
    f"{OUTSIDE} is outside of twice the deviation."
)


def explanations(tables: Sequence[Table], best: str, second: str, published: str = _PUBLISHED) -> list[str]:
    """Sentences that say what the numbers are.

    Args:
        best, second: how the best and the second number of a column are marked.
        published: the sentence on the published numbers.
    """
    cells = [cell for table in tables for row in table.cells for cell in row if cell]
    several = any(cell.deviation is not None for cell in cells)
    over = ": mean ± standard deviation over seeds, the number of seeds in parentheses" if several else ""
    found = [f"Accuracy in percent{over}."]
    if several:
        found.append("The deviation is that of a sample (n - 1); of an average, that of the averages of single seeds.")
    if any(column.metric == "harmonic_mean" for table in tables for column in table.columns):
        found.append("H: harmonic mean of base and new; of an average, that of the averaged accuracies.")
    if any(cell.rank for cell in cells):
        found.append(f"The best number of a column is {best}, the second {second}.")
    if any(cell.published is not None for cell in cells):
        found.append(published)
    if any(is_partial(cell, column) for table in tables for row in table.cells for cell, column in _pairs(row, table)):
        found.append("[9 of 10]: an average over 9 of the 10 datasets, which takes no part in the ranking.")
    return found


def _pairs(row: Sequence[Cell | None], table: Table) -> Iterator[tuple[Cell, Column]]:
    return ((cell, column) for cell, column in zip(row, table.columns, strict=True) if cell)


def sections(tables: Iterable[Table]) -> Iterator[tuple[str, list[Table]]]:
    """Tables that are together, with the title of the list of their methods' full names: those of a protocol."""
    for ablation, group in groupby(tables, key=lambda table: bool(table.ablation)):
        for protocol, of_protocol in groupby(group, key=lambda table: table.protocol):
            yield "" if ablation else f"Methods of {NAMES[protocol].lower()}", list(of_protocol)


def full_names(tables: Iterable[Table]) -> list[str]:
    """A line for each method whose label is not its full name; variants have the same addition in both."""
    names = {
        label.removesuffix(f"/{row.variant}"): row._replace(variant="").method
        for table in tables
        for label, row in zip(table.labels, table.rows, strict=True)
    }
    return [f"{label}: {method}" for label, method in names.items() if label != method]


# ---- comparisons -----------------------------------------------------------------------------------------------


def explain_comparisons() -> str:
    return (
        "Differences between two methods in percentage points: the mean over pairs with the same dataset and seed, "
        "± the sample standard deviation of the pairs' differences; 33 (11, 3): 33 pairs from 11 datasets and 3 seeds. "
        "p is two-sided, of the paired t-test and of "
        f"Wilcoxon's signed-rank test, from {LEAST_PAIRS} pairs on (Wilcoxon: 6 that differ). It is not corrected for "
        "the number of comparisons, and takes the pairs as independent, which the seeds of one dataset are not quite."
    )


def comparison_lines(comparisons: Iterable[Comparison]) -> list[tuple[str, ...]]:
    """The cells below :data:`COMPARISON_COLUMNS`."""
    return [
        (
            f"{NAMES[of.protocol]}, {of.table}",
            HEADINGS.get(of.metric, of.metric) if of.protocol != "few_shot" else shots_label(of.shots),
            " - ".join(of.labels),
            f"{of.difference:+.2f}" + ("" if of.deviation is None else f" ± {of.deviation:.2f}"),
            f"{of.n} ({len(of.datasets)}, {len(of.seeds)})",
            *map(_p, (of.t_test, of.wilcoxon)),
        )
        for of in comparisons
    ]


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"
