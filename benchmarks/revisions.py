"""Two checkouts of the project: does a change make start-up, a training epoch, a test or a shell entry slower?

The commands run in both checkouts in turn, with the same interpreter, on the demonstration. Of each, the smallest
number is compared: everything else that a machine does only adds to it.

    git worktree add ../before main
    python -m benchmarks.revisions ../before --json revisions.json
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dassl.utils import write_json

from .timing import base_parser, circumstances, say

HERE = Path(__file__).resolve().parents[1]
TRAIN = (
    *("train.py", "--trainer", "MaPLe", "--seed", "1"),
    *("--dataset-config-file", "configs/datasets/emoji.yaml"),
    *("--config-file", "configs/trainers/MaPLe/vit_micro.yaml"),
)
SETTINGS = ("DATASET.NUM_SHOTS", "16", "DATASET.SUBSAMPLE_CLASSES", "base", "OPTIM.MAX_EPOCH", "3")
NO_WORKERS = ("DATALOADER.NUM_WORKERS", "0")


def seconds_of(checkout: Path, *command: str, **environment: str) -> float:
    """Seconds of a command in a checkout.

    Raises:
        RuntimeError: it failed; the message ends with what it printed.
    """
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=checkout,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed in {checkout}:\n{done.stdout[-2000:]}")
    return seconds


def start(checkout: Path, folder: Path) -> dict[str, float]:
    """From the command to a trainer that is ready."""
    return {
        "start-up": seconds_of(checkout, sys.executable, *TRAIN, "--output-dir", str(folder), "--no-train", *SETTINGS)
    }


def train(checkout: Path, folder: Path) -> dict[str, float]:
    """A run with its checkpoints and resume states: the second half of its epochs, all of it, and its test."""
    whole = seconds_of(checkout, sys.executable, *TRAIN, "--output-dir", str(folder), *SETTINGS, *NO_WORKERS)
    epochs = [json.loads(line)["seconds"] for line in (folder / "history.jsonl").read_text("utf-8").splitlines()]
    results = json.loads((folder / "results.json").read_text("utf-8"))
    return {"training epoch": min(epochs[1:]), "test": results["seconds"]["test"], "whole run": whole}


def entry(checkout: Path, folder: Path) -> dict[str, float]:
    """A shell entry up to the command that it would run."""
    script = ("bash", "scripts/maple/base2new_train.sh", "emoji", "1")
    return {"shell entry": seconds_of(checkout, *script, DRY_RUN="1", OUTPUT=str(folder), PYTHON=sys.executable)}


TASKS: tuple[Callable[[Path, Path], dict[str, float]], ...] = (start, train, entry)


def compare(other: Path, repeats: int) -> dict[str, Any]:
    """Seconds of every task on both sides, in turn, in alternating order; the ratio of the smallest ones."""
    sides = {"here": HERE, "other": other.resolve()}
    seconds: dict[str, dict[str, list[float]]] = {}
    for repeat in range(repeats):
        for task in TASKS:
            for side in sorted(sides, reverse=bool(repeat % 2)):
                say(f"{task.__name__}, {side}, {repeat + 1} of {repeats}")
                with tempfile.TemporaryDirectory() as folder:
                    for name, value in task(sides[side], Path(folder) / "run").items():
                        seconds.setdefault(name, {}).setdefault(side, []).append(value)
    return {
        name: {
            **{side: {"seconds": min(values), "all_seconds": values} for side, values in both.items()},
            "ratio": min(both["here"]) / min(both["other"]),
            "ratio_of_medians": statistics.median(both["here"]) / statistics.median(both["other"]),
        }
        for name, both in seconds.items()
    }


def main(argv: list[str] | None = None) -> None:
    parser = base_parser(__doc__)
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.set_defaults(repeats=5)
    args: Namespace = parser.parse_args(argv)
    if not (args.other / "train.py").is_file():
        parser.error(f"{args.other} is no checkout of this project: it has no train.py")
    args.other = str(args.other)
    measured = compare(Path(args.other), args.repeats)
    for name, value in measured.items():
        print(
            f"{name:15s} here {value['here']['seconds']:7.3f} s, other {value['other']['seconds']:7.3f} s, "
            f"ratio {value['ratio']:.3f} (of the medians {value['ratio_of_medians']:.3f})"
        )
    if args.json:
        write_json({**circumstances(args, torch.device("cpu")), "seconds": measured}, args.json)


if __name__ == "__main__":
    main()
