"""Arguments that the commands share: which run, its epoch, its backbone, the class names."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dassl.utils.files import atomic_write

if TYPE_CHECKING:
    from inference.classifier import Classifier

MOST_BYTES = 2**24  # of a file of class names


def add_run_arguments(
    parser: argparse.ArgumentParser, what: str = "folder of the run, or a file of weights in it", classes: bool = True
) -> None:
    """Add RUN and the options that `open_classifier` reads."""
    parser.add_argument("run", metavar="RUN", help=what)
    parser.add_argument(
        "--epoch", type=at_least(0), metavar="N", help="whose weights to load (the best, else the last saved)"
    )
    parser.add_argument("--backbone", metavar="NAME", help="CLIP model or its file, if it is not where the run had it")
    parser.add_argument("--device", help="where to compute: cpu, cuda, cuda:N, mps (the GPU if there is one)")
    if classes:
        help_classes = "other classes: their names, or a file with one per line (those of the run)"
        parser.add_argument("--classes", nargs="+", metavar="NAME", help=help_classes)


def add_output_arguments(parser: argparse.ArgumentParser, formats: Mapping[str, Any]) -> None:
    """Add the options that `write_result` reads."""
    default = next(iter(formats))
    help_format = f"of the result (by the suffix of --output, else {default})"
    parser.add_argument("--format", choices=formats, help=help_format)
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the result to FILE")


def write_result(args: argparse.Namespace, formats: Mapping[str, Callable[..., str]], *result: Any) -> None:
    """Print the result, or write it as a whole to the file that the arguments name.

    Args:
        formats: for each format what makes a text of the result; the first is the default.

    Raises:
        WriteError: the file cannot be written.
    """
    name = args.format or (args.output.suffix.lstrip(".").lower() if args.output else "")
    text = formats.get(name, next(iter(formats.values())))(*result)
    if args.output:
        with atomic_write(args.output, "w") as file:
            file.write(text)
        print(f"written: {args.output}", file=sys.stderr)
    else:
        print(text, end="")


def at_least(least: int) -> Callable[[str], int]:
    """Reads a whole number from `least` on, for argparse."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} on")
        return int(text)

    return read


def open_classifier(args: argparse.Namespace) -> Classifier:
    """The classifier that the arguments ask for. What is printed meanwhile goes to stderr: stdout has the result."""
    from inference.classifier import load

    given = getattr(args, "classes", None)
    with redirect_stdout(sys.stderr):
        return load(args.run, args.epoch, args.backbone, given and class_names(given), args.device)


def class_names(words: Sequence[str]) -> list[str]:
    """Class names: the words, or if there is one that is a file, its lines.

    Raises:
        ValueError: the file has no names, is too large, or is not UTF-8.
    """
    path = Path(words[0])
    if len(words) > 1 or not path.is_file():
        return list(words)
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES // 2**20} MiB: expected a class name on each line")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: expected a class name on each line ({error})") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(f"{path} is empty: expected a class name on each line")
    return names
