"""How many images per second are loaded: decoded each time or cached, for training and testing.

    python -m benchmarks.loading --images 128 --size 500x375 --json loading.json
    python -m benchmarks.loading --images 4096 --workers 8,16 --json loading.json

JPEGs in a temporary folder are loaded by the project's DataManager with the published transforms, batch sizes and
normalisation (MaPLe's configuration), with PyTorch on one thread; then the same with worker processes. Also measures
the stages of loading an image, and what PIL's draft mode would save and change, at --size and at twice that.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import PIL
import torch
import torchvision.transforms as T
from PIL import features
from tabulate import tabulate

import datasets  # noqa: F401  (registers the datasets)
from dassl.config import merge_file, merge_options
from dassl.data import DataManager
from dassl.data.loader import Loader
from dassl.utils import read_image
from train import default_cfg

from . import draft
from .pictures import save_class_folders
from .timing import Clock, base_parser, circumstances, listed, run_and_report

PUBLISHED = Path(__file__).resolve().parents[1] / "configs" / "trainers" / "MaPLe" / "vit_b16_c2_ep5_batch4_2ctx.yaml"
DISTINCT = 128  # pictures; more images are links to them


def build_manager(root: Path, images: int, num_workers: int, cache_mb: int) -> DataManager:
    """The published loaders over the images in `root`. Only few-shot training is cached, so every image is a shot."""
    cfg = default_cfg()
    merge_file(cfg, PUBLISHED)
    options = {
        "DATASET.NAME": "ImageFolder",
        "DATASET.ROOT": root,
        "DATASET.NUM_SHOTS": images,
        "DATALOADER.NUM_WORKERS": num_workers,
        "DATALOADER.CACHE_MB": cache_mb,
        "USE_CUDA": False,
        "VERBOSE": False,
        "SEED": 1,
    }
    merge_options(cfg, [str(word) for pair in options.items() for word in pair])
    with contextlib.redirect_stdout(io.StringIO()):  # what the dataset prints
        return DataManager(cfg)


def load_all(loader: Loader) -> int:
    """One pass; returns the number of images."""
    return sum(len(batch["img"]) for batch in loader)


def throughput(loader: Loader, repeats: int) -> dict[str, Any]:
    """Images per second in a first pass, which starts workers and fills the cache, and in later ones."""
    clock = Clock(torch.device("cpu"))
    first, images = clock.measure(lambda: load_all(loader), 1)
    later, _ = clock.measure(lambda: load_all(loader), repeats)
    return {
        "images": images,
        "first_pass_per_second": images / first["seconds"],
        "per_second": images / later["seconds"],
        **later,
    }


def measure_loading(
    root: Path, images: int, cache_mb: int, repeats: int, workers: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Throughput for each kind of pass and number of workers."""
    found = {}
    for num_workers in workers:
        plain = build_manager(root, images, num_workers, cache_mb=0)
        cached = build_manager(root, images, num_workers, cache_mb=cache_mb)
        assert plain.test_loader
        loaders = {"train": plain.train_loader_x, "train, cached": cached.train_loader_x, "test": plain.test_loader}
        for name, loader in loaders.items():
            found[f"{name}, {num_workers} workers"] = throughput(loader, repeats)
    return found


def stages(transform: T.Compose) -> dict[str, Callable[[Any], Any]]:
    """The stages from a path to a tensor, in order."""
    steps = transform.transforms
    to_tensor = next(i for i, step in enumerate(steps) if isinstance(step, T.ToTensor))
    return {
        "decode": read_image,
        "crop and resize": T.Compose(steps[:to_tensor]),
        "tensor and normalize": T.Compose(steps[to_tensor:]),
    }


def time_stages(paths: Sequence[Path], transform: T.Compose, repeats: int) -> dict[str, float]:
    """Median milliseconds per image in each stage."""
    passes, steps = [], stages(transform)
    for _ in range(repeats):
        seconds = dict.fromkeys(steps, 0.0)
        for path in paths:
            x: Any = path
            for name, stage in steps.items():
                start = time.perf_counter()
                x = stage(x)
                seconds[name] += time.perf_counter() - start
        passes.append(seconds)
    return {name: 1e3 * statistics.median(p[name] for p in passes) / len(paths) for name in steps}


