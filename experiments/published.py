"""The published numbers of the methods, and which of them a run compares with.

``published.csv`` has a row for each number, a percentage, with its source. Datasets have the names of their YAML
files; ``Average`` is the mean over the targets of the protocol (all 11 datasets of base-to-new and few-shot, 10 without
ImageNet in cross-dataset transfer, the 4 ImageNet variants in domain generalization), and its harmonic mean is that of
the averaged accuracies. ``shots`` is 0 for a method that learns nothing, whose numbers hold for any number of shots.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

from experiments.methods import METHODS, Protocol
from experiments.runs import ROOT, Run, read_settings

__all__ = ["Published", "published_method", "published_number", "published_value"]

FILE = Path(__file__).with_name("published.csv")
CLASSES = {"train_base": "base", "test_base": "base", "test_new": "new"}  # stage -> metric of base-to-new
BACKBONE = "ViT-B/16"  # of the published tables, where nothing else is said


@dataclass(frozen=True)
class Published:
    """A published number, in percent, and where it is published."""

    value: float
    source: str


def published_number(run: Run, metric: str = "accuracy") -> Published | None:
    """The published number that the result of ``run`` compares with; None if there is none.

    Args:
        run: of any stage. The run of a training on all of ImageNet compares with the source of a transfer.
        metric: ``accuracy``, or for base-to-new ``harmonic_mean``; accuracy there is that on the classes tested.
    """
    if run.protocol == "base2new" and metric == "accuracy":
        if run.stage not in CLASSES:
            return None
        metric = CLASSES[run.stage]
    for protocol in _tables(run):
        if method := published_method(run, protocol):
            backbone = _backbone(run.trainer, run.config)
            if found := published_value(protocol, method, run.dataset, metric, run.shots, backbone):
                return found
    return None


def published_method(run: Run, protocol: str) -> str | None:
    """The name in ``published.csv`` of the method of ``run``; None if its settings are not the published ones.

    They are where the config is that of ``protocol`` and the run has no variant, which would be other settings.

    Args:
        protocol: the table that the run is in: a transfer also has a row for its source, and zero-shot results.
    """
    if run.variant or (run.stage == "evaluation" and run.source != "imagenet"):
        return None
    transfer = protocol in ("cross_dataset", "domain_generalization")
    trained_on = "imagenet" if transfer else run.dataset
    kind = cast(Protocol, "cross_dataset" if transfer else protocol)
    return next(
        (
            method.published
            for method in METHODS.values()
            if method.published
            and method.trainer == run.trainer
            and run.config in method.published_configs(kind, trained_on, run.shots)
        ),
        None,
    )


def published_value(
    protocol: str, method: str, dataset: str, metric: str = "accuracy", shots: int = 16, backbone: str = BACKBONE
) -> Published | None:
    """A published number, None if there is none.

    Args:
        protocol: base2new, cross_dataset, domain_generalization, few_shot or zero_shot.
        method: its name in ``published.csv``, such as "MaPLe": the field ``published`` of a row of methods.py.
        dataset: name of its YAML file, or "Average".
        metric: accuracy, or for base-to-new base, new or harmonic_mean.
        shots: training images per class.
        backbone: as in MODEL.BACKBONE.NAME.
    """
    numbers = read_published()
    cells = ((protocol, method, dataset, metric, k, backbone) for k in (shots, 0))
    return next((numbers[cell] for cell in cells if cell in numbers), None)


@cache
def read_published() -> dict[tuple[str, str, str, str, int, str], Published]:
    """All published numbers, by protocol, method, dataset, metric, shots and backbone."""
    with open(FILE, encoding="utf-8", newline="") as file:
        return {
            (
                row["protocol"],
                row["method"],
                row["dataset"],
                row["metric"],
                int(row["shots"]),
                row["backbone"],
            ): Published(float(row["value"]), row["source"])
            for row in csv.DictReader(file)
        }


def _tables(run: Run) -> tuple[str, ...]:
    """The protocols whose tables have the result of a run."""
    if run.stage == "zero_shot":
        return ("zero_shot", "cross_dataset", "domain_generalization")
    if run.stage == "all_classes" and run.dataset == "imagenet":
        return ("few_shot", "cross_dataset")
    return (run.protocol,)


@cache
def _backbone(trainer: str, config: str) -> str:
    settings = read_settings(ROOT / "configs" / "trainers" / trainer / f"{config}.yaml")
    return str(settings.get("MODEL.BACKBONE.NAME"))
