"""The tool for datasets: list, download, check and show them."""

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from dassl.utils import command, write_json
from dassl.utils.console import prepare_console, printable
from datasets.base import DEFAULT_ROOT
from datasets.fewshot import SUBSAMPLES
from datasets.sources import tool_command
from datasets.tool.build import build, find_name, is_own_data, registered
from datasets.tool.check import Report, check
from datasets.tool.prepare import prepare
from datasets.tool.show import contact_sheet, describe

EXAMPLES = """\
examples:
  python -m datasets list --root /data
  python -m datasets prepare OxfordPets --root /data
  python -m datasets prepare ImageNet --root /data \\
      --archive ILSVRC2012_devkit_t12.tar.gz ILSVRC2012_img_val.tar ILSVRC2012_img_train.tar
  python -m datasets check dtd eurosat --images --root /data
  python -m datasets show ImageFolder --root /data/my_pictures

Use a dataset's name or that of its folder: OxfordPets or oxford_pets. docs/DATASETS.md describes every dataset."""
MOST_FILES = 20  # files that a problem lists on the screen; --json has all


def positive(text: str) -> int:
    """A positive integer, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive integer")
    return int(text)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m datasets", description=__doc__, epilog=EXAMPLES, formatter_class=layout)
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--root", type=Path, default=Path(DEFAULT_ROOT), help="folder of the datasets (./data)")
    shared.add_argument("--json", type=Path, help="also write the full result to this file")

    commands.add_parser("list", parents=[shared], help="all datasets, and which of them are found")
    command = commands.add_parser("check", parents=[shared], help="what is missing or wrong, and how to fix it")
    command.add_argument("names", nargs="+", metavar="NAME", help="datasets")
    command.add_argument("--images", action="store_true", help="also read every image")
    command = commands.add_parser("prepare", parents=[shared], help="download, verify and unpack what is missing")
    command.add_argument("names", nargs="+", metavar="NAME", help="datasets")
    archive: dict[str, Any] = {"type": Path, "nargs": "+", "action": "extend", "default": [], "metavar": "FILE"}
    command.add_argument("--archive", help="files that you have already downloaded", **archive)
    command = commands.add_parser("show", parents=[shared], help="classes, prompts, counts, and a contact sheet")
    command.add_argument("name", metavar="NAME", help="dataset")
    command.add_argument("--shots", type=int, default=-1, help="training images per class, as DATASET.NUM_SHOTS (all)")
    command.add_argument("--seed", type=int, default=1, help="seed of the shots (1)")
    command.add_argument("--classes", choices=SUBSAMPLES, default="all", help="as DATASET.SUBSAMPLE_CLASSES (all)")
    command.add_argument("--sheet", type=Path, help="PNG to write (<NAME>.png)")
    command.add_argument("--rows", type=positive, default=20, help="classes on the sheet (20)")
    command.add_argument("--columns", type=positive, default=8, help="images per class (8)")
    return parser.parse_args(argv)


def list_datasets(root: Path) -> tuple[int, Any]:
    """Print one row per registered dataset."""
    rows, records = [], []
    for name, dataset in registered().items():
        if is_own_data(dataset):
            continue
        report = check(name, root)
        found = report.sizes is not None
        state = "ready" if report.good else "wrong" if found or report.folder.is_dir() else "absent"
        expected = getattr(dataset, "expected", None)
        size = disk_usage(report.folder) if found else 0
        counts = [
            here if here == there or not expected else f"{here} of {there}"
            for here, there in zip(_thousands(report.sizes), _thousands(expected), strict=True)
        ]
        rows.append([name, state, *counts, report.classes, _readable(size) if size else "", report.folder])
        records.append({**record(report), "state": state, "expected": expected, "bytes": size})
    header = ["dataset", "state", "train", "val", "test", "classes", "on disk", "folder"]
    print(tabulate(rows, header, disable_numparse=True))
    print(f"\nwrong:  {tool_command('check', 'NAME', root)}")
    print(f"absent: {tool_command('prepare', 'NAME', root)}")
    print("Your own images: ImageFolder and SplitFile (docs/DATASETS.md)")
    return 0, records


def _thousands(sizes: tuple[int, ...] | None) -> list[str]:
    return [f"{size:,}" for size in sizes] if sizes else ["0"] * 3


def _readable(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


def disk_usage(folder: Path) -> int:
    """Total size in bytes of the files in a folder, including subfolders."""
    return sum(os.lstat(f"{parent}/{name}").st_size for parent, _, names in os.walk(folder) for name in names)


def print_report(report: Report) -> None:
    """Print what `check` found."""
    print(f"{report.name} in {report.folder}")
    if report.sizes:
        sizes = " / ".join(_thousands(report.sizes))
        print(f"  {sizes} training / validation / test images, {report.classes} classes")
    for line in report.notes:
        print(f"  {printable(line)}")
    for problem in report.problems:
        print("  problem: " + printable(problem.what, keep="\n").replace("\n", "\n  "))
        for file in problem.files[:MOST_FILES]:
            print(f"    {printable(str(file))}")
        if len(problem.files) > MOST_FILES:
            print(f"    … {len(problem.files):,} in all: --json FILE writes them all")
        if problem.remedy:
            print(f"    remedy: {problem.remedy}")
    print("  good" if report.good else f"  {len(report.problems)} problem(s)")


def record(report: Report) -> dict[str, Any]:
    """A report as plain values."""
    return {
        "name": report.name,
        "folder": str(report.folder),
        "good": report.good,
        "sizes": report.sizes,
        "classes": report.classes,
        "notes": report.notes,
        "problems": [{k: v for k, v in asdict(problem).items() if k != "sources"} for problem in report.problems],
    }


def report_all(reports: list[Report]) -> tuple[int, Any]:
    """Print reports; status 1 if one is not good."""
    for report in reports:
        print_report(report)
    return int(not all(report.good for report in reports)), [record(report) for report in reports]


def prepare_all(names: list[str], root: Path, archives: list[Path]) -> tuple[int, Any]:
    """Prepare datasets one after the other; status 2 if one could not be prepared, 1 if one is not good."""
    reports, failed = [], False
    for name in names:
        try:
            reports.append(prepare(name, root, archives))
        except (ValueError, OSError) as error:
            print(printable(f"error: {error}", keep="\n"), file=sys.stderr)
            failed = True
    status, content = report_all(reports)
    return (2 if failed else status), content


def show(args: argparse.Namespace) -> tuple[int, Any]:
    """Print a dataset and write its contact sheet."""
    name = find_name(args.name)
    dataset, notes = build(name, args.root, args.shots, args.seed, args.classes)
    found = describe(dataset)
    print(*notes, sep="\n" if notes else "")
    print(f"{name}, {len(found['classes'])} classes:")
    print(*(f"  {label:4d}  {printable(classname)}" for label, classname in enumerate(found["classes"])), sep="\n")
    print("Sample prompts:", *map(printable, found["prompts"]), sep="\n  ")
    rows = [[part, c["images"], c["classes"], *c["images per class"].values()] for part, c in found["parts"].items()]
    print(tabulate(rows, ["part", "images", "classes", "per class: min", "median", "max"]))
    sheet = args.sheet or Path(f"{name}.png")
    contact_sheet(dataset.train_x or [], sheet, args.rows, args.columns)
    print(f"Contact sheet of training images: {sheet.absolute()}")
    return 0, {"name": name, **found}


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit status: 1 if there is a problem with the data."""
    if args.command == "list":
        status, content = list_datasets(args.root)
    elif args.command == "check":
        status, content = report_all([check(find_name(name), args.root, args.images) for name in args.names])
    elif args.command == "prepare":
        names = [find_name(name) for name in args.names]
        if args.archive and len(names) > 1:
            raise ValueError(f"--archive is for one dataset at a time, not {len(names)}")
        status, content = prepare_all(names, args.root, args.archive)
    else:
        status, content = show(args)
    if args.json:
        write_json(content, args.json)
    return status


def main(argv: list[str] | None = None) -> int:
    """Run; returns 2, with one message, for errors that the user can fix."""
    prepare_console()
    args = parse_args(argv)
    args.root = args.root.expanduser().absolute()
    try:
        return run(args)
    except Exception as error:
        return command.fail(error)


if __name__ == "__main__":
    command.run(main)
