"""Time a MaPLe training step and an evaluation pass against the definitional computation, in one process run.

    python -m benchmarks.step --classes 500 --batch 4 --backbone ViT-B/16 --json step.json

Random weights of the backbone's real shape; ImageNet's class names where the published facts are beside the
project, else made-up names of the same token lengths. Both sides share every parameter.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clip.model import CLIP
from clip.transformer import VisionTransformer
from trainers.maple import MultiModalPromptLearner
from trainers.precision import CHOICES, Precision
from trainers.prompted_clip import PromptedCLIP, unit

from .definitional import encode_image, encode_text, pad_prompts

ARCHITECTURES = {  # embed, image, vision layers, vision width, patch, text width, text heads
    "ViT-B/32": (512, 224, 12, 768, 32, 512, 8),
    "ViT-B/16": (512, 224, 12, 768, 16, 512, 8),
    "ViT-L/14": (768, 224, 24, 1024, 14, 768, 12),
}
CLASSNAMES = Path(__file__).resolve().parents[2] / "shared" / "published" / "imagenet_classnames.txt"
# How many of ImageNet's 1,000 class names have 1, 2, … tokens.
TOKEN_LENGTHS = (246, 508, 154, 50, 22, 10, 8, 0, 1, 0, 0, 1)


def random_clip(backbone: str) -> CLIP:
    """A CLIP of the backbone's shape with random frozen weights."""
    embed, image, layers, width, patch, text_width, heads = ARCHITECTURES[backbone]
    model = CLIP(embed, image, layers, width, patch, 77, 49408, text_width, heads, 12)
    return model.requires_grad_(False).eval()


def class_names(count: int) -> list[str]:
    """The first `count` class names of ImageNet, or names of such token lengths, thoroughly mixed."""
    if CLASSNAMES.is_file():
        names = [line.split(" ", 1)[1] for line in CLASSNAMES.read_text().splitlines()]
    else:
        lengths = [n for n, many in enumerate(TOKEN_LENGTHS, start=1) for _ in range(many)]
        names = [" ".join(["cat"] * lengths[i * 387 % len(lengths)]) for i in range(len(lengths))]
    return [names[i % len(names)] for i in range(count)]


class Definitional(nn.Module):
    """The same MaPLe model, computed as it is defined: all classes at full length, in every call."""

    def __init__(self, model: PromptedCLIP, token_embedding: Tensor, context_length: int):
        super().__init__()
        self.model = model
        self.token_embedding, self.context_length = token_embedding, context_length

    def forward(self, image: Tensor) -> Tensor:
        learner = self.model.prompt_learner
        prompts, eot = pad_prompts(learner.sequences, self.token_embedding, learner.ctx, self.context_length)
        _, text_deep = learner.text_prompts()
        text = unit(encode_text(self.model.text_encoder, prompts, eot, text_deep or []))  # (K, E)
        ctx, deep = learner.vision_prompts()
        tower = self.model.image_encoder
        assert isinstance(tower, VisionTransformer)
        features = unit(encode_image(tower, image, ctx, deep or []))  # (B, E)
        return self.model.logit_scale.exp() * features @ text.t()


