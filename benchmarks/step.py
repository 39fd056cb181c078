"""Time training steps and evaluations of methods against the definitional computation, in one process.

    python -m benchmarks.step --classes 500 --batch 4 --backbone ViT-B/16 --json step.json
    python -m benchmarks.step --trainer PromptSRC --classes 500 TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT 3
    python -m benchmarks.step --trainer all --classes 50,200,500,1000 --prec fp32,bf16 --definitional-repeats 0

The method's own loss, with its published config, over two towers: ours, and those that compute every class alone at 77
tokens with explicit attention. What the published code computes once (features of fixed texts) both sides compute once.
Random weights with the backbone's shapes; ImageNet's class names if ../shared/published has them, else made-up names
of the same token lengths. Both sides share all parameters. CoCoOp has a benchmark of its own, `benchmarks.cocoop`, and
so have the methods that train on features of the images, `benchmarks.feature_training`.

In another precision than fp32, `against_fp32` says how far the logits and the gradients of ours are from those in fp32
with the same parameters and images: ‖difference‖ / ‖fp32‖.

Several methods, class counts or precisions, separated by commas, are measured one after the other. The result is then
`{"runs": […]}`, without profiles, and is written after each. A measurement that fails is recorded as `error`.
"""

from __future__ import annotations

import argparse
import gc
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor
from yacs.config import CfgNode

import datasets  # noqa: F401  (registers the datasets)
import train
from clip.model import CLIP
from clip.packing import PackedPrompts
from dassl.config import merge_file, merge_options
from dassl.engine import TRAINER_REGISTRY
from experiments.methods import METHODS, Method
from trainers.base import ClipTrainer
from trainers.on_features import FeatureTrainer
from trainers.prompted_clip import FrozenTowersCLIP
from trainers.without_data import dataset_without_images, trainer_without_data

from .definitional import by_definition, learns_text
from .models import class_names, random_clip
from .timing import (
    Clock,
    Comparison,
    Work,
    circumstances,
    comparison_parser,
    deviation,
    evaluation,
    listed,
    measurements,
    model_line,
    ratio_line,
    save,
    say,
)

CONFIGS = Path(__file__).resolve().parents[1] / "configs/trainers"
# Descriptions by a language model are not at hand; CoPrompt's cost does not depend on what the texts say
STAND_INS = {"CoPrompt": ["TRAINER.COPROMPT.DESCRIPTIONS", "templates"]}


def measured_methods() -> list[Method]:
    """The rows of experiments/methods.py whose training steps are measured here."""
    trained = [method for method in METHODS.values() if method.trained and method.trainer != "CoCoOp"]
    return [method for method in trained if not issubclass(TRAINER_REGISTRY.get(method.trainer), FeatureTrainer)]


def published_cfg(args: argparse.Namespace) -> CfgNode:
    """The method's published config for base-to-new."""
    rows = [method for method in measured_methods() if args.method in (method.name, method.trainer)]
    if not rows:
        known = ", ".join(method.name for method in measured_methods())
        raise SystemExit(f"--trainer {args.method}: expected all, or some of {known}, or their trainers")
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

    def __init__(self, args: argparse.Namespace, clip_model: CLIP | None = None):
        cfg = published_cfg(args)
        cfg.DEVICE = args.device
        torch.manual_seed(0)
        dataset = dataset_without_images("ImageNet", class_names(args.classes))
        self.trainer: ClipTrainer = trainer_without_data(cfg, dataset, clip_model or random_clip(args.backbone))
        trainer = self.trainer
        trainer.set_model_mode("train")
        for group in trainer.optim.param_groups:
            group["lr"] = 0.0  # both sides have the same parameters in every step
        self.args, self.device, self.precision = args, trainer.device, trainer.precision
        self.clock = Clock(self.device)
        self.ours: FrozenTowersCLIP = trainer.model
        self.theirs: FrozenTowersCLIP = by_definition(trainer.model)

    def _train(self, model: FrozenTowersCLIP) -> None:
        """Let the trainer make its steps with one side's model. As in an epoch, the mode is set once."""
        self.trainer.model = model
        if not model.training:
            self.trainer.set_model_mode("train")

    def step(self, model: Any, image: Tensor, label: Tensor, images_at_once: int) -> Work:
        """A step on all images at once; the same random numbers on both sides."""
        views = self.trainer.cfg.DATALOADER.K_TRANSFORMS
        batch = {"img": [image] * views if views > 1 else image, "label": label}
        learned = [p for p in model.parameters() if p.requires_grad]
        self._train(model)
        if not learns_text(model):
            with self.precision.autocast():
                model.text_features()  # kept over all steps

        def run() -> list[Tensor]:
            torch.manual_seed(0)
            self._train(model)
            with self.precision.autocast():
                _, terms = self.trainer.losses(*self.trainer.parse_batch_train(batch))
            self.trainer.update(terms)
            return [p.grad for p in learned if p.grad is not None]

        return run

    def text_tokens(self) -> dict[str, int]:
        """The tokens that the text tower computes in a step: none where nothing about the texts is learned."""
        if not learns_text(self.ours):
            return {"ours": 0, "definitional": 0}
        layouts = [module for module in self.ours.modules() if isinstance(module, PackedPrompts)]
        texts = sum(len(layout.sequences) for layout in layouts)
        length = len(self.ours.text_encoder.positional_embedding)
        return {"ours": sum(layout.num_tokens for layout in layouts), "definitional": texts * length}

    def against_fp32(self, batch: int) -> dict[str, float]:
        """The deviation of our logits and gradients from those in fp32, with the same parameters and images."""
        say("difference from fp32")
        image, label = self.images(batch), self.labels(batch)
        exact = TrainerComparison(argparse.Namespace(**{**vars(self.args), "prec": "fp32"}))
        learned = dict(self.ours.named_parameters())
        for name, parameter in exact.ours.named_parameters():
            if parameter.requires_grad:
                parameter.data.copy_(learned[name].data)
        sides = (self, exact)
        logits = [evaluation(side.ours, side.precision, [image])() for side in sides]
        gradients = [side.step(side.ours, image, label, batch)() for side in sides]
        return {"logits": deviation(*logits), "gradients": deviation(*gradients)}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements of one method, class count and precision as plain values."""
    comparison = TrainerComparison(args)
    result: dict[str, Any] = {
        **circumstances(args, comparison.device),
        "text_tokens": comparison.text_tokens(),
        "training_step": comparison.training_step(args.batch),
    }
    if args.eval_batches:
        if args.definitional_repeats:
            result["logits"] = comparison.logits(args.batch)
        name = f"evaluation_{args.eval_batches}x{args.batch}"
        result[name] = comparison.evaluation(args.eval_batches, args.batch)
    if args.test_batch:
        result[f"evaluation_1x{args.test_batch}"] = comparison.evaluation(1, args.test_batch)
    if comparison.precision.name != "fp32":
        result["against_fp32"] = comparison.against_fp32(args.batch)
    if args.profile:
        result["profile"] = comparison.profile(args.batch)
    return result


def each_run(args: argparse.Namespace) -> list[argparse.Namespace]:
    """The arguments of every single measurement."""
    methods = [method.name for method in measured_methods()] if args.method == ["all"] else args.method
    cases = itertools.product(methods, args.classes, args.prec)
    each = [dict(zip(("method", "classes", "prec"), case, strict=True)) for case in cases]
    return [argparse.Namespace(**{**vars(args), **one}, profile=len(each) == 1) for one in each]


def recorded(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements, or the error that they ended with, so that the others are made."""
    say(f"{args.method}, {args.classes} classes, {args.prec}")
    gc.collect()  # the models of the measurement before
    try:
        return run(args)
    except Exception as error:
        settings = {key: value for key, value in vars(args).items() if key != "json"}
        return {"settings": settings, "error": f"{type(error).__name__}: {error}".splitlines()[0]}


