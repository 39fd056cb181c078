"""``python -m inference cost``: parameters, floating-point operations, speed and memory of a run or a configuration."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference.options import (
    add_output_arguments,
    add_run_arguments,
    at_least,
    class_names,
    open_classifier,
    write_result,
)

if TYPE_CHECKING:
    from inference.classifier import Classifier

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser, "folder of the run, or a YAML file in configs/trainers/")
    parser.add_argument("--batch", type=at_least(1), nargs="+", default=[1, 32], metavar="N", help="images (1 32)")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="time for each batch size (2)")
    of_config = parser.add_argument_group("for a YAML file")
    of_config.add_argument("--trainer", help="method (the name of the file's folder)")
    of_config.add_argument("--dataset", default="imagenet", metavar="NAME", help="file in configs/datasets/ (imagenet)")
    of_config.add_argument("--num-classes", type=at_least(1), default=100, metavar="K", help="of made-up names (100)")
    of_config.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="settings, as for train.py")
    add_output_arguments(parser, FORMATS)


def run(args: argparse.Namespace) -> int:
    """Print or write what the model takes.

    Raises:
        FileNotFoundError, ValueError: see `inference.load`.
    """
    from inference.measures import measure

    is_config = Path(args.run).suffix in (".yaml", ".yml") and Path(args.run).name != "config.yaml"
    classifier = _untrained(args) if is_config else open_classifier(args)
    write_result(args, FORMATS, measure(classifier, args.batch, args.seconds))
    return 0


def _untrained(args: argparse.Namespace) -> Classifier:
    """The classifier of a file of settings, for the class names given, or for made-up ones."""
    from inference.classifier import Classifier
    from inference.run_folder import untrained

    names = class_names(args.classes) if args.classes else [f"object {i + 1}" for i in range(args.num_classes)]
    options = [*(["--backbone", args.backbone] if args.backbone else []), *args.opts]
    with redirect_stdout(sys.stderr):
        return Classifier(untrained(args.run, args.trainer or "", args.dataset, options, args.device), names)


def as_text(cost: dict[str, Any]) -> str:
    """A line for each number, with its unit."""
    from tabulate import tabulate

    flops, parameters = cost["flops"], cost["parameters"]
    share = 100 * parameters["learned"] / parameters["total"]
    rows = [
        ["learned parameters", f"{parameters['learned']:,}", f"{share:.3f} % of all"],
        ["all parameters", f"{parameters['total']:,}", "each counted once"],
        ["an image", _giga(flops["image"]), "with the texts at hand"],
        ["the texts", _giga(flops["texts"]), f"of {cost['classes']} classes, once for all images"],
        ["an image and the texts", _giga(flops["image_and_texts"]), ""],
    ]
    for of_batch in cost["speed"]:
        words = f"{of_batch['images_per_second']:,.1f} images/s"
        rows.append([f"batches of {of_batch['batch']}", words, f"median of {of_batch['batches']} batches"])
    rows.append(["peak memory", f"{cost['peak_memory_bytes'] / 2**20:,.0f} MiB", cost["memory"]])
    head = [cost["trainer"], f"{cost['backbone']}, {cost['precision']}, {cost['device']}", ""]
    lines = tabulate([head, *rows], tablefmt="plain", disable_numparse=True, colalign=("left", "right", "left"))
    return f"{lines}\nA FLOP is an addition or a multiplication, as torch.utils.flop_counter counts; a MAC is both.\n"


def _giga(flops: int) -> str:
    return f"{flops / 1e9:,.3f} GFLOPs ({flops / 2e9:,.3f} GMACs)"


def as_json(cost: dict[str, Any]) -> str:
    return json.dumps(cost, indent=1) + "\n"


FORMATS = {"text": as_text, "json": as_json}