class Clock:
    """Seconds and peak memory of calls."""

    def __init__(self, device: torch.device):
        self.device = device

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        clear = Path("/proc/self/clear_refs")  # Linux: "5" sets the high-water mark back to what is resident now
        if clear.exists():
            clear.write_text("5")

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        status = Path("/proc/self/status")
        if status.exists():
            high = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
            return int(high.split()[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def measure(self, work: Callable[[], Any], repeats: int) -> dict[str, Any]:
        """Median seconds over `repeats` calls, all of them, and the peak memory in bytes."""
        seconds = []
        self._reset_peak()
        for _ in range(repeats):
            self._synchronize()
            start = time.perf_counter()
            work()
            self._synchronize()
            seconds.append(time.perf_counter() - start)
        return {"seconds": statistics.median(seconds), "all_seconds": seconds, "peak_bytes": self._peak()}


def training_step(model: nn.Module, precision: Precision, image: Tensor, label: Tensor) -> Callable[[], None]:
    """One step of SGD on one batch, at rate 0, so that both sides always meet the same parameters."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        with precision.autocast():
            logits = model(image)
        F.cross_entropy(logits.float(), label).backward()
        optimizer.step()

    return step


def evaluation(model: nn.Module, precision: Precision, batches: list[Tensor]) -> Callable[[], None]:
    """All batches once. `train` and `eval` make a model of ours forget the text features it kept."""

    @torch.no_grad()
    def run() -> None:
        model.train().eval()
        for image in batches:
            with precision.autocast():
                model(image)

    return run


def compare(clock: Clock, sides: Iterable[Callable[[], None]], args: argparse.Namespace) -> dict[str, Any]:
    """Both sides of one measurement, ours first after a call that warms up."""
    ours, theirs = sides
    ours()
    result = {
        "ours": clock.measure(ours, args.repeats),
        "definitional": clock.measure(theirs, args.definitional_repeats),
    }
    result["ratio"] = result["definitional"]["seconds"] / result["ours"]["seconds"]
    return result


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements as plain values."""
    torch.manual_seed(0)
    device = torch.device(args.device)
    clip_model, names = random_clip(args.backbone), class_names(args.classes)
    learner = MultiModalPromptLearner(names, clip_model, 2, "a photo of a", args.depth)
    ours = PromptedCLIP(clip_model, learner)
    theirs = Definitional(ours, clip_model.token_embedding.weight, clip_model.context_length)
    precision = Precision(args.prec, device)
    precision.cast_towers(ours.image_encoder, ours.text_encoder)
    theirs.to(device)
    theirs.token_embedding = theirs.token_embedding.to(device)
    clock, side = Clock(device), clip_model.visual.input_resolution

    def images(count: int) -> Tensor:
        return torch.randn(count, 3, side, side, device=device)

    image, label = images(args.batch), torch.arange(args.batch, device=device) % args.classes
    with torch.no_grad(), precision.autocast():
        fast, full = ours.eval()(image).float(), theirs(image).float()
    steps = (training_step(m, precision, image, label) for m in (ours, theirs))
    result: dict[str, Any] = {
        "settings": vars(args),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "text_rows": {"ours": learner.layout.num_rows, "definitional": args.classes * clip_model.context_length},
        "logits": {"largest": full.abs().max().item(), "difference": (fast - full).abs().max().item()},
        "training_step": compare(clock, steps, args),
    }
    batches = [images(args.batch) for _ in range(args.eval_batches)]
    result[f"evaluation_{args.eval_batches}x{args.batch}"] = compare(
        clock, (evaluation(m, precision, batches) for m in (ours, theirs)), args
    )
    if args.test_batch:
        batches = [images(args.test_batch)]
        result[f"evaluation_1x{args.test_batch}"] = compare(
            clock, (evaluation(m, precision, batches) for m in (ours, theirs)), args
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=500)
    parser.add_argument("--batch", type=int, default=4, help="images in a training step and in a batch of 10")
    parser.add_argument("--backbone", choices=sorted(ARCHITECTURES), default="ViT-B/16")
    parser.add_argument("--depth", type=int, default=9, help="MaPLe's prompt depth")
    parser.add_argument("--prec", choices=CHOICES, default="fp32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--eval-batches", type=int, default=10)
    parser.add_argument("--test-batch", type=int, default=100, help="the published test batch; 0 leaves it out")
    parser.add_argument("--repeats", type=int, default=3, help="measured calls of ours")
    parser.add_argument("--definitional-repeats", type=int, default=1, help="measured calls of the definitional side")
    parser.add_argument("--json", type=Path, help="write the result here")
    args = parser.parse_args()
    result = run(args)
    print(f"{args.backbone}, {args.classes} classes, {args.prec}, {result['device']}, {result['threads']} threads")
    print(f"text rows: {result['text_rows']}")
    print(f"logits differ by {result['logits']['difference']:.2e} (largest {result['logits']['largest']:.1f})")
    for name, measured in result.items():
        if isinstance(measured, dict) and "ratio" in measured:
            ours, theirs = measured["ours"], measured["definitional"]
            print(
                f"{name}: ours {ours['seconds']:.3f} s, definitional {theirs['seconds']:.3f} s, "
                f"ratio {measured['ratio']:.1f}; peak memory {ours['peak_bytes'] / 2**30:.2f} "
                f"and {theirs['peak_bytes'] / 2**30:.2f} GiB"
            )
    if args.json:
        args.json.write_text(json.dumps(result, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
