"""How long `python -m experiments` takes for thousands of runs, and what it adds to each job.

    python -m benchmarks.experiments --json experiments.json

makes about 5,000 folders of finished runs with the files of real ones (no run is trained) and times the commands
`status` and `report` on them, each as a new process. Then it runs a plan of 400 jobs with the local launcher, where a
shell takes the place of train.py: the time per job is what starting, watching and recording it costs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

import train
from dassl.config.saved import saved_settings
from experiments.plans import jobs, read_plan
from experiments.protocols import Job
from experiments.runs import ROOT, read_settings

from .timing import base_parser, processor_name, run_and_report

METHODS = ["zsclip", "coop", "cocoop", "vpt", "language-prompting", "independent-vlp", "maple"]
DATASETS = ["imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft"]
DATASETS += ["sun397", "dtd", "eurosat", "ucf101"]
EPOCHS = 5  # rows of history.jsonl
# Runs a plan in which each job is a shell that writes a result; argv: plan, output, jobs at a time
DRIVEN = """
import json, sys, time
from experiments import plans
from experiments.launch import drive
from experiments.local import Local
from experiments.protocols import Job

Job.command = lambda job, python: ["/bin/sh", "-c", 'echo "$0" > "$1"', RESULT, f"{job.path}/results.json"]
RESULT = '{"accuracy": 50.0, "epoch": null, "complete": true}'
jobs = plans.jobs(plans.read_plan(sys.argv[1]), output=sys.argv[2])
start, computed = time.perf_counter(), time.process_time()
outcome = drive(jobs, Local(int(sys.argv[3]), []))
assert len(outcome.finished) == len(jobs), outcome
seconds, computed = time.perf_counter() - start, time.process_time() - computed
print(json.dumps({"jobs": len(jobs), "seconds": seconds, "cpu_seconds": computed}))
"""


def write_plan(path: Path, **content: Any) -> Path:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


# ---- run folders -----------------------------------------------------------------------------------------------


def make_runs(wanted: Sequence[Job]) -> None:
    """The folders of finished runs of these jobs, with the files that a real one has, checkpoints apart."""
    drawn = random.Random(1)
    configs: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    for job in wanted:
        kind = (job.run.trainer, job.run.config)
        if kind not in configs:
            text = train.setup_cfg(train.parse_args(job.command("python")[2:])).dump()
            configs[kind] = text, saved_settings(text, "the configuration")
        text, settings = configs[kind]
        own = _own_settings(job)
        for key, value in own.items():
            text = re.sub(rf"^( *{key.rpartition('.')[2]}:) .*$", rf"\1 {value}", text, count=1, flags=re.MULTILINE)
        results = _results(job, drawn.uniform(30, 95), {**settings, **own})
        rows = [{"epoch": e, "losses": {"loss": 1 / e}, "lr": 0.002, "seconds": 60.0} for e in range(1, EPOCHS + 1)]
        record = {"host": "node", "process": 1, "command": "python train.py", "status": 0}
        files = {
            "config.yaml": text,
            "results.json": json.dumps(results, indent=4),
            "history.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
            "job.log": "epoch [1/5]\n" * 200 + "done\n",
            "job.json": json.dumps(record),
        }
        job.path.mkdir(parents=True)
        for name, content in files.items():
            (job.path / name).write_text(content, encoding="utf-8")


def _own_settings(job: Job) -> dict[str, Any]:
    """The settings that differ between jobs of one config."""
    return {
        "DATASET.NAME": read_settings(ROOT / f"configs/datasets/{job.run.dataset}.yaml")["DATASET.NAME"],
        "DATASET.NUM_SHOTS": job.run.shots or -1,
        "DATASET.SUBSAMPLE_CLASSES": dict(zip(job.options[::2], job.options[1::2], strict=True)).get(
            "DATASET.SUBSAMPLE_CLASSES", "all"
        ),
        "OUTPUT_DIR": job.folder,
        "PROTOCOL": "zero_shot" if job.run.stage == "zero_shot" else "",
        "SEED": job.run.seed or -1,
    }


def _results(job: Job, accuracy: float, settings: dict[str, Any]) -> dict[str, Any]:
    """The content of results.json; docs/OUTPUTS.md describes it."""
    return {
        "protocol": job.run.protocol,
        "dataset": settings["DATASET.NAME"],
        "classes": settings["DATASET.SUBSAMPLE_CLASSES"],
        "split": "test",
        "trainer": job.run.trainer,
        "config": job.run.config,
        "backbone": settings["MODEL.BACKBONE.NAME"],
        "seed": job.run.seed,
        "shots": job.run.shots,
        "precision": "fp16",
        "epoch": job.epoch() or settings["OPTIM.MAX_EPOCH"],
        "correct": round(accuracy * 10),
        "total": 1000,
        "accuracy": accuracy,
        "macro_f1": accuracy - 1,
        "top5_accuracy": min(100.0, accuracy + 5),
        "notes": [],
        "unreadable_images": {"train": 0, "val": 0, "test": 0},
        "learned_parameters": 3555072,
        "total_parameters": 124000000,
        "seconds": {"train": 300.0, "test": 20.0},
        "peak_memory_bytes": 2**31,
        "device": "cpu (2 threads)",
        "versions": {"python": "3.12.0", "torch": "2.13.0", "numpy": "2.3.0", "platform": "Linux"},
        "settings": settings,
        "complete": True,
    }


# ---- measurements ----------------------------------------------------------------------------------------------


def timed(command: Sequence[str], repeats: int) -> dict[str, Any]:
    """Seconds of `python -m experiments COMMAND`, a new process each time, and those that it computed."""
    runs = []
    for _ in range(repeats):
        start, before = time.perf_counter(), os.times()
        subprocess.run([sys.executable, "-m", "experiments", *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        computed = after.children_user + after.children_system - before.children_user - before.children_system
        runs.append({"seconds": time.perf_counter() - start, "cpu_seconds": computed})
    return {key: statistics.median(each[key] for each in runs) for key in runs[0]} | {"all": runs}


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements as plain values."""
    with tempfile.TemporaryDirectory() as folder:
        return _measure(args, Path(folder))


