"""The tool for stored image features: list and clear them."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from dassl.utils import command
from dassl.utils.console import prepare_console, printable
from dassl.utils.disk import readable_size

from .store import DEFAULT_FOLDER, Entry, FeatureStore, given_folder

EXAMPLES = f"""\
examples:
  python -m trainers.features list
  python -m trainers.features clear --dataset ImageNet --unused-for 30

The folder is --folder, else $FEATURES, else {DEFAULT_FOLDER} in the repository. Plans and scripts keep features in the
folder `features` of their output folder. What is deleted is computed again when it is needed. docs/FEATURES.md"""
DAY = 86400  # seconds


def days(text: str) -> float:
    """A number of days from 0 on, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of days")
    return value


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m trainers.features", description=__doc__, epilog=EXAMPLES, formatter_class=layout
    )
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--folder", default="", help=f"folder of the features ($FEATURES, else {DEFAULT_FOLDER})")
    shared.add_argument("--format", choices=("text", "json"), default="text", help="of the output (text)")
    shared.add_argument("--dataset", nargs="+", default=[], metavar="NAME", help="only those of these datasets (all)")
    commands.add_parser("list", parents=[shared], help="what is stored, its size, and when it was last used")
    clear = commands.add_parser("clear", parents=[shared], help="delete features, all of them unless some are chosen")
    clear.add_argument("--unused-for", type=days, default=0.0, metavar="DAYS", help="only those not used for so long")
    return parser.parse_args(argv)


def record(entry: Entry) -> dict[str, Any]:
    """An entry as plain values."""
    info = entry.info or {}
    of_key = {name: info.get(name) for name in ("images", "views", "backbone", "precision", "computer", "transform")}
    return {
        "file": str(entry.path),
        "dataset": entry.dataset,
        **of_key,
        "bytes": entry.size,
        "made": info.get("made"),
        "used": entry.used,
        "damaged": entry.info is None,
    }


def row(entry: Entry) -> list[str]:
    """An entry as cells of a table."""
    found = record(entry)
    if found["damaged"]:
        return [entry.dataset, "damaged", "", "", "", readable_size(entry.size), "", _date(entry.used), entry.path.name]
    views = f"{found['views']} × " if found["views"] else ""
    images = f"{views}{found['images']:,}"
    computer = ", ".join(map(str, (found["computer"] or [])[:2]))
    about = [entry.dataset, images, str(found["backbone"]), str(found["precision"]), computer]
    return [*about, readable_size(entry.size), _date(found["made"]), _date(entry.used), entry.path.name]


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def show(folder: Path, entries: list[Entry], what: str) -> None:
    """Print a table of entries, and their number and size."""
    if entries:
        header = ["dataset", "images", "backbone", "precision", "computer", "on disk", "made", "last used", "file"]
        print(printable(tabulate(map(row, entries), header, disable_numparse=True), keep="\n"))
    size = readable_size(sum(entry.size for entry in entries))
    print(f"{folder}: {len(entries)} files, {size}{what}")


def run(args: argparse.Namespace) -> int:
    """List or clear."""
    folder = given_folder(args.folder) or given_folder(DEFAULT_FOLDER)
    assert folder is not None
    store = FeatureStore(folder)
    wanted = {name.lower() for name in args.dataset}
    entries = [entry for entry in store.entries() if not wanted or entry.dataset.lower() in wanted]
    if args.command == "clear":
        oldest = time.time() - args.unused_for * DAY
        entries = [entry for entry in entries if entry.used <= oldest]
        for entry in entries:
            store.remove(entry)
        if not wanted and not args.unused_for:
            store.remove_leftovers()
    if args.format == "json":
        print(json.dumps([record(entry) for entry in entries], indent=4))
    else:
        show(folder, entries, ", deleted" if args.command == "clear" else "")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run; returns 2, with one message, for errors that the user can fix."""
    prepare_console()
    args = parse_args(argv)
    try:
        return run(args)
    except Exception as error:
        return command.fail(error)


if __name__ == "__main__":
    command.run(lambda: main(sys.argv[1:]))
