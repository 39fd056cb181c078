"""Shared by the benchmarks: a clock, comparisons of two sides, options and output.

Letters: B images, K classes.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import math
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dassl.utils import (
    activate,
    device_name,
    device_named,
    empty_cache,
    peak_memory_bytes,
    reset_peak_memory,
    synchronize,
    write_json,
)
from trainers.precision import CHOICES, Precision
from trainers.prompted_clip import FrozenTowersCLIP

from .definitional import Definitional
from .models import ARCHITECTURES

# One side of a measurement; both sides must return the same tensors.
Work = Callable[[], list[Tensor]]


class Clock:
    """Measures the seconds and the peak memory of calls."""

    def __init__(self, device: torch.device):
        self.device = device

    def _reset_peak(self) -> None:
        if self.device.type != "cpu":
            reset_peak_memory(self.device)
            return
        clear = Path("/proc/self/clear_refs")  # Linux: "5" resets the high-water mark to the current resident size
        if clear.exists():
            with contextlib.suppress(AttributeError):  # not the GNU C library
                ctypes.CDLL(None).malloc_trim(0)  # so that memory freed by the other side is not counted
            clear.write_text("5")

    def _peak(self) -> int:
        status = Path("/proc/self/status")
        if self.device.type != "cpu" or not status.exists():
            return peak_memory_bytes(self.device)
        high = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(high.split()[1]) * 1024

    def measure(self, work: Callable[[], Any], repeats: int, before: int = 0) -> tuple[dict[str, Any], Any]:
        """Seconds (median and all) of `repeats` calls and their peak memory in bytes; the result of the last call.

        Args:
            before: calls that are not timed.
        """
        seconds, output = [], None
        self._reset_peak()
        for _ in range(before + repeats):
            output = None  # so that a result is not part of the next call's peak
            synchronize(self.device)
            start = time.perf_counter()
            output = work()
            synchronize(self.device)
            seconds.append(time.perf_counter() - start)
        return self._summary(seconds[before:], self._peak()), output

    @staticmethod
    def _summary(seconds: list[float], peak: int) -> dict[str, Any]:
        return {"seconds": statistics.median(seconds), "all_seconds": seconds, "peak_bytes": peak}

    def together(self, rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Several measurements of the same work as one."""
        seconds = [value for one in rounds for value in one["all_seconds"]]
        return self._summary(seconds, max(one["peak_bytes"] for one in rounds))


def agreement(found: Sequence[Tensor], expected: Sequence[Tensor]) -> dict[str, float]:
    """The largest expected value, the largest difference, and the largest ratio of the two over the tensors."""
    largest = [e.abs().max().item() for e in expected]
    differences = [(f.float() - e.float()).abs().max().item() for f, e in zip(found, expected, strict=True)]
    relative = max(d / max(size, 1e-30) for d, size in zip(differences, largest, strict=True))
    return {"largest": max(largest), "difference": max(differences), "relative": relative}


def deviation(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """‖found − expected‖ / ‖expected‖ of all tensors as one vector."""
    both = [(f.double(), e.double()) for f, e in zip(found, expected, strict=True)]
    return math.sqrt(
        sum(float((f - e).square().sum()) for f, e in both) / sum(float(e.square().sum()) for _, e in both)
    )


def training_step(model: nn.Module, precision: Precision, image: Tensor, label: Tensor, images_at_once: int) -> Work:
    """One SGD step on one batch, with learning rate 0, so that both sides always have the same parameters.

    The step returns the gradients of the mean loss, accumulated over `images_at_once` images at a time.
    """
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.0, momentum=0.9)

    def step() -> list[Tensor]:
        optimizer.zero_grad()
        for some, labels in zip(image.split(images_at_once), label.split(images_at_once), strict=True):
            with precision.autocast():
                logits = model(some)
            (F.cross_entropy(logits.float(), labels, reduction="sum") / len(image)).backward()
        optimizer.step()
        return [p.grad for p in learned if p.grad is not None]

    return step


