"""The report as Markdown, with tables as GitHub shows them."""

import re
from collections.abc import Iterator, Sequence

from dassl.utils.console import printable
from experiments.report import grid
from experiments.report.contents import Report
from experiments.report.grid import Entry, Footnotes

__all__ = ["as_markdown"]

_RANKS = {1: "**{}**", 2: "<u>{}</u>"}


def as_markdown(report: Report) -> str:
    """Every table of the report, the comparisons, and what is missing with its commands."""
    return "\n".join(_parts(report))


def _parts(report: Report) -> Iterator[str]:
    sources, notes = Footnotes(), Footnotes()
    yield f"# Results in {_escaped(str(report.output))}\n"
    if report.tables:
        yield " ".join(map(_escaped, grid.explanations(report.tables, "bold", "underlined"))) + "\n"
    for title, found in grid.sections(report.tables):
        for table in found:
            yield f"## {_escaped(table.name)}\n"
            rows = [[_escaped(line.label), *map(_entry, line.entries)] for line in grid.lines(table, sources, notes)]
            yield _table([table.heading, *(column.label for column in table.columns)], rows)
        if title and (names := grid.full_names(found)):
            yield "\n".join([f"{title}:\n", *(f"- {_escaped(name)}" for name in names), ""])
    yield "## Sources and notes\n" if sources.texts or notes.texts else ""
    for number, text in enumerate(sources.texts, 1):
        yield f"- \\[{number}\\] {_escaped(text)}"
    for text in notes.texts:
        yield f"- ({notes.letter(text)}) {_escaped(text)}"
    if report.comparisons:
        yield f"\n## Comparisons\n\n{_escaped(grid.explain_comparisons())}\n"
        yield _table(
            grid.COMPARISON_COLUMNS, [list(map(_escaped, row)) for row in grid.comparison_lines(report.comparisons)]
        )
    if report.missing:
        yield "\n## Missing\n"
        for item in report.missing:
            yield f"- {_escaped(item.what)}" + (f"\n\n      {printable(item.command)}\n" if item.command else "")


def _entry(entry: Entry | None) -> str:
    if entry is None:
        return ""
    return _RANKS.get(entry.rank or 0, "{}").format(entry.text) + _escaped(entry.behind)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    numbers = " | ".join("--:" for _ in heads[1:])
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"| {' | '.join(map(_escaped, heads))} |\n| --- | {numbers} |\n{body}\n"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", printable(text))
