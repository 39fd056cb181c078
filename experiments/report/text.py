"""The report as text for a terminal."""

import math
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from tabulate import tabulate

from dassl.utils.console import printable
from experiments.report.contents import Report
from experiments.report.grid import (
    COMPARISON_COLUMNS,
    Entry,
    Footnotes,
    Line,
    comparison_lines,
    explain_comparisons,
    explanations,
    full_names,
    lines,
    sections,
)
from experiments.report.missing import Missing
from experiments.report.tables import Table

__all__ = ["as_text"]

WIDTH = 100  # characters
MOST_MISSING = 40  # runs that are named
MOST_COMMANDS = 10  # of these
_RANKS = {1: " *", 2: " +"}


def as_text(report: Report) -> str:
    """The report in lines of at most 100 characters, except for names and commands that are longer."""
    sources, notes = Footnotes(), Footnotes()
    tables = list(_tables(report.tables, sources, notes))
    parts = [_wrapped(explanations(report.tables, "marked *", "+"))] * bool(tables) + tables
    if notes.texts:
        parts.append("\n".join(_wrapped([f"({notes.letter(text)}) {text}"]) for text in notes.texts))
    if sources.texts:
        parts.append("\n".join(_wrapped([f"[{number}] {text}"]) for number, text in enumerate(sources.texts, 1)))
    if report.comparisons:
        parts.append(_comparisons(report))
    if report.missing:
        parts.append(_missing(report.missing))
    return printable("\n\n".join(parts), keep="\n")


def _wrapped(sentences: Sequence[str]) -> str:
    return textwrap.fill(" ".join(sentences), WIDTH, break_long_words=False, break_on_hyphens=False)


# ---- tables ----------------------------------------------------------------------------------------------------


def _tables(tables: Sequence[Table], sources: Footnotes, notes: Footnotes) -> Iterator[str]:
    for title, found in sections(tables):
        for table in found:
            yield f"{table.name}\n{_grid(table, list(lines(table, sources, notes)))}"
        if title and (names := full_names(found)):
            yield "\n".join([f"{title}:", *(f"  {name}" for name in names)])


def _grid(table: Table, found: Sequence[Line]) -> str:
    """The lines of a table, in as many blocks of columns as the width asks for."""
    heads = [column.label for column in table.columns]
    labels = [f"  {line.label}" if line.is_published else line.label for line in found]
    texts = [[_text(entry) for entry in line.entries] for line in found]
    left = max(map(len, [table.heading, *labels]))
    widths = [max(len(head), *(len(row[j]) for row in texts)) for j, head in enumerate(heads)]
    blocks = []
    for columns in _blocks(left, widths):
        rows = [[label, *(row[j] for j in columns)] for label, row in zip(labels, texts, strict=True)]
        headers = [table.heading, *(heads[j] for j in columns)]
        blocks.append(tabulate(rows, headers, disable_numparse=True, preserve_whitespace=True))
    return "\n\n".join(blocks)


def _text(entry: Entry | None) -> str:
    return "" if entry is None else entry.text + entry.behind + _RANKS.get(entry.rank or 0, "")


def _blocks(left: int, widths: Sequence[int]) -> list[list[int]]:
    """The columns of each block: as few blocks as fit, of as equal numbers of columns as fit."""
    columns = range(len(widths))
    for count in range(1, len(widths) + 1):
        each = math.ceil(len(widths) / count)
        blocks = [list(columns[start : start + each]) for start in columns[::each]]
        if all(left + sum(2 + widths[j] for j in block) <= WIDTH for block in blocks):
            break
    return blocks


# ---- comparisons, and what is missing --------------------------------------------------------------------------


def _comparisons(report: Report) -> str:
    parts = [_wrapped([explain_comparisons()])]
    for title, rows in groupby(comparison_lines(report.comparisons), key=lambda row: row[0]):
        found = [row[1:] for row in rows]
        parts.append(f"{title}\n{tabulate(found, COMPARISON_COLUMNS[1:], disable_numparse=True)}")
    return "\n\n".join(parts)


def _missing(missing: Sequence[Missing]) -> str:
    found = []
    for number, item in enumerate(missing[:MOST_MISSING]):
        found.append(f"incomplete: {item.what}")
        if item.command and number < MOST_COMMANDS:
            found.append(f"    {item.command}")
    if len(missing) > MOST_COMMANDS:
        found.append(f"incomplete: {len(missing)} in all; --json, --markdown and --html write them with their commands")
    return "\n".join(found)
