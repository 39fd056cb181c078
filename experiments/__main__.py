"""Commands on the runs of experiments: ``python -m experiments COMMAND``."""

import argparse
import sys
from pathlib import Path

from dassl.utils import write_json
from experiments import logs


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser(
        "compare-log", help="a run beside a published training log: the losses and accuracies of both, and what differs"
    )
    command.add_argument("log", type=Path, help="the published log")
    command.add_argument("run", type=Path, help="folder of the run, or its log")
    command.add_argument("--json", type=Path, metavar="FILE", help="also write every compared value to FILE")
    return parser.parse_args(argv)


def compare_log(args: argparse.Namespace) -> int:
    """Print the comparison; the status is 1 where a value differs, or where there is nothing to compare."""
    found = logs.compare(logs.read_log(args.log), logs.read_log(args.run))
    print(logs.table(found))
    if args.json:
        write_json(found, args.json)
    return int(not found["values"] or any(of["first_difference"] for of in found["values"].values()))


def main(argv: list[str] | None = None) -> int:
    """Run; returns 2, with one message, for errors that the user can fix."""
    args = parse_args(argv)
    try:
        return compare_log(args)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
