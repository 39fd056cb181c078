"""``python -m inference interpret``: a page on what a run has learned."""

from __future__ import annotations

import argparse
from pathlib import Path

from inference.options import add_run_arguments, at_least, open_classifier

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    pictures = "pictures, best in a folder for each class (the run's test images, if they are here)"
    parser.add_argument("--images", metavar="FOLDER", help=pictures)
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder to write to (RUN/interpret)")
    parser.add_argument("--words", type=at_least(1), default=5, metavar="N", help="nearest words of a token (5)")
    parser.add_argument("--metric", choices=("euclidean", "cosine"), default="euclidean", help="of words (euclidean)")
    parser.add_argument(
        "--most-images", type=at_least(1), default=500, metavar="N", help="in the map of features (500)"
    )
    parser.add_argument("--attention", type=at_least(0), default=4, metavar="N", help="pictures with attention (4)")
    parser.add_argument("--blocks", type=at_least(0), nargs="+", metavar="I", help="with attention (four of them)")


def run(args: argparse.Namespace) -> int:
    """Write the page, its pictures and interpret.json.

    Raises:
        FileNotFoundError, ValueError: see `inference.load`, and pictures that cannot be read.
        WriteError: the output cannot be written.
    """
    from inference.interpret_page import Options, interpret

    classifier = open_classifier(args)
    folder = args.output or classifier.run.folder / "interpret"
    options = Options(args.images, args.words, args.metric, args.most_images, args.attention, args.blocks)
    print(interpret(classifier, folder, options))
    print(f"Page: {folder / 'index.html'}")
    return 0
