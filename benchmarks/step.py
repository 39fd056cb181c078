"""Time a method's training step and an evaluation pass against the definitional computation, in one process.

    python -m benchmarks.step --classes 500 --batch 4 --backbone ViT-B/16 --json step.json
    python -m benchmarks.step --trainer PromptSRC --classes 500 TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT 3

The method's own loss, with its published config, over two towers: ours, and those that compute every class alone at 77
tokens with explicit attention. What the published code computes once (features of fixed texts) both sides compute once.
Random weights with the backbone's shapes; ImageNet's class names if ../shared/published has them, else made-up names
of the same token lengths. Both sides share all parameters. CoCoOp has a benchmark of its own, `benchmarks.cocoop`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor, nn
from yacs.config import CfgNode

import datasets  # noqa: F401  (registers the datasets)
import train
from clip.packing import PackedPrompts
from dassl.config import merge_file, merge_options
from experiments.methods import METHODS
from trainers.base import ClipTrainer
from trainers.prompted_clip import FrozenTowersCLIP
from trainers.without_data import dataset_without_images, trainer_without_data

from .definitional import by_definition
from .timing import (
    Clock,
    Comparison,
    Work,
    circumstances,
    class_names,
    measurements,
    model_line,
    model_parser,
    random_clip,
    ratio_line,
    save,
)

CONFIGS = Path(__file__).resolve().parents[1] / "configs/trainers"
# Descriptions by a language model are not at hand; CoPrompt's cost does not depend on what the texts say
STAND_INS = {"CoPrompt": ["TRAINER.COPROMPT.DESCRIPTIONS", "templates"]}


def published_cfg(args: argparse.Namespace) -> CfgNode:
    """The method's published config for base-to-new."""
    rows = [method for method in METHODS.values() if args.method in (method.name, method.trainer)]
    if not rows or not rows[0].trained or rows[0].trainer == "CoCoOp":
        known = ", ".join(sorted({m.trainer for m in METHODS.values() if m.trained} - {"CoCoOp"}))
        raise SystemExit(f"--trainer {args.method}: expected one of {known}, or a method of experiments/methods.py")
    method, cfg = rows[0], train.default_cfg()
    cfg.TRAINER.NAME = method.trainer
    merge_file(cfg, CONFIGS / method.trainer / f"{method.published_config('base2new', 'imagenet', 16)}.yaml")
    merge_options(cfg, list(method.published_settings("base2new", "imagenet", 16)))
    for node in cfg.TRAINER.values():  # a method on another has two
        if isinstance(node, CfgNode) and "PREC" in node:
            node.PREC = args.prec
    merge_options(cfg, [*STAND_INS.get(method.trainer, []), *args.options])
    return cfg


class TrainerComparison(Comparison):
    """A trainer with its own model, and with the same model by definition."""

    def __init__(self, args: argparse.Namespace):
        cfg = published_cfg(args)
        cfg.DEVICE = args.device
        torch.manual_seed(0)
        dataset = dataset_without_images("ImageNet", class_names(args.classes))
        self.trainer: ClipTrainer = trainer_without_data(cfg, dataset, random_clip(args.backbone))
        trainer = self.trainer
        trainer.set_model_mode("train")
        for group in trainer.optim.param_groups:
            group["lr"] = 0.0  # both sides have the same parameters in every step
        self.args, self.device, self.precision = args, trainer.device, trainer.precision
        self.clock = Clock(self.device)
        self.ours: FrozenTowersCLIP = trainer.model
        self.theirs: FrozenTowersCLIP = by_definition(trainer.model)

    def step(self, model: nn.Module, image: Tensor, label: Tensor, images_at_once: int) -> Work:
        """A step on all images at once; the same random numbers on both sides."""
        views = self.trainer.cfg.DATALOADER.K_TRANSFORMS
        batch = {"img": [image] * views if views > 1 else image, "label": label}
        learned = [p for p in model.parameters() if p.requires_grad]

        def run() -> list[Tensor]:
            torch.manual_seed(0)
            self.trainer.model = model
            self.trainer.set_model_mode("train")
            with self.precision.autocast():
                _, terms = self.trainer.losses(*self.trainer.parse_batch_train(batch))
            self.trainer.update(terms)
            return [p.grad for p in learned if p.grad is not None]

        return run


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements as plain values."""
    comparison = TrainerComparison(args)
    ours = sum(m.num_tokens for m in comparison.ours.modules() if isinstance(m, PackedPrompts))
    texts = sum(len(m.sequences) for m in comparison.ours.modules() if isinstance(m, PackedPrompts))
    result: dict[str, Any] = {
        **circumstances(args, comparison.device),
        "text_tokens": {"ours": ours, "definitional": texts * len(comparison.ours.text_encoder.positional_embedding)},
        "training_step": comparison.training_step(args.batch),
    }
    if args.eval_batches:
        result["logits"] = comparison.logits(args.batch)
        name = f"evaluation_{args.eval_batches}x{args.batch}"
        result[name] = comparison.evaluation(args.eval_batches, args.batch)
    if args.test_batch:
        result[f"evaluation_1x{args.test_batch}"] = comparison.evaluation(1, args.test_batch)
    result["profile"] = comparison.profile(args.batch)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    parser = model_parser(__doc__)
    parser.add_argument("--trainer", dest="method", default="MaPLe", help="a trainer, or a method's row (MaPLe)")
    parser.add_argument(
        "--eval-batches", type=int, default=10, help="evaluation batches of --batch images; 0 skips them"
    )
    parser.add_argument("options", nargs="*", metavar="KEY VALUE", help="settings instead of the published ones")
    args = parser.parse_args(argv)
    result = run(args)
    print(f"{args.method}, {model_line(result)}")
    print(f"text tokens: {result['text_tokens']}")
    if "logits" in result:
        print(f"logits differ by {result['logits']['difference']:.2e} (largest {result['logits']['largest']:.1f})")
    for name, measured in measurements(result):
        print(ratio_line(name, measured))
    print("\nprofile of a training step of ours")
    rows = [[r["op"], r["calls"], f"{r['seconds']:.3f}", f"{r['share']:.0%}"] for r in result["profile"]]
    print(tabulate(rows, ["operator", "calls", "seconds", "share"], disable_numparse=True))
    save(result, args.json)


if __name__ == "__main__":
    main()
