"""Which tables each protocol has: their rows and columns, in the published order."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import takewhile
from typing import NamedTuple

import pandas as pd

from experiments.methods import METHODS
from experiments.report.tables import Cell, Column, Lookup, Row, Table, harmonic, measured, over_datasets, over_seeds
from experiments.report.tables import table as make_table
from experiments.runs import IMAGENET_VARIANTS

__all__ = ["DATASETS", "joint_rows", "make_tables", "order_of_datasets", "published_configs", "shots_label", "swept"]

# The order of the published tables
DATASETS = (
    *("imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft"),
    *("sun397", "dtd", "eurosat", "ucf101", *IMAGENET_VARIANTS),
)
HALVES = {"train_base": "base", "test_base": "base", "test_new": "new", "test_all": "all"}
_LONG = 8  # letters of configs that are worth to be left out
HEADINGS = {"base": "base", "new": "new", "harmonic_mean": "H", "all": "all classes"}


class Point(NamedTuple):
    """What the runs have in common that differ in their seeds alone."""

    row: Row
    dataset: str
    shots: int
    metric: str
    source: str = ""


Points = dict[Point, dict[int, Cell]]  # the number of each seed


def make_tables(frame: pd.DataFrame, published: Lookup = lambda row, column, protocol: None) -> list[Table]:
    """The tables of :func:`experiments.report.data.read_results`'s rows, ablations last.

    Args:
        published: the published number that belongs to a row and a column of a protocol's table.
    """
    points = _points(frame)
    tables = [
        *_base2new(points["base2new"], published),
        *_transfer("cross_dataset", points, published),
        *_transfer("domain_generalization", points, published),
        *_few_shot(_with_published_configs(_without_sources(points)), published),
        *_zero_shot(points["zero_shot"], published),
    ]
    return [*tables, *_ablations(tables, published)]


def _points(frame: pd.DataFrame) -> dict[str, Points]:
    points: dict[str, Points] = defaultdict(dict)
    # A training run's own test is on the base classes: another test of its weights adds nothing
    tested = sorted(frame[frame["accuracy"].notna()].itertuples(), key=lambda item: item.stage == "test_base")
    for item in tested:
        row = Row(item.trainer, item.config, item.variant, item.reproduced)
        point = Point(row, item.dataset, int(item.shots), HALVES.get(item.stage, "accuracy"), item.source)
        seed = 0 if pd.isna(item.seed) else int(item.seed)
        notes = item.notes.split(" | ") if item.notes else []
        cell = measured(item.accuracy, seed, item.folder, notes)
        points[item.protocol].setdefault(point, {}).setdefault(seed, cell)
    return points


# ---- order and labels ------------------------------------------------------------------------------------------


def order_of_datasets(names: Iterable[str]) -> list[str]:
    """Names of datasets, each once, in the order of the published tables, others behind."""
    return sorted(set(names), key=lambda name: (DATASETS.index(name) if name in DATASETS else len(DATASETS), name))


def _labels(rows: Iterable[Row]) -> dict[Row, str]:
    """Rows in the order of experiments/methods.py, with the shortest labels that tell them apart."""
    trainers = list(dict.fromkeys(method.trainer for method in METHODS.values()))

    def key(row: Row) -> tuple:
        place = trainers.index(row.trainer) if row.trainer in trainers else len(trainers)
        variant = [part.zfill(9) if part.isdigit() else part for part in re.split(r"(\d+)", row.variant)]
        return row.reproduced, place, row.trainer, row.config, variant

    ordered = sorted(set(rows), key=key)
    configs: dict[str, set[str]] = defaultdict(set)
    for row in ordered:
        configs[row.trainer].add(row.config)
    return {row: _label(row, configs[row.trainer]) for row in ordered}


def _label(row: Row, configs: Collection[str]) -> str:
    """The name of a row without its config if the trainer has no other one, and without a long start that all share."""
    words = [config.split("_")[:-1] for config in configs]
    start = "_".join(same[0] for same in takewhile(lambda of: len({*of}) == 1, zip(*words, strict=False)))
    if len(configs) > 1 and len(start) >= _LONG and row.config:
        row = row._replace(config=f"…{row.config[len(start) + 1 :]}")
    return row.label(with_config=len(configs) > 1)


# ---- protocols -------------------------------------------------------------------------------------------------

Cells = dict[tuple[Row, Column], Cell]


def _base2new(points: Points, published: Lookup) -> Iterator[Table]:
    """For each number of shots the average over datasets, then a table per dataset: base, new, harmonic mean."""
    labels = _labels(point.row for point in points)
    for shots in sorted({point.shots for point in points}):
        cells = _halves(points, shots)
        datasets = order_of_datasets(dataset for _, dataset, _ in cells)
        metrics = [metric for metric in HEADINGS if any(metric == found for _, _, found in cells)]
        if len(datasets) > 1:
            columns = [Column(HEADINGS[metric], metric, shots, tuple(datasets)) for metric in metrics]
            averages = {
                (row, column): average
                for row in labels
                for column in columns
                if (average := _average({name: cells.get((row, name, column.metric)) for name in datasets}))
            }
            _take_harmonic_means(averages, columns)
            title = f"average of {len(datasets)} datasets, {shots_label(shots)}"
            yield make_table("base2new", title, averages, labels, columns, published, summary=True)
        for dataset in datasets:
            columns = [Column(HEADINGS[metric], metric, shots, (dataset,)) for metric in metrics]
            of_dataset = {
                (row, column): cells[row, dataset, column.metric]
                for row in labels
                for column in columns
                if (row, dataset, column.metric) in cells
            }
            title, summary = f"{dataset}, {shots_label(shots)}", len(datasets) == 1
            yield make_table("base2new", title, of_dataset, labels, columns, published, summary=summary)


def _halves(points: Points, shots: int) -> dict[tuple[Row, str, str], Cell]:
    """The numbers of each row, dataset and metric, of the seeds that have both halves."""
    cells = {}
    for row, dataset in {(point.row, point.dataset) for point in points if point.shots == shots}:
        base, new, every = (points.get(Point(row, dataset, shots, metric), {}) for metric in ("base", "new", "all"))
        if common := sorted(base.keys() & new.keys()):
            cells[row, dataset, "base"] = over_seeds(base[seed] for seed in common)
            cells[row, dataset, "new"] = over_seeds(new[seed] for seed in common)
            cells[row, dataset, "harmonic_mean"] = harmonic(cells[row, dataset, "base"], cells[row, dataset, "new"])
        if every:
            cells[row, dataset, "all"] = over_seeds(every.values())
    return cells


def _take_harmonic_means(averages: Cells, columns: Collection[Column]) -> None:
    """Replace the averages of harmonic means by the harmonic means of averages."""
    by_metric = {column.metric: column for column in columns}
    for row, column in list(averages):
        if column.metric == "harmonic_mean":
            averages[row, column] = harmonic(averages[row, by_metric["base"]], averages[row, by_metric["new"]])


def _transfer(protocol: str, points: dict[str, Points], published: Lookup) -> Iterator[Table]:
    """For each source and number of shots: the accuracy on the source, on every target, and the targets' average.

    Zero-shot results on the same datasets are rows, too.
    """
    labels = _labels(point.row for point in (*points[protocol], *points["zero_shot"]))
    for source, shots in sorted({(point.source, point.shots) for point in points[protocol]}):
        here = {of: seeds for of, seeds in points[protocol].items() if (of.source, of.shots) == (source, shots)}
        targets = {point.dataset for point in here}
        on_source = {point.row: points["few_shot"].get(point._replace(dataset=source, source="")) for point in here}
        for point, seeds in points["zero_shot"].items():
            if point.dataset in targets:
                here[point._replace(shots=shots, source=source)] = seeds
                on_source[point.row] = points["zero_shot"].get(point._replace(dataset=source))
        cells, columns = _by_dataset(here, shots, source)
        column = Column(f"{source} (source)", "accuracy", shots, (source,), source, is_source=True)
        cells |= {(row, column): over_seeds(seeds.values()) for row, seeds in on_source.items() if seeds}
        columns = [column, *columns] if any(of is column for _, of in cells) else columns
        title = f"trained on {source}, {shots_label(shots)}"
        yield make_table(protocol, title, cells, labels, columns, published, summary=True)


def _zero_shot(points: Points, published: Lookup) -> Iterator[Table]:
    if points:
        cells, columns = _by_dataset(points, 0)
        labels = _labels(point.row for point in points)
        yield make_table("zero_shot", "all classes", cells, labels, columns, published, summary=True)


def _few_shot(points: Points, published: Lookup) -> Iterator[Table]:
    """The average over datasets, then a table per dataset, with a column for each number of shots.

    With one number of shots: a single table with a column for each dataset.
    """
    labels = _labels(point.row for point in points)
    all_shots = sorted({point.shots for point in points}, key=lambda shots: (shots < 0, shots))
    datasets = order_of_datasets(point.dataset for point in points)
    if len(all_shots) == 1:
        cells, columns = _by_dataset(points, all_shots[0])
        yield make_table("few_shot", shots_label(all_shots[0]), cells, labels, columns, published, summary=True)
        return
    cells = {
        (row, Column(shots_label(shots), "accuracy", shots, (dataset,))): over_seeds(seeds.values())
        for (row, dataset, shots, _, _), seeds in points.items()
    }
    if len(datasets) > 1:
        columns = [Column(shots_label(shots), "accuracy", shots, tuple(datasets)) for shots in all_shots]
        averages = {
            (row, column): average
            for row in labels
            for column in columns
            if (average := _average({name: cells.get((row, column._replace(datasets=(name,)))) for name in datasets}))
        }
        title = f"average of {len(datasets)} datasets"
        yield make_table("few_shot", title, averages, labels, columns, published, summary=True)
    for dataset in datasets:
        columns = [Column(shots_label(shots), "accuracy", shots, (dataset,)) for shots in all_shots]
        chosen = {key: cell for key, cell in cells.items() if key[1] in columns}
        yield make_table("few_shot", dataset, chosen, labels, columns, published, summary=len(datasets) == 1)


def shots_label(shots: int) -> str:
    """A number of training images per class in words."""
    return "all images" if shots < 0 else f"{shots} shot{'s' * (shots != 1)}"


def _by_dataset(points: Points, shots: int, source: str = "") -> tuple[Cells, list[Column]]:
    """A column for each dataset and, of more than one, their average."""
    datasets = order_of_datasets(point.dataset for point in points)
    columns = [Column(dataset, "accuracy", shots, (dataset,), source) for dataset in datasets]
    by_name = dict(zip(datasets, columns, strict=True))
    cells = {(point.row, by_name[point.dataset]): over_seeds(seeds.values()) for point, seeds in points.items()}
    if len(datasets) > 1:
        columns.append(Column(f"average of {len(datasets)}", "accuracy", shots, tuple(datasets), source))
        for row in {point.row for point in points}:
            if average := _average({name: cells.get((row, by_name[name])) for name in datasets}):
                cells[row, columns[-1]] = average
    return cells, columns


def _average(by_dataset: dict[str, Cell | None]) -> Cell | None:
    """The average over the datasets that a row has, None for fewer than two."""
    present = {name: cell for name, cell in by_dataset.items() if cell}
    return over_datasets(present) if len(present) > 1 else None


def _without_sources(points: dict[str, Points]) -> Points:
    """The few-shot runs without those that are the source of a transfer and nothing else."""
    transfers = [*points["cross_dataset"], *points["domain_generalization"]]
    sources = {(point.row, point.source, point.shots) for point in transfers}
    others = {point.row for point in points["few_shot"] if (point.row, point.dataset, point.shots) not in sources}
    rows_of_sources = {row for row, _, _ in sources}
    return {
        point: seeds
        for point, seeds in points["few_shot"].items()
        if point.row in others or point.row not in rows_of_sources
    }


def _with_published_configs(points: Points) -> Points:
    """One row instead of several for a trainer whose published config depends on the shots, where those are used."""
    joint = joint_rows((point.row, point.dataset, point.shots) for point in points)
    return {point._replace(row=joint.get(point.row, point.row)): seeds for point, seeds in points.items()}


def joint_rows(runs: Iterable[tuple[Row, str, int]]) -> dict[Row, Row]:
    """The few-shot rows that make one row without a config: those that have only what is published for their config.

    Args:
        runs: row, dataset and number of shots of every run.
    """
    placed: dict[Row, bool] = defaultdict(lambda: True)
    for row, dataset, shots in runs:
        placed[row] &= row.config in published_configs(row.trainer, dataset, shots)
    joint = {row: row._replace(config="") for row, is_placed in placed.items() if is_placed}
    return {row: of for row, of in joint.items() if [*joint.values()].count(of) > 1}


def published_configs(trainer: str, dataset: str, shots: int) -> list[str]:
    """The configs of a trainer that the published few-shot numbers come from."""
    methods = [method for method in METHODS.values() if method.trainer == trainer]
    return [method.published_config("few_shot", dataset, shots) for method in methods]


# ---- ablations -------------------------------------------------------------------------------------------------


def swept(variant: str) -> dict[str, str]:
    """The settings in a run folder's name that a plan's sweep has made: "PROMPT_DEPTH_3_PREC_fp32" has two.

    Keys are in capitals and values are not; {} for any other name.
    """
    found: dict[str, str] = {}
    key: list[str] = []
    for word in variant.split("_"):
        if word.isupper() and word[0].isalpha():
            key.append(word)
        elif key:
            found["_".join(key)] = word
            key = []
        else:
            return {}
    return {} if key else found


def _ablations(tables: Iterable[Table], published: Lookup) -> Iterator[Table]:
    """For each method of a summary whose rows differ in swept settings, those rows alone."""
    for of in tables:
        groups: dict[tuple, list[int]] = defaultdict(list)
        for i, row in enumerate(of.rows):
            if of.summary and (keys := tuple(swept(row.variant))):
                groups[row._replace(variant=""), keys].append(i)
        for (row, keys), numbers in groups.items():
            if len(numbers) > 1:
                chosen = [of.rows[i] for i in numbers]
                labels = {row: ", ".join(swept(row.variant).values()) for row in chosen}
                cells = {
                    (of.rows[i], column): cell
                    for i in numbers
                    for column, cell in zip(of.columns, of.cells[i], strict=True)
                    if cell
                }
                title, heading = f"{row.method}, {of.title}", ", ".join(keys)
                more = {"heading": heading, "summary": True, "ablation": keys}
                yield make_table(of.protocol, title, cells, labels, of.columns, published, **more)
