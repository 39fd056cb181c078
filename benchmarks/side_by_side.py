"""Runs per hour where several trainings of MaPLe share one GPU, or the cores of a CPU.

    python -m benchmarks.side_by_side --runs 1 2 4 8 --json side_by_side.json
    python -m benchmarks.side_by_side --backbone ViT-B/16 --classes 50 --steps 1000 --prec fp16      (on a GPU)

Each run is a process that starts, trains for `--steps` steps and tests `--test-batches` batches of 100 images, with the
published settings and random weights and images: reading JPEGs is left out. On a CPU, the runs share the cores
(OMP_NUM_THREADS). If a number of runs does not fit into the memory, larger numbers are not tried.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from dassl.utils.cpu import cores
from dassl.utils.device import device_named, peak_memory_bytes
from trainers.without_data import dataset_without_images, trainer_without_data

from .models import ARCHITECTURES, class_names, random_clip
from .step import published_cfg
from .timing import circumstances, model_parser, run_and_report, say

TEST_BATCH = 100
HERE = Path(__file__).resolve().parents[1]


def one_run(args: argparse.Namespace) -> dict[str, Any]:
    """Train and test in this process: seconds of the steps and of the test, and the peak memory."""
    layers = ARCHITECTURES[args.backbone][2]
    cfg = published_cfg(args)
    cfg.TRAINER.MAPLE.PROMPT_DEPTH = min(cfg.TRAINER.MAPLE.PROMPT_DEPTH, layers)
    cfg.DEVICE = args.device
    torch.manual_seed(0)
    dataset = dataset_without_images("ImageNet", class_names(args.classes))
    trainer = trainer_without_data(cfg, dataset, random_clip(args.backbone))
    side = ARCHITECTURES[args.backbone][1]
    trainer.num_batches = args.steps
    trainer.set_model_mode("train")
    batch = {"img": torch.randn(args.batch, 3, side, side), "label": torch.arange(args.batch) % args.classes}
    start = time.perf_counter()
    for trainer.batch_idx in range(args.steps):
        trainer.forward_backward(batch)
    trained = time.perf_counter()
    trainer.set_model_mode("eval")
    images = torch.randn(TEST_BATCH, 3, side, side)
    with torch.no_grad():
        for _ in range(args.test_batches):
            trainer.model_inference(images.to(trainer.device)).argmax(1).cpu()
    tested = time.perf_counter()
    peak = peak_memory_bytes(trainer.device)
    return {"training_seconds": trained - start, "test_seconds": tested - trained, "peak_bytes": peak}


def side_by_side(args: argparse.Namespace, runs: int) -> dict[str, Any]:
    """Start `runs` processes at once, and wait for all."""
    threads = max(1, cores() // runs)
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if args.device == "cpu" else {})
    words = [f"--{name}={getattr(args, name)}" for name in ("steps", "classes", "batch", "backbone", "prec", "device")]
    words += [f"--test-batches={args.test_batches}", "--one-run"]
    command = [sys.executable, "-m", "benchmarks.side_by_side", *words]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    start = time.perf_counter()
    processes = [subprocess.Popen(command, cwd=HERE, env=environment, **pipes) for _ in range(runs)]
    ended = [process.communicate() for process in processes]
    seconds = time.perf_counter() - start
    for process, (_, errors) in zip(processes, ended, strict=True):
        if process.returncode:
            return {"runs": runs, "failed": errors.strip().splitlines()[-1] if errors.strip() else process.returncode}
    single = [json.loads(output.splitlines()[-1]) for output, _ in ended]
    found = {"runs": runs, "seconds": seconds, "runs_per_hour": 3600 * runs / seconds, "single": single}
    return found | ({"threads": threads} if args.device == "cpu" else {})


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements as plain values."""
    result: dict[str, Any] = {**circumstances(args, torch.device(args.device)), "cores": cores(), "measured": []}
    for runs in args.runs:
        say(f"{runs} at once")
        result["measured"].append(side_by_side(args, runs))
        if "failed" in result["measured"][-1]:
            break
    return result


def report(result: dict[str, Any]) -> str:
    """One row for each number of runs."""
    settings, rows = result["settings"], []
    for found in result["measured"]:
        if "failed" in found:
            rows.append([found["runs"], f"failed: {found['failed']}"])
            continue
        step = max(run["training_seconds"] for run in found["single"]) / settings["steps"]
        peak = max(run["peak_bytes"] for run in found["single"]) / 2**30
        words = [f"{found['seconds']:.1f}", f"{found['runs_per_hour']:.0f}", f"{1000 * step:.1f}", f"{peak:.2f}"]
        rows.append([found["runs"], found.get("threads", "-"), *words])
    head = ["at once", "threads each", "seconds", "runs per hour", "ms per step", "GiB each"]
    shape = f"MaPLe, {settings['backbone']}, {settings['classes']} classes, {settings['steps']} steps of "
    shape += f"{settings['batch']} images, {settings['prec']}, {result['device']}, {result['cores']} cores"
    return f"{shape}\n{tabulate(rows, head, disable_numparse=True)}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = model_parser(__doc__)
    on_gpu = torch.cuda.is_available()
    parser.set_defaults(backbone="ViT-B/16" if on_gpu else "ViT-Micro/8", classes=50 if on_gpu else 20)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of runs at once")
    parser.add_argument("--steps", type=int, default=1000 if on_gpu else 80, help="training steps of a run")
    parser.add_argument("--test-batches", type=int, default=5, help=f"batches of {TEST_BATCH} images in a run's test")
    parser.add_argument("--one-run", action="store_true", help=argparse.SUPPRESS)  # what side_by_side starts
    args = parser.parse_args(argv)
    args.method, args.options, args.device = "MaPLe", [], str(device_named(args.device))
    if args.one_run:
        print(json.dumps(one_run(args)))
    else:
        run_and_report(args, run, report)


if __name__ == "__main__":
    main()
