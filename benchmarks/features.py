"""Evaluations with stored image features against evaluations from the images, in one process.

    python -m benchmarks.features --images 2000 --json features.json

Five methods with a frozen image tower, three seeds each, are tested on the demonstration and on synthetic pictures of
224 x 224 pixels with a tower of random weights in ViT-B/16's shape. With the store, the first test computes the
features and the others read them, each with a tower of its own as in a process of its own. The logits of both sides
have to be equal: all of them where both are measured, else those of the first batch.

From the images, every test does the same work. `--measured N` runs N of the 15 tests on the synthetic pictures, and
counts the others like their mean; 15 runs all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from tabulate import tabulate
from torch import Tensor
from yacs.config import CfgNode

import datasets  # noqa: F401  (registers the datasets)
import train
from clip.model import CLIP
from dassl.config import merge_file, merge_options
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from experiments.methods import METHODS
from trainers.base import ClipTrainer, load_clip

from .models import ARCHITECTURES, random_clip
from .pictures import save_class_folders
from .timing import Clock, base_parser, circumstances, run_and_report, say

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
METHOD_NAMES = ("zsclip", "coop", "kgcoop", "prograd", "tcp")
SEEDS = (1, 2, 3)
CLASSES = 20  # of the synthetic pictures
SIDE = 224


def make_trainer(name: str, seed: int, config: str, clip_model: CLIP, options: dict[str, Any]) -> ClipTrainer:
    """The trainer of a method before training, with a copy of a CLIP.

    Args:
        config: name of the trainer's YAML file.
        options: further settings, by key.
    """
    method, cfg = METHODS[name], train.default_cfg()
    cfg.TRAINER.NAME = method.trainer
    merge_file(cfg, CONFIGS / "trainers" / method.trainer / f"{config}.yaml")
    for node in cfg.TRAINER.values():
        if isinstance(node, CfgNode) and "PREC" in node:
            node.PREC = "fp32"
    given = {"DATASET.NUM_SHOTS": 1, "SEED": seed, "OUTPUT_DIR": "", "USE_CUDA": False, "VERBOSE": False, **options}
    merge_options(cfg, [str(word) for pair in given.items() for word in pair])
    set_random_seed(seed)
    with patch("trainers.base.load_clip", lambda cfg: copy.deepcopy(clip_model)), quiet():
        return build_trainer(cfg)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def timed_test(trainer: ClipTrainer, features: str, clock: Clock) -> tuple[float, Tensor]:
    """The seconds of a test, and its logits (N, K)."""
    trainer.cfg.defrost()
    trainer.cfg.DATALOADER.FEATURES = features
    logits: list[Tensor] = []
    process = type(trainer.evaluator).process

    def keep(scores: Tensor, labels: Tensor) -> None:
        logits.append(scores)
        process(trainer.evaluator, scores, labels)

    with patch.object(trainer.evaluator, "process", keep), quiet():
        measured, _ = clock.measure(trainer.test, 1)
    return measured["seconds"], torch.cat(logits)


@torch.no_grad()
def first_logits(trainer: ClipTrainer) -> Tensor:
    """The logits of the first batch, from its images."""
    return trainer.model(next(iter(trainer.test_loader))["img"])


def compare(what: str, clip_model: CLIP, configs: dict[str, str], options: dict[str, Any], most: int) -> dict[str, Any]:
    """Test every method at every seed with the store, and `most` of these tests from the images.

    Raises:
        AssertionError: the logits are not equal.
    """
    rows: list[dict[str, Any]] = []
    clock = Clock(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, FEATURES=folder):
        for seed in SEEDS:
            for name in METHOD_NAMES:
                say(f"{what}, {name}, seed {seed}")
                trainer = make_trainer(name, seed, configs[name], clip_model, options)
                stored, found = timed_test(trainer, "on", clock)
                row = {"method": name, "seed": seed, "features": trainer.run_record.image_features, "stored": stored}
                if len(rows) < most:
                    row["images"], expected = timed_test(trainer, "off", clock)
                else:
                    row["images"], expected = None, first_logits(trainer)
                assert torch.equal(found[: len(expected)], expected), f"{name}, seed {seed}: other logits"
                rows.append({**row, "equal_logits": len(expected)})
    measured = [row["images"] for row in rows if row["images"] is not None]
    seconds = {
        "stored": sum(row["stored"] for row in rows),
        "images": sum(measured) / len(measured) * len(rows),
        "images_measured": len(measured),
    }
    images = len(trainer.test_loader.items)
    return {"images": images, "tests": rows, "seconds": seconds, "ratio": seconds["images"] / seconds["stored"]}


def on_demonstration() -> dict[str, Any]:
    """All tests of both sides on the embedded data set and model."""
    configs = {name: METHODS[name].demonstration for name in METHOD_NAMES}
    cfg = train.default_cfg()
    merge_file(cfg, CONFIGS / "trainers" / "CoOp" / f"{configs['coop']}.yaml")
    options = {"DATASET.NAME": "Emoji", "DATALOADER.NUM_WORKERS": 0}
    return compare("demonstration", load_clip(cfg), configs, options, len(METHOD_NAMES) * len(SEEDS))


def on_pictures(args: argparse.Namespace) -> dict[str, Any]:
    """The tests on synthetic pictures, with a random CLIP of a backbone's shape."""
    torch.manual_seed(0)
    configs = {name: str(METHODS[name].published_config("base2new", "imagenet", 16)) for name in METHOD_NAMES}
    side = ARCHITECTURES[args.backbone][1]
    with tempfile.TemporaryDirectory() as folder:
        say(f"making {args.images} pictures")
        save_class_folders(Path(folder), args.images, (SIDE, SIDE), CLASSES)
        options = {"DATASET.NAME": "ImageFolder", "DATASET.ROOT": folder, "INPUT.SIZE": (side, side)}
        options |= {"DATALOADER.NUM_WORKERS": args.workers}
        return compare("pictures", random_clip(args.backbone), configs, options, args.measured)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements as plain values."""
    result = {**circumstances(args, torch.device("cpu")), "demonstration": on_demonstration()}
    result["pictures"] = on_pictures(args)
    parts = [result["demonstration"]["seconds"], result["pictures"]["seconds"]]
    result["ratio"] = sum(part["images"] for part in parts) / sum(part["stored"] for part in parts)
    return result


def report(result: dict[str, Any]) -> str:
    """A row for each data set."""
    rows = []
    for name in ("demonstration", "pictures"):
        part = result[name]
        seconds, tests = part["seconds"], len(part["tests"])
        first, *later = (test["stored"] for test in part["tests"])
        images = f"{seconds['images']:.1f} s ({seconds['images_measured']} of {tests} measured)"
        each = f"{first:.2f} s, then {sum(later) / len(later):.2f} s"
        rows.append([name, part["images"], images, f"{seconds['stored']:.1f} s", each, f"{part['ratio']:.1f}"])
    head = ["data", "images", f"{tests} tests from the images", "with the store", "each", "ratio"]
    return f"{tabulate(rows, head, disable_numparse=True)}\nin sum {result['ratio']:.1f} times faster, equal logits"


def main(argv: Sequence[str] | None = None) -> None:
    parser = base_parser(__doc__)
    parser.add_argument("--images", type=int, default=2000, help="number of synthetic pictures")
    parser.add_argument("--backbone", choices=sorted(ARCHITECTURES), default="ViT-B/16", help="for the pictures")
    parser.add_argument("--workers", type=int, default=0, help="worker processes that read the pictures")
    parser.add_argument("--measured", type=int, default=1, help="tests on the pictures that are run from the images")
    args = parser.parse_args(argv)
    if args.images < CLASSES or args.measured < 1:
        parser.error(f"expected --images from {CLASSES} on, and --measured from 1 on")
    run_and_report(args, run, report)


if __name__ == "__main__":
    main()
