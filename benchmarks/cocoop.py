"""Time CoCoOp's training step and evaluation against the definitional computation, in one process.

    python -m benchmarks.cocoop --classes 500 --batch 4 --backbone ViT-B/16 --json cocoop.json

Each image has its own text features of all K classes. Ours computes the images of a batch together and the prefix that
all classes share once per image, in as many pieces as memory requires. The definitional computation is the published
one: a loop over the images, each of which scores every class at 77 tokens. Training steps are measured on 1 image (the
published batch size) and on --batch images. The loop's backward pass runs image by image, so that its memory does not
grow with the batch size, unlike the published code's; the gradients are the same.

Random weights and class names are those of `benchmarks.step`; both sides share all parameters.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainers.cocoop import ConditionalPromptLearner
from trainers.conditional import ConditionalCLIP

from .definitional import Definitional
from .models import class_names, random_clip
from .timing import (
    Comparison,
    circumstances,
    comparison_parser,
    measurements,
    model_line,
    ratio_line,
    save,
)


class ObservedCLIP(ConditionalCLIP):
    """Records in how many pieces the last batch was computed, and whether they are recomputed in the backward pass."""

    last_cut: dict[str, Any]

    def piece_sizes(self, images: int, backward: bool) -> tuple[int, int, bool]:
        at_once, parts, recompute = super().piece_sizes(images, backward)
        pieces = math.ceil(images / at_once) * len(self.layouts(parts))
        self.last_cut = {"count": pieces, "images_at_once": at_once, "recomputed": recompute}
        return at_once, parts, recompute


class DefinitionalCoCoOp(Definitional):
    """CoCoOp, one image after the other, with all classes at full length."""

    model: ConditionalCLIP

    def forward(self, image: Tensor) -> Tensor:
        return torch.stack([self.score(feature) for feature in self.image_features(image)])  # (B, K)

    def score(self, feature: Tensor) -> Tensor:
        """Logits (K,) of one image's normalised feature (E,): equation 3 of the paper, then cosine similarities."""
        learner: Any = self.model.prompt_learner
        ctx = learner.ctx + learner.meta_net(feature)  # (M, Dt)
        embeddings = torch.cat([learner.token_embeddings, ctx.to(learner.token_embeddings.dtype)])  # (U + M, D)
        text = self.text_features(learner.sequences, embeddings)  # (K, E)
        return self.model.logit_scale.exp() * (text @ feature)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements as plain values."""
    torch.manual_seed(0)
    clip_model, names = random_clip(args.backbone), class_names(args.classes)
    learner = ConditionalPromptLearner(names, clip_model, 4, "a photo of a")
    ours = ObservedCLIP(clip_model, learner)
    comparison = Comparison(args, ours, DefinitionalCoCoOp(ours, clip_model))
    result: dict[str, Any] = {
        **circumstances(args, comparison.device),
        "text_tokens_per_image": {
            "ours": learner.layout.num_tokens,
            "definitional": args.classes * clip_model.context_length,
        },
    }
    for batch in sorted({1, args.batch}):
        step = comparison.training_step(batch, definitional_at_once=1)
        result[f"training_step_batch{batch}"] = {**step, "pieces": ours.last_cut}
    if args.test_batch:
        measured = comparison.evaluation(1, args.test_batch)
        result[f"evaluation_1x{args.test_batch}"] = {**measured, "pieces": ours.last_cut}
    return result


def pieces_text(pieces: dict[str, Any]) -> str:
    recomputed = "recomputed in the backward pass" if pieces["recomputed"] else "nothing recomputed"
    return f"ours in {pieces['count']} piece{'s' * (pieces['count'] > 1)}, {recomputed}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = comparison_parser(__doc__)
    parser.set_defaults(test_batch=10)  # the definitional side takes half a minute per image on two CPU threads
    args = parser.parse_args(argv)
    result = run(args)
    print(model_line(result))
    print(f"text tokens per image: {result['text_tokens_per_image']}")
    for name, measured in measurements(result):
        print(f"{ratio_line(name, measured)}; {pieces_text(measured['pieces'])}")
    save(result, args.json)


if __name__ == "__main__":
    main()