def evaluation(model: nn.Module, precision: Precision, batches: list[Tensor]) -> Work:
    """The logits of all batches. `train` and `eval` clear the text features that a model of ours caches."""

    @torch.no_grad()
    def run() -> list[Tensor]:
        model.train().eval()
        with precision.autocast():
            return [model(image).float() for image in batches]

    return run


class Comparison:
    """A model of ours and its definitional computation, with the same parameters, device, precision and images."""

    def __init__(self, args: argparse.Namespace, ours: FrozenTowersCLIP, theirs: Definitional | FrozenTowersCLIP):
        self.args, self.ours, self.theirs = args, ours, theirs
        self.device = device_named(args.device)
        activate(self.device)
        self.clock, self.precision = Clock(self.device), Precision(args.prec, self.device)
        for tower in (ours.image_encoder, ours.text_encoder):
            self.precision.cast(tower)
        theirs.to(self.device)  # ours is a submodule of theirs

    def step(self, model: nn.Module, image: Tensor, label: Tensor, images_at_once: int) -> Work:
        """A training step of one side."""
        return training_step(model, self.precision, image, label, images_at_once)

    def images(self, count: int) -> Tensor:
        side: Any = self.theirs.image_encoder.input_resolution
        return torch.randn(count, 3, side, side, device=self.device)

    def labels(self, count: int) -> Tensor:
        return torch.arange(count, device=self.device) % self.args.classes

    def _measure(self, ours: Work, theirs: Work) -> dict[str, Any]:
        """Measure both sides in turns: the speed of a machine changes within minutes.

        There is a turn for each repetition of the definitional side, and ours are spread over them. In each turn a
        first call that is cheap or loads kernels is not timed. With --definitional-repeats 0 there is only ours.
        """
        turns = self.args.definitional_repeats
        each = math.ceil(self.args.repeats / max(turns, 1))
        fast, full = [], []
        empty_cache(self.device)  # release the memory cached by the other side
        for _ in range(max(turns, 1)):
            measured, found = self.clock.measure(ours, each, before=1)
            fast.append(measured)
            if turns:
                measured, expected = self.clock.measure(theirs, 1, before=int(self.device.type != "cpu"))
                full.append(measured)
        sides = {"ours": self.clock.together(fast)}
        if not turns:
            return sides
        sides["definitional"] = self.clock.together(full)
        return {
            **sides,
            "ratio": sides["definitional"]["seconds"] / sides["ours"]["seconds"],
            "agreement": agreement(found, expected),
        }

    def training_step(self, batch: int, definitional_at_once: int | None = None) -> dict[str, Any]:
        """Measure a step on one batch; `agreement` compares the gradients.

        Args:
            definitional_at_once: images per backward pass of the definitional side; all by default.
        """
        say(f"training step, batch {batch}")
        image, label = self.images(batch), self.labels(batch)
        return self._measure(
            self.step(self.ours, image, label, batch),
            self.step(self.theirs, image, label, definitional_at_once or batch),
        )

    def _evaluations(self, count: int, batch: int) -> tuple[Work, Work]:
        batches = [self.images(batch) for _ in range(count)]
        return evaluation(self.ours, self.precision, batches), evaluation(self.theirs, self.precision, batches)

    def evaluation(self, count: int, batch: int) -> dict[str, Any]:
        """Measure `count` batches in one model state; `agreement` compares the logits."""
        say(f"evaluation, {count} batches of {batch}")
        return self._measure(*self._evaluations(count, batch))

    def profile(self, batch: int, most: int = 10) -> list[dict[str, Any]]:
        """Profile a training step of ours: the operators with the largest self time."""
        say("profile of a training step of ours")
        image, label = self.images(batch), self.labels(batch)
        work = self.step(self.ours, image, label, batch)
        work()
        on_gpu = self.device.type == "cuda"
        activities = [torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities) as profiler:
            work()
        events = profiler.key_averages()
        own = {e.key: (e.self_device_time_total if on_gpu else e.self_cpu_time_total) for e in events}  # microseconds
        total = sum(own.values())
        hottest = sorted(events, key=lambda e: own[e.key], reverse=True)[:most]
        return [
            {"op": e.key, "calls": e.count, "seconds": own[e.key] / 1e6, "share": own[e.key] / total} for e in hottest
        ]

    def logits(self, batch: int) -> dict[str, float]:
        """Compare the logits of one batch."""
        ours, theirs = self._evaluations(1, batch)
        return agreement(ours(), theirs())


