"""``python -m inference export``: a trained run as a file for other programs, or as a bundle to be shared."""

from __future__ import annotations

import argparse
from pathlib import Path

from inference.options import add_run_arguments, open_classifier

__all__ = ["add_arguments", "run"]

FORMATS = ("onnx", "bundle", "torchscript", "torch_export")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    formats = f"one or more of {', '.join(FORMATS)} (onnx; with --push, bundle)"
    parser.add_argument("--format", nargs="+", choices=FORMATS, metavar="FORMAT", help=formats)
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder to write to (RUN/export)")
    parser.add_argument("--int8", action="store_true", help="also write an ONNX file with weights of 8 bits")
    pictures = "pictures to measure the cost of --int8 on, in a folder for each class (the run's test images)"
    parser.add_argument("--images", metavar="FOLDER", help=pictures)
    parser.add_argument("--push", action="store_true", help="write a folder that is ready for the hub; nothing is sent")


def run(args: argparse.Namespace) -> int:
    """Write the files.

    Raises:
        FileNotFoundError, ValueError: see `inference.load` and `inference.export_formats.export`.
        WriteError: the output cannot be written.
    """
    from inference.export_formats import export

    classifier = open_classifier(args)
    folder = args.output or classifier.run.folder / "export"
    formats = args.format or (["bundle"] if args.push else ["onnx"])
    export(classifier, folder, formats, args.int8, args.images, args.push)
    if args.push:
        print(f"{folder} is ready for the hub. To upload it: hf upload OWNER/NAME {folder}")
    return 0