def report(result: dict[str, Any]) -> str:
    """The result of one measurement."""
    lines = [f"{result['settings']['method']}, {model_line(result)}", f"text tokens: {result['text_tokens']}"]
    if "logits" in result:
        largest = result["logits"]["largest"]
        lines += [f"logits differ by {result['logits']['difference']:.2e} (largest {largest:.1f})"]
    lines += [ratio_line(name, measured) for name, measured in measurements(result)]
    if "against_fp32" in result:
        lines += ["from fp32: " + ", ".join(f"{k} differ by {v:.1e}" for k, v in result["against_fp32"].items())]
    rows = [[r["op"], r["calls"], f"{r['seconds']:.3f}", f"{r['share']:.0%}"] for r in result["profile"]]
    table = tabulate(rows, ["operator", "calls", "seconds", "share"], disable_numparse=True)
    return "\n".join([*lines, "\nprofile of a training step of ours", table])


def row(result: dict[str, Any]) -> list[Any]:
    """The cells of one of several measurements."""
    settings = result["settings"]
    case = [settings["method"], settings["classes"], settings["prec"]]
    if "error" in result:
        return [*case, result["error"]]
    step = result["training_step"]
    cells = [
        result["text_tokens"]["ours"],
        f"{step['ours']['seconds']:.3f}",
        f"{step['ours']['peak_bytes'] / 2**30:.2f}",
    ]
    both = [f"{step['definitional']['seconds']:.3f}", f"{step['ratio']:.1f}"] if "ratio" in step else ["-", "-"]
    apart = [f"{value:.1e}" for value in result.get("against_fp32", {}).values()]
    return [*case, *cells, *both, *(apart or ["-", "-"])]


def main(argv: Sequence[str] | None = None) -> None:
    parser = comparison_parser(__doc__, ("classes", "prec"))
    parser.add_argument(
        "--trainer", dest="method", type=listed(str), default="MaPLe", help="trainers or methods' rows, or all"
    )
    parser.add_argument(
        "--eval-batches", type=int, default=10, help="evaluation batches of --batch images; 0 skips them"
    )
    parser.add_argument("options", nargs="*", metavar="KEY VALUE", help="settings instead of the published ones")
    args = parser.parse_args(argv)
    cases = each_run(args)
    if len(cases) == 1:
        result = run(cases[0])
        print(report(result))
        save(result, args.json)
    else:
        runs: list[dict[str, Any]] = []
        for case in cases:
            runs.append(recorded(case))
            save({"runs": runs}, args.json)
        head = ["method", "classes", "precision", "text tokens", "step, s", "peak, GiB", "definitional, s", "ratio"]
        head += ["logits from fp32", "gradients from fp32"]
        print(tabulate([row(r) for r in runs], head, disable_numparse=True))


if __name__ == "__main__":
    main()
