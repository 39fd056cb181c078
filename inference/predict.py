"""``python -m inference predict``: the classes of pictures, as a table, CSV or JSON."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from dassl.utils.console import printable, utf8_text
from inference.options import add_output_arguments, add_run_arguments, at_least, open_classifier, write_result

if TYPE_CHECKING:
    from inference.classifier import Prediction

__all__ = ["add_arguments", "run"]

Found = list[tuple[str, list["Prediction"]]]  # pictures with their best classes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    images = "files, folders, patterns such as 'photos/**/*.jpg', or - for a list of files on stdin, one per line"
    parser.add_argument("images", nargs="+", metavar="IMAGES", help=images)
    parser.add_argument("--top-k", type=at_least(1), default=5, metavar="K", help="classes for each picture (5)")
    parser.add_argument("--batch", type=at_least(1), default=64, metavar="N", help="pictures at a time (64)")
    workers = "processes that read pictures (as the run; 0: none)"
    parser.add_argument("--workers", type=at_least(0), metavar="N", help=workers)
    add_output_arguments(parser, FORMATS)


def run(args: argparse.Namespace) -> int:
    """Print or write the predictions; the status is 1 if a picture could not be read.

    Raises:
        FileNotFoundError, ValueError: see `inference.load` and `find_pictures`.
        WriteError: the output cannot be written.
    """
    from inference.pictures import find_pictures, read_pictures

    paths = find_pictures(args.images)
    classifier = open_classifier(args)
    found: Found = []
    skipped: dict[str, str] = {}
    for indices, images, errors in read_pictures(classifier, paths, args.batch, args.workers):
        if len(images):
            best = classifier.best(classifier.logits(images).softmax(dim=1).cpu(), args.top_k)
            found += [(paths[index], classes) for index, classes in zip(indices.tolist(), best, strict=True)]
        skipped |= {paths[index]: error for index, error in errors.items()}
    for error in skipped.values():
        print(printable(f"skipped: {error}"), file=sys.stderr)
    write_result(args, FORMATS, found, skipped)
    return int(bool(skipped))


def as_table(found: Found, skipped: dict[str, str]) -> str:
    """A row per class; the picture is named in the first of its rows."""
    from tabulate import tabulate

    rows = [
        [printable(path) if number == 0 else "", printable(one.classname), f"{100 * one.score:.2f} %"]
        for path, best in found
        for number, one in enumerate(best)
    ]
    align = ("left", "left", "right")
    return tabulate(rows, ["picture", "class", "score"], disable_numparse=True, colalign=align) + "\n" if rows else ""


def as_csv(found: Found, skipped: dict[str, str]) -> str:
    """A row per picture: the picture, then each class with its score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = range(1, max((len(best) for _, best in found), default=1) + 1)
    writer.writerow(["image", *(f"top{number}_{what}" for number in numbers for what in ("class", "score"))])
    for path, best in found:
        pairs = (word for one in best for word in (utf8_text(one.classname), f"{one.score:.6g}"))
        writer.writerow([utf8_text(path), *pairs])
    return text.getvalue()


def as_json(found: Found, skipped: dict[str, str]) -> str:
    """The pictures with their classes, and those that were skipped."""
    content = {
        "pictures": [{"image": path, "predictions": [one._asdict() for one in best]} for path, best in found],
        "skipped": [{"image": path, "reason": reason} for path, reason in skipped.items()],
    }
    return json.dumps(content, indent=1) + "\n"


FORMATS: dict[str, Callable[[Found, dict[str, str]], str]] = {"table": as_table, "csv": as_csv, "json": as_json}
