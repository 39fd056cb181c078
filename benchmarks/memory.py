"""Memory of the main process and of its data loader's workers over the epochs of a few-shot training set (Linux).

    python -m benchmarks.memory --epochs 200 --workers 2 --images 640 --json memory.json

Only the data are loaded, by the project's DataManager with MaPLe's published transforms, on pictures in a temporary
folder. Per process, in MiB: resident (RSS), resident with each shared page divided among those who share it (PSS),
and the pages that it shares with nobody. A worker's RSS grows while the cache of decoded images fills, in the first
epoch, although that memory exists once; PSS and private memory show what the run really takes.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from .loading import build_manager, load_all
from .pictures import save_class_folders
from .timing import base_parser, circumstances, run_and_report


def memory(pid: int) -> dict[str, float]:
    """``rss``, ``pss``, ``private`` of a process in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    kib = {name: int(size) for name, size in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    return {"rss": kib["Rss"] / 1024, "pss": kib["Pss"] / 1024, "private": private / 1024}


def measure(root: Path, images: int, workers: int, cache_mb: int, epochs: int, every: int) -> list[dict[str, Any]]:
    """The memory of every process at the end of the first and of every ``every``-th epoch."""
    loader = build_manager(root, images, workers, cache_mb).train_loader_x
    rows: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        load_all(loader)
        if epoch == 1 or epoch % every == 0:
            pids = [os.getpid(), *(worker.pid for worker in getattr(loader._iterator, "_workers", ()))]
            rows += [{"epoch": epoch, "process": number, **memory(pid)} for number, pid in enumerate(pids)]
    return rows


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements as plain values; process 0 is the main one."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        save_class_folders(Path(folder), args.images, (args.edge, args.edge))
        rows = measure(Path(folder), args.images, args.workers, args.cache_mb, args.epochs, args.every)
    return {**circumstances(args, torch.device("cpu")), "memory_mib": rows}


def report(result: dict[str, Any]) -> str:
    """A row per epoch: RSS, PSS and private memory of every process."""
    table: dict[int, list[str]] = {}
    for row in result["memory_mib"]:
        cell = "{rss:.0f} / {pss:.0f} / {private:.0f}".format(**row)
        table.setdefault(row["epoch"], [str(row["epoch"])]).append(cell)
    workers = max(len(row) for row in table.values()) - 2
    head = ["epoch", "main: RSS / PSS / private", *(f"worker {number + 1}" for number in range(workers))]
    return tabulate(list(table.values()), head, disable_numparse=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = base_parser(__doc__)
    parser.add_argument("--images", type=int, default=640, help="number of images")
    parser.add_argument("--edge", type=int, default=128, help="their width and height in pixels")
    parser.add_argument("--workers", type=int, default=2, help="worker processes")
    parser.add_argument("--cache-mb", type=int, default=100, help="cache of decoded images in MiB, 0 for none")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--every", type=int, default=20, help="epochs between two measurements")
    run_and_report(parser.parse_args(argv), run, report)


if __name__ == "__main__":
    main()
