"""The tables of the report in LaTeX, with booktabs: to be read by \\input from a document."""

import unicodedata
from collections.abc import Iterator

from experiments.report.contents import Report
from experiments.report.grid import Entry, Footnotes, Line, explanations, full_names, lines
from experiments.report.tables import Table

__all__ = ["as_latex"]

_WIDE = 6  # columns from which a table goes over both columns of a page
_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"  # no wider than the text
_RANKS = {1: r"\textbf{%s}", 2: r"\underline{%s}"}
_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''"},
    **{"±": r"$\pm$", "…": r"\ldots{}", "–": "--", "—": "---", "−": "$-$", "’": "'", "“": "``", "”": "''"},
}


def as_latex(report: Report) -> str:
    """A table environment for each table; numbers are those of the other formats."""
    parts = [
        "% Tables of a report of experiments. The document needs:",
        "%   \\usepackage{booktabs,graphicx}",
    ]
    return "\n".join([*parts, *(line for table in report.tables for line in _table(table))]) + "\n"


def _table(table: Table) -> Iterator[str]:
    sources, notes = Footnotes(), Footnotes()
    found = list(lines(table, sources, notes))
    environment = "table*" if len(table.columns) >= _WIDE else "table"
    about = " ".join(explanations([table], "bold", "underlined"))
    yield f"\n\\begin{{{environment}}}[t]"
    yield "\\centering"
    yield f"\\caption{{{_escaped(table.name)}. {_escaped(about)}}}\\smallskip"
    yield _FIT
    yield f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}"
    yield "\\toprule"
    yield _row([_escaped(table.heading), *(_escaped(column.label) for column in table.columns)])
    yield "\\midrule"
    yield from map(_line, found)
    yield "\\bottomrule"
    yield "\\end{tabular}}"
    below = [
        *([] if table.ablation else full_names([table])),
        *(f"[{number}] {text}" for number, text in enumerate(sources.texts, 1)),
    ]
    below += [f"({notes.letter(text)}) {text}" for text in notes.texts]
    if below:
        text = _escaped("; ".join(below)).replace("/", "/\\allowbreak{}")
        yield f"\\par\\smallskip\\raggedright\\footnotesize {text}"
    yield f"\\end{{{environment}}}"


def _line(line: Line) -> str:
    label = _escaped(line.label)
    return _row([f"\\quad {label}" if line.is_published else label, *map(_entry, line.entries)])


def _row(texts: list[str]) -> str:
    return f"{' & '.join(texts)} \\\\"


def _entry(entry: Entry | None) -> str:
    if entry is None:
        return ""
    number = _RANKS.get(entry.rank or 0, "%s") % entry.text
    behind = _escaped(entry.behind.strip()).replace("(-", "($-$")
    return number + (f" {{\\scriptsize {behind}}}" if behind else "")


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character) or _plain(character) for character in text)


def _plain(character: str) -> str:
    """A character that every LaTeX sets: others as their base letter, or as a question mark."""
    if " " <= character <= "~":
        return character
    base = unicodedata.normalize("NFKD", character)[0]
    return base if base.isascii() and base.isprintable() else "?"
