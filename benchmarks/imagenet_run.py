"""A whole run of the size of ImageNet, from the command to the accuracy, on synthetic pictures with random weights.

    python -m benchmarks.imagenet_run --json imagenet_run.json
    python -m benchmarks.imagenet_run --json eager.json TRAIN.CUDA_GRAPH off

Writes a folder as datasets/imagenet.py expects it (1,000 classes with 16 training and 50 validation JPEGs of 500 x 375
pixels, hard links to a few different ones) and a file of random weights with the backbone's shapes, then trains and
tests with train.py: the method's published config for the transfer from ImageNet, all classes, 16 shots. The time is
that of the command, and its parts are those that the run recorded. Accuracies mean nothing here. Fewer classes, for a
try, are read as a data set of one's own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.methods import METHODS, method_named

from .loading import width_and_height
from .models import ARCHITECTURES, class_names, random_clip
from .pictures import link, save_pictures
from .revisions import HERE, seconds_of
from .timing import base_parser, processor_name, run_and_report, say

IMAGENET_CLASSES = 1000


def save_images(root: Path, args: argparse.Namespace) -> list[str]:
    """Write the data set's folder into `root`; the options of train.py for it."""
    folder = root / "imagenet"
    wnids = [f"n{number:08}" for number in range(args.classes)]
    names = class_names(args.classes)
    for part, count in (("train", args.shots), ("val", args.val)):
        images = [folder / "images" / part / wnid / f"{wnid}_{i}.JPEG" for wnid in wnids for i in range(count)]
        link(save_pictures(root / part, args.pictures, args.size), images)
    whole = args.classes == IMAGENET_CLASSES
    lines = [f"{wnid} {name}\n" for wnid, name in zip(wnids, names, strict=True)]
    (folder / ("." if whole else "images") / "classnames.txt").write_text("".join(lines), encoding="utf-8")
    config, place = ("imagenet", root) if whole else ("image_folder", folder / "images")
    return ["--dataset-config-file", f"configs/datasets/{config}.yaml", "--root", str(place)]


def save_weights(path: Path, backbone: str) -> None:
    """Write random weights as OpenAI stores its own: in fp16."""
    torch.manual_seed(0)
    torch.save({name: tensor.half() for name, tensor in random_clip(backbone).state_dict().items()}, path)


def train_command(folder: Path, data: Sequence[str], args: argparse.Namespace) -> list[str]:
    """train.py for the weights in `folder`, and the data that these options of it name."""
    method = method_named(args.method)
    config = method.published_config("cross_dataset", "imagenet", 16)
    settings = {
        "MODEL.BACKBONE.ACTIVATION": "quick_gelu",
        "DATASET.NUM_SHOTS": args.shots,
        "DATALOADER.NUM_WORKERS": args.workers,
        "DATALOADER.FEATURES": "off",  # the test reads every image
    }
    return [
        *(sys.executable, "train.py", "--trainer", method.trainer, "--seed", "1", *data),
        *("--config-file", f"configs/trainers/{method.trainer}/{config}.yaml"),
        *("--backbone", str(folder / "weights.pt"), "--output-dir", str(folder / "run")),
        *method.published_settings("cross_dataset", "imagenet", 16),
        *(str(word) for pair in settings.items() for word in pair),
        *args.options,
    ]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements as plain values."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        say(f"{args.classes} classes: writing the images and the weights first")
        start = time.perf_counter()
        data = save_images(folder / "data", args)
        save_weights(folder / "weights.pt", args.backbone)
        prepared = time.perf_counter() - start
        command = train_command(folder, data, args)
        say(f"training and testing {args.method}")
        whole = seconds_of(HERE, *command)
        results = json.loads((folder / "run/results.json").read_text("utf-8"))
        history = [json.loads(line) for line in (folder / "run/history.jsonl").read_text("utf-8").splitlines()]
    seconds = results["seconds"]
    return {
        "settings": {key: value for key, value in vars(args).items() if key != "json"},
        "device": results["device"],
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "torch": results["versions"]["torch"],
        "precision": results["precision"],
        "seconds": {"whole": whole, **seconds, "other": whole - seconds["train"] - seconds["test"]},
        "seconds_before": prepared,
        "epochs": [{key: row[key] for key in ("epoch", "steps", "seconds")} for row in history],
        "steps": results["steps"],
        "tested": results["total"],
        "peak_bytes": results["peak_memory_bytes"],
    }


def report(result: dict[str, Any]) -> str:
    """The result as a few lines."""
    settings, seconds = result["settings"], result["seconds"]
    lines = [
        f"{settings['method']}, {settings['backbone']}, {settings['classes']} classes, {settings['shots']} shots, "
        f"{result['precision']}, {result['device']}, {result['cores']} cores",
        f"whole run: {seconds['whole']:.1f} s, after {result['seconds_before']:.1f} s for the images and the weights",
        f"training: {seconds['train']:.1f} s",
        *(
            f"  epoch {row['epoch']}: {row['seconds']:.1f} s, {1000 * row['seconds'] / row['steps']:.2f} ms per step"
            for row in result["epochs"]
        ),
        f"test of {result['tested']:,} images: {seconds['test']:.1f} s, "
        f"{result['tested'] / seconds['test']:,.0f} images per second",
        f"start-up and checkpoints: {seconds['other']:.1f} s",
        f"peak memory: {result['peak_bytes'] / 2**30:.2f} GiB",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = base_parser(__doc__)
    trained = [name for name, method in METHODS.items() if method.trained]
    parser.add_argument("--trainer", dest="method", choices=trained, metavar="METHOD", default="maple", help="its row")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--shots", type=int, default=16, help="training images per class")
    parser.add_argument("--val", type=int, default=50, help="validation images per class, which are tested")
    parser.add_argument("--pictures", type=int, default=64, help="different pictures of each part")
    parser.add_argument("--size", type=width_and_height, default=(500, 375), help="their WIDTHxHEIGHT in pixels")
    parser.add_argument("--backbone", choices=sorted(ARCHITECTURES), default="ViT-B/16")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that load images")
    parser.add_argument("options", nargs="*", metavar="KEY VALUE", help="settings instead of the published ones")
    run_and_report(parser.parse_args(argv), run, report)


if __name__ == "__main__":
    main()
