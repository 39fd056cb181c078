"""How long a run takes from its command to its first step, by phase.

    python -m benchmarks.startup --against ../other_checkout --json startup.json

starts train.py on the demonstration in new processes with one thread: a training of MaPLe, and a test of zero-shot CLIP
without stored features. It counts CPU seconds (user and system time of the process), which depend less than the clock
on what else the machine does. With `--against`, the two checkouts take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from dassl.utils import write_json

from .timing import base_parser, processor_name, say

HERE = Path(__file__).resolve().parents[1]
PHASES = ("python", "torch", "other imports", "settings", "data", "model", "begin", "first step")
SETTINGS = ("--seed", "1", "--dataset-config-file", "configs/datasets/emoji.yaml", "DATASET.SUBSAMPLE_CLASSES", "base")
COMMANDS = {
    "training of MaPLe": ("--trainer", "MaPLe", "--config-file", "configs/trainers/MaPLe/vit_micro.yaml"),
    "test of ZeroshotCLIP": (
        *("--trainer", "ZeroshotCLIP", "--config-file", "configs/trainers/ZeroshotCLIP/vit_micro.yaml", "--eval-only"),
    ),
}
# Runs in either checkout: CPU seconds and the time at the end of each phase, up to the end of the first step.
TIMED = """
import os, sys, time
marks = []

def mark(phase):
    if phase not in [name for name, _, _ in marks]:
        times = os.times()
        marks.append((phase, times.user + times.system, time.time()))

class Output:
    def write(self, text):
        for words, phase in (("Loading trainer:", "settings"), ("Loading evaluator:", "model")):
            if words in text:
                mark(phase)
        return len(text)

    def flush(self):
        pass

    def isatty(self):
        return False

sys.path.insert(0, "")
mark("python")
import torch
mark("torch")
import datasets, train
from clip.transformer import VisionTransformer
from trainers.base import ClipTrainer
mark("other imports")

def observed(method):
    def run(*args, **kwargs):
        mark("begin")
        method(*args, **kwargs)
        mark("first step")
        import json
        with open(sys.argv[1], "w") as file:
            json.dump(marks, file)
        os._exit(0)
    return run

def after_data(build_model):
    def run(trainer):
        mark("data")
        build_model(trainer)
    return run

if "--eval-only" in sys.argv:
    VisionTransformer.encode = observed(VisionTransformer.encode)  # of the first batch
else:
    ClipTrainer.forward_backward = observed(ClipTrainer.forward_backward)
ClipTrainer.build_model = after_data(ClipTrainer.build_model)
sys.stdout = Output()
train.main(sys.argv[2:])
"""


def timed(checkout: Path, command: Sequence[str]) -> dict[str, Any]:
    """CPU seconds of each phase, and their sum; seconds on the clock.

    Raises:
        RuntimeError: the command ended before its first step.
    """
    with tempfile.TemporaryDirectory() as folder:
        result, output = Path(folder) / "marks.json", ["--output-dir", f"{folder}/output"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "FEATURES": f"{folder}/features"}
        start = time.time()
        done = subprocess.run(
            [sys.executable, "-c", TIMED, str(result), *output, *command, *SETTINGS],
            cwd=checkout,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        if not result.is_file():
            raise RuntimeError(f"{' '.join(command)} ended before its first step in {checkout}:\n{done.stderr[-2000:]}")
        marks = json.loads(result.read_text())
    ends = {phase: cpu for phase, cpu, _ in marks}
    phases, before = {}, 0.0
    for phase in PHASES:
        phases[phase], before = ends[phase] - before, ends[phase]
    return {"phases": phases, "cpu_seconds": before, "seconds": marks[-1][2] - start}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements as plain values."""
    sides = {"here": HERE} | ({"against": args.against.resolve()} if args.against else {})
    found: dict[str, dict[str, list[dict[str, Any]]]] = {name: {side: [] for side in sides} for name in COMMANDS}
    for name, command in COMMANDS.items():
        say(name)
        for number in range(args.repeats + 1):
            for side, checkout in sides.items():
                measured = timed(checkout, command)
                if number:  # the first reads files that are not in memory yet, and compiles Python's modules
                    found[name][side].append(measured)
    return {"device": processor_name(), "repeats": args.repeats, **found}


def median(runs: Sequence[dict[str, Any]], *keys: str) -> float:
    """The median of a value that each run has under these keys."""
    values = []
    for value in runs:
        for key in keys:
            value = value[key]
        values.append(float(value))  # type: ignore[arg-type]
    return statistics.median(values)


def report(result: dict[str, Any]) -> str:
    """A table of CPU seconds for each command."""
    lines = [f"{result['device']}, median CPU seconds of {result['repeats']} processes with one thread"]
    for name in COMMANDS:
        sides = result[name]
        rows = [[phase, *(f"{median(runs, 'phases', phase):.2f}" for runs in sides.values())] for phase in PHASES]
        rows.append(["in sum", *(f"{median(runs, 'cpu_seconds'):.2f}" for runs in sides.values())])
        rows.append(["on the clock", *(f"{median(runs, 'seconds'):.2f}" for runs in sides.values())])
        lines += ["", tabulate(rows, [name, *sides], disable_numparse=True)]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = base_parser(__doc__)
    parser.add_argument("--against", type=Path, help="another checkout of the project")
    args = parser.parse_args(argv)
    result = run(args)
    print(report(result))
    if args.json:
        write_json(result, args.json)


if __name__ == "__main__":
    main()