def say(what: str) -> None:
    """Print what is being measured: it can take minutes."""
    print(f"measuring {what} …", file=sys.stderr, flush=True)


def base_parser(doc: str | None) -> argparse.ArgumentParser:
    """The options of every benchmark."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="measured calls (of our side, if there are two)")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    return parser


def listed(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """The type of an option whose values are separated by commas."""

    def values(text: str) -> list[Any]:
        return [kind(word) for word in text.split(",")]

    values.__name__ = f"list of {kind.__name__}"  # for argparse's message
    return values


def precision(text: str) -> str:
    if text not in CHOICES:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(CHOICES)}")
    return text


def model_parser(doc: str | None, several: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The options of the benchmarks of a model's training step.

    Args:
        several: those of "classes" and "prec" that are lists.
    """
    parser = base_parser(doc)
    classes, prec = (listed(k) if name in several else k for name, k in (("classes", int), ("prec", precision)))
    parser.add_argument("--classes", type=classes, default="500")
    parser.add_argument("--batch", type=int, default=4, help="images in a training step")
    parser.add_argument("--backbone", choices=sorted(ARCHITECTURES), default="ViT-B/16")
    parser.add_argument("--prec", type=prec, default="fp32", help=", ".join(CHOICES))
    parser.add_argument("--device", default="auto", help="auto (the GPU if there is one), cpu, cuda, cuda:N, mps")
    return parser


def comparison_parser(doc: str | None, several: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The options of the benchmarks that compare two sides of a model; the arguments are those of `model_parser`."""
    parser = model_parser(doc, several)
    parser.add_argument(
        "--test-batch", type=int, default=100, help="images in an evaluation batch (published: 100); 0 skips it"
    )
    parser.add_argument(
        "--definitional-repeats", type=int, default=1, help="the same of the definitional side; 0 skips it"
    )
    return parser


def processor_name() -> str:
    """The processor's name on Linux, elsewhere its architecture."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE) if info.exists() else []
    return names[0] if names else platform.machine()


def circumstances(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The settings and the machine that the numbers depend on."""
    return {
        "settings": {key: value for key, value in vars(args).items() if key != "json"},
        "device": processor_name() if device.type == "cpu" else device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def measurements(result: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of a result that time ours, and the definitional side where it is measured."""
    for name, value in result.items():
        if isinstance(value, dict) and isinstance(value.get("ours"), dict):
            yield name, value


def model_line(result: dict[str, Any]) -> str:
    """The first line of a report."""
    settings = result["settings"]
    shape = f"{settings['backbone']}, {settings['classes']} classes, {settings['prec']}"
    return f"{shape}, {result['device']}, {result['threads']} threads"


def ratio_line(name: str, measured: dict[str, Any]) -> str:
    """One line that describes a measurement."""
    ours = measured["ours"]
    if "definitional" not in measured:
        return f"{name}: ours {ours['seconds']:.3f} s; peak memory {ours['peak_bytes'] / 2**30:.2f} GiB"
    theirs, apart = measured["definitional"], measured["agreement"]
    return (
        f"{name}: ours {ours['seconds']:.3f} s, definitional {theirs['seconds']:.3f} s, "
        f"ratio {measured['ratio']:.1f}; peak memory {ours['peak_bytes'] / 2**30:.2f} "
        f"and {theirs['peak_bytes'] / 2**30:.2f} GiB; "
        f"{'gradients' if name.startswith('training') else 'logits'} differ by {apart['relative']:.1e} of the largest"
    )


def save(result: dict[str, Any], path: Path | None) -> None:
    """Write the result to the `--json` file, if given."""
    if path:
        write_json(result, path)


def run_and_report(
    args: argparse.Namespace,
    run: Callable[[argparse.Namespace], dict[str, Any]],
    report: Callable[[dict[str, Any]], str],
) -> None:
    """Run a benchmark, print its report, and write its result to the `--json` file."""
    result = run(args)
    print(report(result))
    save(result, args.json)
