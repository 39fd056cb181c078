"""``python -m experiments report``: its arguments, and what it prints and writes."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from dassl.utils.files import atomic_write
from experiments.plans import PROTOCOLS

__all__ = ["add_arguments", "main", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", nargs="?", default="output", type=Path, help="folder of all runs (output)")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="this protocol only")
    parser.add_argument("--dataset", metavar="NAME", help="this dataset only, by the name of its YAML file")
    compare = "test every two of these rows, by their names in the tables (the best with every other one)"
    parser.add_argument("--compare", nargs="+", default=[], metavar="METHOD", help=compare)
    formats = {"markdown": "as Markdown", "csv": "as CSV, a row per number", "latex": "in LaTeX (booktabs)"}
    formats |= {"html": "as one HTML page with plots", "json": "as JSON, in full precision"}
    for name, text in formats.items():
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"also write the report {text} to FILE")
    parser.add_argument("--results", type=Path, metavar="FILE", help="a row per finished run (OUTPUT/results.csv)")


def main(argv: Sequence[str]) -> int:
    """Run with these arguments; see :func:`run` for its errors."""
    parser = argparse.ArgumentParser("report")
    add_arguments(parser)
    return run(parser.parse_args(argv))


def run(args: argparse.Namespace) -> int:
    """Print the report and write its files.

    Raises:
        FileNotFoundError: there are no runs.
        ValueError: methods that cannot be compared.
        WriteError: a file cannot be written.
    """
    # Here: pandas takes half a second to import
    from experiments.report import latex, machine, markdown, text
    from experiments.report.contents import make_report

    report = make_report(args.output, args.protocol, args.dataset, args.compare)
    print(text.as_text(report))
    results = args.results or args.output / "results.csv"
    _write(results, machine.runs_as_csv(report))
    print(f"\nOne row per finished run ({len(report.runs)}): {results}")
    if args.html:
        from experiments.report.page import page  # here, since it takes matplotlib

        _write(args.html, page(report))
    for path, make in (
        (args.markdown, markdown.as_markdown),
        (args.csv, machine.tables_as_csv),
        (args.latex, latex.as_latex),
        (args.json, machine.as_json),
    ):
        if path:
            _write(path, make(report))
    return 0


def _write(path: Path, content: str) -> None:
    with atomic_write(path, "w") as file:
        file.write(content)
