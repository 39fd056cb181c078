"""How long it takes to list and to check own images in class folders.

    python -m benchmarks.listing --against ../other_checkout

makes a tree of class folders in a temporary folder (hard links to tiny files) and times `ImageFolder` and `check` on it
in a new process each time. With `--against`, the two checkouts take turns, so that both see the same machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parents[1]
# Runs in either checkout: seconds for the dataset, and for `python -m datasets check` on it.
TIMED = """
import contextlib, io, json, sys, time
from pathlib import Path
import datasets
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from datasets.tool.check import check

root, cfg = Path(sys.argv[1]), get_cfg_default()
cfg.DATASET.NAME, cfg.DATASET.ROOT = "ImageFolder", str(root)

def seconds(work):
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

print(json.dumps({
    "list": seconds(lambda: DATASET_REGISTRY.get("ImageFolder")(cfg)),
    "check": seconds(lambda: check("ImageFolder", root)),
}))
"""


def make_tree(root: Path, folders: int, files: int) -> None:
    """``files`` images, hard links to one of them, in each of ``folders`` class folders."""
    for number in range(folders):
        folder = root / f"class_{number:04d}"
        folder.mkdir()
        first = folder / "image_0000.png"
        Image.new("RGB", (2, 2)).save(first)
        for image in range(1, files):
            os.link(first, folder / f"image_{image:04d}.png")


def timed(checkout: Path, root: Path) -> dict[str, float]:
    """Seconds that each of the two steps takes in a new process of a checkout."""
    command = [sys.executable, "-c", TIMED, str(root)]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.listing", description=__doc__)
    parser.add_argument("--folders", type=int, default=1000, help="class folders (1000)")
    parser.add_argument("--files", type=int, default=100, help="images in each (100)")
    parser.add_argument("--rounds", type=int, default=7, help="processes of each side (7)")
    parser.add_argument("--against", type=Path, help="another checkout of the project")
    args = parser.parse_args(argv)
    sides = {"here": HERE} | ({"against": args.against.resolve()} if args.against else {})
    times: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        make_tree(Path(folder), args.folders, args.files)
        for _ in range(args.rounds):
            for side, checkout in sides.items():
                times[side].append(timed(checkout, Path(folder)))
    print(f"{args.folders:,} folders with {args.folders * args.files:,} files, median of {args.rounds} processes:")
    for step in ("list", "check"):
        medians = {side: statistics.median(run[step] for run in runs) for side, runs in times.items()}
        ratio = f"  ({medians['here'] / medians['against'] - 1:+.1%})" if args.against else ""
        print(f"  {step:5}  " + "  ".join(f"{side} {value:.3f} s" for side, value in medians.items()) + ratio)


if __name__ == "__main__":
    main()
