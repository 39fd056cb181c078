"""The content of results.json."""

import json
import platform
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from dassl.config import config_name, setting
from dassl.config.saved import saved_settings
from dassl.engine.record import RunRecord
from dassl.utils.device import device_name, peak_memory_bytes

__all__ = ["collect_results", "count_parameters"]


def collect_results(
    cfg: Any,
    record: RunRecord,
    classnames: Iterable[str],
    modules: Iterable[Any],
    device: torch.device,
    *,
    epoch: int | None,
    precision: str | None,
    evaluation: dict[str, Any] | None,
    notes: list[str],
    chosen: dict[str, Any],
    unreadable: dict[str, int],
) -> dict[str, Any]:
    """The content of results.json after a test, whose fields docs/OUTPUTS.md describes.

    Args:
        classnames: in the order of the labels.
        modules: all models of the run; they may share parameters.
        epoch: the epoch whose weights were tested, None if nothing was trained.
        precision: what the model computed in; by default what the trainer's config node asks for.
        evaluation: the evaluator's report, if it makes one.
        notes: sentences that a reader of the result should know.
        chosen: what the method chose by itself.
        unreadable: images by split that were skipped because they cannot be read.
    """
    evaluation = evaluation or {}
    node = cfg.TRAINER.get(cfg.TRAINER.NAME.upper(), {})
    return {
        "protocol": setting(cfg, "PROTOCOL") or _protocol(cfg),
        "dataset": cfg.DATASET.NAME,
        "classes": setting(cfg, "DATASET.SUBSAMPLE_CLASSES"),
        "classnames": [str(name) for name in classnames],
        "split": record.split,
        "trainer": cfg.TRAINER.NAME,
        "config": config_name(cfg),
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "seed": cfg.SEED,
        "shots": cfg.DATASET.NUM_SHOTS,
        "precision": precision or node.get("PREC"),
        "epoch": epoch,
        "steps": sum(row.get("steps", 0) for row in record.history) or None,
        "correct": evaluation.get("correct"),
        "total": evaluation.get("total"),
        "accuracy": None if record.result is None else float(record.result),
        "macro_f1": evaluation.get("macro_f1"),
        "top5_accuracy": evaluation.get("top5_accuracy"),
        **({"per_class": evaluation["per_class"]} if "per_class" in evaluation else {}),
        "notes": notes,
        "chosen": chosen,
        "unreadable_images": unreadable,
        **count_parameters(modules),
        "image_features": record.image_features,
        "seconds": {"train": record.train_seconds, "test": record.test_seconds},
        "peak_memory_bytes": peak_memory_bytes(device),
        "device": device_name(device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "platform": platform.platform(),
        },
        "settings": _settings(record.config),
    }


def _settings(config: str | None) -> dict[str, Any] | None:
    """The leaves of config.yaml, which is slow to read; None if JSON cannot hold them unchanged."""
    try:
        settings = saved_settings(config or "", "config.yaml")
        return settings if json.loads(json.dumps(settings)) == settings else None
    except (ValueError, TypeError):
        return None


def _protocol(cfg: Any) -> str:
    if setting(cfg, "DATASET.SUBSAMPLE_CLASSES") in ("base", "new"):
        return "base2new"
    return "few_shot" if cfg.DATASET.NUM_SHOTS > 0 else "all_classes"


def count_parameters(modules: Iterable[Any]) -> dict[str, int]:
    """Numbers of learned and of all scalars, each parameter counted once."""
    parameters = {id(p): p for module in modules if isinstance(module, nn.Module) for p in module.parameters()}
    return {
        "learned_parameters": sum(p.numel() for p in parameters.values() if p.requires_grad),
        "total_parameters": sum(p.numel() for p in parameters.values()),
    }
