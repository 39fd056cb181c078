"""Time the training of a method on image features that are there already: from the store to the last epoch.

    python -m benchmarks.feature_training --trainer TipAdapterF --classes 50 --shots 16 --json training.json
    python -m benchmarks.feature_training --trainer TipAdapterF OPTIM.MAX_EPOCH 100

The method's published config for few-shot curves, its `fit`, all epochs and its searches, without a test. The features
are random numbers of the backbone's joint width, in place of the store's: the time does not depend on their values.
The towers have random weights and encode no image; fixed texts are encoded once, which is part of the time.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from yacs.config import CfgNode

import datasets  # noqa: F401  (registers the datasets)
import train
from clip.model import CLIP
from dassl.config import merge_file, merge_options
from dassl.engine import TRAINER_REGISTRY
from experiments.methods import METHODS
from trainers.on_features import FeatureTrainer
from trainers.without_data import dataset_without_images

from .models import ARCHITECTURES, class_names, random_clip
from .timing import base_parser, circumstances, run_and_report

CONFIGS = Path(__file__).resolve().parents[1] / "configs/trainers"


def make(args: argparse.Namespace) -> FeatureTrainer:
    """The trainer, with random features of its images."""
    rows = [method for method in METHODS.values() if args.method in (method.name, method.trainer)]
    if not rows:
        raise SystemExit(f"--trainer {args.method}: not in experiments/methods.py")
    method, cfg, dataset = rows[0], train.default_cfg(), "dtd"
    cfg.TRAINER.NAME = method.trainer
    merge_file(cfg, CONFIGS / method.trainer / f"{method.published_config('few_shot', dataset, args.shots)}.yaml")
    of_run = ["DEVICE", args.device, "OUTPUT_DIR", "", "TEST.NO_TEST", True, "VERBOSE", False]
    of_run += ["DATASET.NUM_SHOTS", args.shots, "DATASET.NAME", "random"]
    words = [
        str(word) for word in (*method.published_settings("few_shot", dataset, args.shots), *of_run, *args.options)
    ]
    merge_options(cfg, words)
    torch.manual_seed(0)
    return on_random_features(TRAINER_REGISTRY.get(method.trainer), cfg, args)


def on_random_features(method: type[FeatureTrainer], cfg: CfgNode, args: argparse.Namespace) -> FeatureTrainer:
    """The trainer for images that are not there, whose features are random numbers."""
    if not issubclass(method, FeatureTrainer):
        raise SystemExit(f"--trainer {args.method}: trains on images, not on their features")
    dataset = dataset_without_images("DescribableTextures", class_names(args.classes))
    for name, count in (("train_x", args.shots), ("held_out", min(args.shots, 4))):
        setattr(dataset, name, [SimpleNamespace(label=k) for k in range(args.classes) for _ in range(count)])
    dataset.val = dataset.held_out

    class OnRandomFeatures(method):  # type: ignore[misc, valid-type]
        def build_data_loader(self) -> None:
            loader = cfg.DATALOADER.TRAIN_X
            batches = len(dataset.train_x) / loader.BATCH_SIZE
            self.train_loader_x = range(max(1, int(batches) if loader.DROP_LAST else math.ceil(batches)))
            self.dm, self.num_classes = SimpleNamespace(dataset=dataset), args.classes

        def load_clip(self) -> CLIP:
            return random_clip(args.backbone)

        def features_of(self, items: Sequence[Any], views: int = 0) -> Tensor:
            return torch.randn(*([views] if views else []), len(items), ARCHITECTURES[args.backbone][0])

    return OnRandomFeatures(cfg)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements as plain values."""
    trainer = make(args)
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    return {
        **circumstances(args, trainer.device),
        "epochs": trainer.max_epoch,
        "features": trainer.run_record.images,  # of an epoch
        "seconds": {"all": seconds, "fit": trainer.run_record.fit_seconds},
    }


def report(result: dict[str, Any]) -> str:
    """The result as a line."""
    settings, seconds = result["settings"], result["seconds"]
    return (
        f"{settings['method']}, {settings['backbone']}, {settings['classes']} classes, {settings['shots']} shots, "
        f"{result['epochs']} epochs of {result['features']:,} features: {seconds['all']:.1f} s, "
        f"{seconds['fit']:.1f} s of it before the first epoch ({result['device']}, {result['threads']} threads)"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = base_parser(__doc__)
    parser.add_argument("--trainer", dest="method", default="TipAdapterF", help="a trainer, or a method's row")
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--backbone", choices=sorted(ARCHITECTURES), default="ViT-B/16")
    parser.add_argument("--device", default="auto", help="auto (the GPU if there is one), cpu, cuda, cuda:N, mps")
    parser.add_argument("options", nargs="*", metavar="KEY VALUE", help="settings instead of the published ones")
    run_and_report(parser.parse_args(argv), run, report)


if __name__ == "__main__":
    main()
