"""Which published number stands beside a number of a table."""

from collections import defaultdict
from statistics import mean

import pandas as pd

from experiments.published import BACKBONE, Published, published_method, published_value
from experiments.report.layouts import DATASETS, published_configs
from experiments.report.tables import AVERAGE, Column, Lookup, Row, harmonic_mean
from experiments.runs import IMAGENET_VARIANTS, Run

__all__ = ["published_lookup"]

STAGES = {"base2new": "train_base", "few_shot": "all_classes", "zero_shot": "zero_shot"}
TRANSFERS = ("zero_shot", "cross_dataset", "domain_generalization")
# The datasets of the published averages
ALL = {
    "base2new": set(DATASETS) - set(IMAGENET_VARIANTS),
    "few_shot": set(DATASETS) - set(IMAGENET_VARIANTS),
    "cross_dataset": set(DATASETS) - {"imagenet", *IMAGENET_VARIANTS},
    "domain_generalization": set(IMAGENET_VARIANTS),
}


def published_lookup(frame: pd.DataFrame) -> Lookup:
    """The published number for a row and a column, where the row's runs have the published settings.

    An average over other datasets than the published one has the average of those datasets' published numbers.
    """
    backbones: dict[Row, set[str]] = defaultdict(set)
    names = frame[["trainer", "config", "variant", "reproduced", "backbone"]].drop_duplicates()
    for *row, backbone in names.itertuples(index=False):
        for of in (Row(*row), Row(*row)._replace(config="")):
            backbones[of].add(backbone)

    def lookup(row: Row, column: Column, protocol: str) -> Published | None:
        of_row = backbones[row] - {""} or {BACKBONE}
        return _find(row, column, protocol, *of_row) if len(of_row) == 1 else None

    return lookup


def _find(row: Row, column: Column, protocol: str, backbone: str) -> Published | None:
    methods = {_method(row, column, protocol, dataset) for dataset in column.datasets}
    method = methods.pop()
    if methods or method is None:
        return None

    def value(dataset: str, metric: str) -> Published | None:
        tables = TRANSFERS if protocol == "zero_shot" else (protocol,)  # where zero-shot results are published
        found = (published_value(table, method, dataset, metric, column.shots, backbone) for table in tables)
        return next(filter(None, found), None)

    if column.dataset != AVERAGE:
        return value(column.dataset, column.metric)
    if set(column.datasets) == ALL.get(protocol):
        return value(AVERAGE, column.metric)
    if column.metric == "harmonic_mean":
        base, new = (_find(row, column._replace(metric=half), protocol, backbone) for half in ("base", "new"))
        return base and new and Published(harmonic_mean(base.value, new.value), base.source)
    found = [number for dataset in column.datasets if (number := value(dataset, column.metric))]
    if len(found) < len(column.datasets):
        return None
    sources = ", ".join(dict.fromkeys(number.source for number in found))
    return Published(mean(number.value for number in found), f"{sources}; average of these {len(found)} datasets")


def _method(row: Row, column: Column, protocol: str, dataset: str) -> str | None:
    """The name in published.csv of the method of a row; None if its settings are not the published ones."""
    config = row.config or published_configs(row.trainer, dataset, column.shots)[0]
    stage = "all_classes" if column.is_source else STAGES.get(protocol, "evaluation")
    run = Run(stage, dataset, row.trainer, config, column.shots, variant=row.variant, source=column.trained_on)
    return published_method(run, protocol)