def transforms(manager: DataManager) -> dict[str, T.Compose]:
    assert manager.test_loader
    return {"train": manager.train_loader_x.items.transform, "test": manager.test_loader.items.transform}


def measure_draft(paths: Sequence[Path], size: tuple[int, int], manager: DataManager) -> list[dict[str, Any]]:
    """Draft mode under the test transform and under the training crop."""
    crop = transforms(manager)["train"].transforms[0]
    resize_and_crop = stages(transforms(manager)["test"])["crop and resize"]
    plans = {"train": draft.train_plan(crop), "test": draft.test_plan(resize_and_crop, crop.size[0])}
    return [
        {"transform": name, "size": "{}x{}".format(*size), **draft.measure(paths, plan)} for name, plan in plans.items()
    ]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements as plain values."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    width, height = args.size
    cache_mb = math.ceil(args.images * width * height * 3 / 2**20)
    with tempfile.TemporaryDirectory() as folder:
        root, larger = Path(folder) / "pictures", Path(folder) / "larger"
        paths = save_class_folders(root, args.images, args.size, distinct=DISTINCT)[:DISTINCT]
        twice = (2 * width, 2 * height)
        larger_paths = save_class_folders(larger, math.ceil(len(paths) / 4), twice)
        loading = measure_loading(root, args.images, cache_mb, args.repeats, args.workers)
        manager = build_manager(root, args.images, 0, 0)
        return {
            **circumstances(args, torch.device("cpu")),
            "pillow": PIL.__version__,
            "libjpeg_turbo": features.version("libjpeg_turbo"),
            "bytes_per_image": statistics.mean(path.stat().st_size for path in paths),
            "loading": loading,
            "stages_ms": {n: time_stages(paths, tfm, args.repeats) for n, tfm in transforms(manager).items()},
            "draft": [*measure_draft(paths, args.size, manager), *measure_draft(larger_paths, twice, manager)],
        }


def report(result: dict[str, Any]) -> str:
    """The result as tables."""
    rows = [
        [name, f"{m['first_pass_per_second']:.1f}", f"{m['per_second']:.1f}", f"{m['peak_bytes'] / 2**20:.0f}"]
        for name, m in result["loading"].items()
    ]
    parts = [[name, *(f"{ms:.2f}" for ms in result["stages_ms"][name].values())] for name in result["stages_ms"]]
    keys = ("size", "transform", "images", "made_smaller", "full_ms", "draft_ms")
    drafts = [[d[k] for k in (*keys, "largest_difference", "mean_difference")] for d in result["draft"]]
    draft_head = [*keys[:3], "made smaller", "full, ms", "draft, ms", "largest difference", "mean difference"]
    head = ["images per second", "first pass", "later passes", "peak of this process, MiB"]
    stage_names = list(result["stages_ms"]["train"])
    return "\n\n".join(
        [
            f"{result['bytes_per_image'] / 1024:.0f} KiB per image; Pillow {result['pillow']}, "
            f"libjpeg-turbo {result['libjpeg_turbo']}; {result['device']}",
            tabulate(rows, head, disable_numparse=True),
            tabulate(parts, ["milliseconds per image", *stage_names], disable_numparse=True),
            "Decoding as a draft; differences in levels of 255, over the images that it made smaller\n"
            + tabulate(drafts, draft_head, floatfmt=".2f", missingval="-"),
        ]
    )


def width_and_height(text: str) -> tuple[int, int]:
    try:
        width, height = (int(edge) for edge in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"is {text!r}, expected WIDTHxHEIGHT such as 500x375") from None
    return width, height


def main(argv: Sequence[str] | None = None) -> None:
    parser = base_parser(__doc__)
    parser.add_argument("--images", type=int, default=128, help="number of images to make and load")
    parser.add_argument("--size", type=width_and_height, default=(500, 375), help="their WIDTHxHEIGHT in pixels")
    parser.add_argument("--workers", type=listed(int), default="0,2", help="numbers of worker processes")
    run_and_report(parser.parse_args(argv), run, report)


if __name__ == "__main__":
    main()
