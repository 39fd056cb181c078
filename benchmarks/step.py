"""Time a MaPLe training step and an evaluation pass against the definitional computation, in one process.

    python -m benchmarks.step --classes 500 --batch 4 --backbone ViT-B/16 --json step.json

Random weights with the backbone's shapes; ImageNet's class names if ../shared/published has them, else made-up names
of the same token lengths. Both sides share all parameters.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from trainers.maple import MultiModalPromptLearner
from trainers.prompted_clip import PromptedCLIP

from .definitional import Definitional
from .timing import (
    Comparison,
    circumstances,
    class_names,
    measurements,
    model_line,
    model_parser,
    random_clip,
    ratio_line,
    save,
)


class DefinitionalMaPLe(Definitional):
    """MaPLe with all classes at full length in every call."""

    model: PromptedCLIP

    def forward(self, image: Tensor) -> Tensor:
        learner: Any = self.model.prompt_learner
        prompts = list(learner.compound_prompts_text)
        text = self.text_features(learner.sequences, learner.embeddings(), prompts)  # (K, E)
        deep = [project(p) for project, p in zip(learner.compound_prompt_projections, prompts, strict=True)]
        features = self.image_features(image, learner.proj(learner.ctx), deep)  # (B, E)
        return self.model.logit_scale.exp() * features @ text.t()


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements as plain values."""
    torch.manual_seed(0)
    clip_model, names = random_clip(args.backbone), class_names(args.classes)
    learner = MultiModalPromptLearner(names, clip_model, 2, "a photo of a", args.depth)
    ours = PromptedCLIP(clip_model, learner)
    comparison = Comparison(args, ours, DefinitionalMaPLe(ours, clip_model))
    result: dict[str, Any] = {
        **circumstances(args, comparison.device),
        "text_tokens": {"ours": learner.layout.num_tokens, "definitional": args.classes * clip_model.context_length},
        "logits": comparison.logits(args.batch),
        "training_step": comparison.training_step(args.batch),
        f"evaluation_{args.eval_batches}x{args.batch}": comparison.evaluation(args.eval_batches, args.batch),
    }
    if args.test_batch:
        result[f"evaluation_1x{args.test_batch}"] = comparison.evaluation(1, args.test_batch)
    result["profile"] = comparison.profile(args.batch)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    parser = model_parser(__doc__)
    parser.add_argument("--depth", type=int, default=9, help="MaPLe's prompt depth")
    parser.add_argument("--eval-batches", type=int, default=10, help="evaluation batches of --batch images")
    args = parser.parse_args(argv)
    result = run(args)
    print(model_line(result))
    print(f"text tokens: {result['text_tokens']}")
    print(f"logits differ by {result['logits']['difference']:.2e} (largest {result['logits']['largest']:.1f})")
    for name, measured in measurements(result):
        print(ratio_line(name, measured))
    print("\nprofile of a training step of ours")
    rows = [[r["op"], r["calls"], f"{r['seconds']:.3f}", f"{r['share']:.0%}"] for r in result["profile"]]
    print(tabulate(rows, ["operator", "calls", "seconds", "share"], disable_numparse=True))
    save(result, args.json)


if __name__ == "__main__":
    main()