def _measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    cells = {"datasets": DATASETS, "seeds": list(range(1, args.seeds + 1))}
    finished = write_plan(folder / "finished.yaml", protocols=["base2new", "few_shot"], methods=METHODS, **cells)
    output = str(folder / "runs")
    runs = jobs(read_plan(str(finished)), output=output)
    make_runs(runs)
    result: dict[str, Any] = {
        "settings": {key: value for key, value in vars(args).items() if key != "json"},
        "device": processor_name(),
        "load": os.getloadavg(),
        "runs": len(runs),
        "status": timed(["status", str(finished), "--output", output], args.repeats),
    }
    if importlib.util.find_spec("experiments.report"):
        result["report"] = timed(["report", output], args.repeats)
    seeds = -(-args.jobs // len(DATASETS))
    cells["seeds"] = list(range(1, seeds + 1))
    trivial = write_plan(folder / "trivial.yaml", protocols=["few_shot"], methods=["maple"], **cells)
    command = [sys.executable, "-c", DRIVEN, str(trivial), str(folder / "jobs"), str(args.at_once)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return {**result, "run": json.loads(done.stdout)}


def report(result: dict[str, Any]) -> str:
    lines = [f"{result['device']}, {os.cpu_count()} cores, load {result['load'][0]:.1f}"]
    for command in ("status", "report"):
        if found := result.get(command):
            times = f"{found['seconds']:.2f} s ({found['cpu_seconds']:.2f} s of computing)"
            lines.append(f"{command} of {result['runs']:,} runs: {times}")
    found = result["run"]
    each, computed = (1e3 * found[key] / found["jobs"] for key in ("seconds", "cpu_seconds"))
    lines.append(f"run of {found['jobs']} trivial jobs: {each:.0f} ms each ({computed:.0f} ms of computing)")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = base_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=25, help="seeds of the finished runs, about 200 runs each (25)")
    parser.add_argument("--jobs", type=int, default=400, help="trivial jobs, at least (400)")
    parser.add_argument("--at-once", type=int, default=2, help="of these at a time (2)")
    run_and_report(parser.parse_args(argv), run, report)


if __name__ == "__main__":
    main()
