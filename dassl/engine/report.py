"""What a run leaves beside its checkpoints: results.json and history.jsonl."""

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dassl.config import config_name
from dassl.utils.tools import atomic_write

__all__ = ["collect_results", "peak_memory_bytes", "write_history"]


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory this process has held: allocated on the GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def write_history(path: str | Path, history: Sequence[Mapping[str, Any]]) -> None:
    """One JSON line an epoch. The whole file is written anew, so that a resumed run repeats no line."""
    with atomic_write(path, "w") as file:
        for row in history:
            file.write(json.dumps(row) + "\n")


def collect_results(trainer: Any) -> dict[str, Any]:
    """The content of results.json from a trainer that has been tested.

    Accuracy and macro F1 are percentages in full precision, None without a test; times are in seconds.
    """
    cfg = trainer.cfg
    report = getattr(trainer.evaluator, "report", None) or {}
    accuracy = trainer._last_result
    return {
        "protocol": cfg.PROTOCOL or _protocol(cfg),
        "dataset": cfg.DATASET.NAME,
        "classes": cfg.DATASET.SUBSAMPLE_CLASSES,
        "split": trainer._last_split,
        "trainer": cfg.TRAINER.NAME,
        "config": config_name(cfg),
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "seed": cfg.SEED,
        "shots": cfg.DATASET.NUM_SHOTS,
        "precision": _precision(trainer),
        "epoch": _tested_epoch(trainer),
        "correct": report.get("correct"),
        "total": report.get("total"),
        "accuracy": None if accuracy is None else float(accuracy),
        "macro_f1": report.get("macro_f1"),
        **({"per_class": report["per_class"]} if "per_class" in report else {}),
        **_count_parameters(trainer),
        "seconds": {"train": sum(row["seconds"] for row in trainer.history), "test": trainer._test_seconds},
        "peak_memory_bytes": peak_memory_bytes(trainer.device),
        "device": _device_name(trainer.device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "platform": platform.platform(),
        },
    }


def _tested_epoch(trainer: Any) -> int | None:
    """The epoch of a loaded checkpoint (the best one of a training), else the last epoch trained here."""
    if trainer.loaded_epoch is not None:
        return trainer.loaded_epoch
    if trainer.history:
        return trainer.history[-1]["epoch"]
    return trainer.epoch + 1 if hasattr(trainer, "time_start") else None  # trained by a loop of its own, or not


def _precision(trainer: Any) -> str | None:
    """What the towers computed in, where the trainer tells; else what its config node asks for."""
    computed = getattr(getattr(trainer, "precision", None), "name", None)
    return computed or trainer.cfg.TRAINER.get(trainer.cfg.TRAINER.NAME.upper(), {}).get("PREC")


def _protocol(cfg: Any) -> str:
    if cfg.DATASET.SUBSAMPLE_CLASSES in ("base", "new"):
        return "base2new"
    return "few_shot" if cfg.DATASET.NUM_SHOTS > 0 else "all_classes"


def _count_parameters(trainer: Any) -> dict[str, int]:
    """Scalars learned and in all, of the registered models and of ``trainer.model``, each parameter once."""
    modules = [*trainer._models.values(), getattr(trainer, "model", None)]
    parameters = {id(p): p for module in modules if isinstance(module, nn.Module) for p in module.parameters()}
    return {
        "learned_parameters": sum(p.numel() for p in parameters.values() if p.requires_grad),
        "total_parameters": sum(p.numel() for p in parameters.values()),
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({torch.get_num_threads()} threads)"
