"""What single classes gain over a baseline, and which are confused, from the runs' predictions.csv.

A run without predictions.csv counts with the ``per_class`` of its results.json, which has no confused pairs.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from dassl.utils.results import read_results
from experiments.report.drawing import Plot, Point, bars

__all__ = ["ClassGains", "Confusion", "Gains", "class_gains"]

_MOST_FILES = 300  # predictions that are read: ImageNet's take about 50 ms each
_MOST_GROUPS = 24  # of classes that were tested together
_MOST_BYTES = 2**26  # of one of them
_MOST_CLASSES = 20  # of a plot: those that gain and lose most
_MOST_PAIRS = 10
_CLASSES = {
    **{"train_base": "base classes", "test_base": "base classes", "test_new": "new classes"},
    **{"all_classes": "all classes", "evaluation": "all classes"},
}


class Gains(NamedTuple):
    """A method against the baseline: numbers of classes, and the extreme ones with their differences in points."""

    method: str
    accuracy: float
    better: int
    worse: int
    most: tuple[str, float]
    least: tuple[str, float]


class Confusion(NamedTuple):
    """Shares of a class's images, in percent, that were taken for another one; the baseline's is None if unknown."""

    true: str
    predicted: str
    share: float
    baseline: float | None


@dataclass(frozen=True)
class ClassGains:
    """One dataset's classes: every method against the baseline, and in detail the method with the best accuracy."""

    title: str
    baseline: str
    best: str
    plot: Plot
    methods: list[Gains]
    confusions: list[Confusion]


@dataclass
class _Counts:
    """Numbers of images over the seeds of a method."""

    correct: Counter[str]
    total: Counter[str]
    confused: Counter[tuple[str, str]]

    @property
    def accuracy(self) -> dict[str, float]:
        return {name: 100 * self.correct[name] / total for name, total in self.total.items() if total}

    @property
    def overall(self) -> float:
        return 100 * self.correct.total() / max(self.total.total(), 1)

    def share(self, pair: tuple[str, str]) -> float | None:
        """The share of the first class's images that were taken for the second."""
        if not self.confused or not self.total[pair[0]]:
            return None
        return 100 * self.confused[pair] / self.total[pair[0]]


def class_gains(frame: pd.DataFrame, output: Path, names: Mapping[str, str]) -> tuple[list[ClassGains], int]:
    """The classes of each dataset for which two methods or more have predictions.

    Args:
        frame: a row per finished run.
        output: the folder that the rows' folders are relative to.
        names: what a method is called.

    Returns:
        The datasets, and the number of runs with predictions that were not read, since there are too many.
    """
    found: list[ClassGains] = []
    read = left = 0
    for title, rows in _groups(frame):
        with_data = rows[[_has_predictions(output / folder) for folder in rows["folder"]]]
        if len(found) == _MOST_GROUPS or read + len(with_data) > _MOST_FILES:
            left += len(with_data)
            continue
        read += len(with_data)
        if with_data.empty:
            first = rows.drop_duplicates("method")  # where one run has accuracies of classes, all of the method do
            methods = first["method"][[bool(_count([output / folder]).total) for folder in first["folder"]]]
            with_data = rows[rows["method"].isin(methods)]
        counts = {
            str(method): _count([output / folder for folder in runs["folder"]])
            for method, runs in with_data.groupby("method", sort=False)
        }
        counts = {method: of for method, of in counts.items() if of.total}
        if len(counts) > 1:
            zero_shot = rows[rows["trainer"].str.startswith("Zeroshot") & rows["method"].isin(counts.keys())]
            baseline = next(iter(zero_shot["method"]), next(iter(counts)))
            if (gains := _against(title, baseline, counts, names)) is not None:
                found.append(gains)
    return found, left


def _groups(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The runs that were tested on the same classes of a dataset, of the most shots; methods without training too."""
    tested = frame[frame["accuracy"].notna() & ~frame["reproduced"] & (frame["variant"] == "")]
    zero = tested[tested["protocol"] == "zero_shot"]
    tested = tested.assign(classes=tested["stage"].map(_CLASSES)).dropna(subset=["classes"])
    for (dataset, classes, source), rows in tested.groupby(["dataset", "classes", "source"]):
        rows = rows[rows["shots"] == rows["shots"].max()].drop_duplicates(["method", "seed"])
        if classes == "all classes":
            rows = pd.concat([zero[zero["dataset"] == dataset], rows])
        yield f"{dataset}, {classes}{source and f', trained on {source}'}", rows


def _has_predictions(folder: Path) -> bool:
    file = folder / "predictions.csv"
    return file.is_file() and file.stat().st_size < _MOST_BYTES


def _count(folders: list[Path]) -> _Counts:
    counts = _Counts(Counter(), Counter(), Counter())
    for folder in folders:
        if _has_predictions(folder):
            _add_predictions(folder / "predictions.csv", counts)
        else:
            _add_results(folder / "results.json", counts)
    return counts


def _add_predictions(file: Path, counts: _Counts) -> None:
    columns = ["true_class", "predicted_class"]
    try:
        rows = pd.read_csv(file, usecols=columns, dtype=str, keep_default_na=False)
    except (OSError, ValueError):  # another file of that name
        return
    for (true, predicted), number in rows.value_counts(columns).items():
        counts.total[true] += number
        if true == predicted:
            counts.correct[true] += number
        else:
            counts.confused[true, predicted] += number


def _add_results(file: Path, counts: _Counts) -> None:
    classes = (read_results(file) or {}).get("per_class")
    for entry in classes if isinstance(classes, list) else ():
        if isinstance(entry, dict) and all(_is_count(entry.get(name)) for name in ("correct", "total")):
            name = str(entry.get("classname"))
            counts.correct[name] += entry["correct"]
            counts.total[name] += entry["total"]


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value >= 0


def _against(title: str, baseline: str, counts: dict[str, _Counts], names: Mapping[str, str]) -> ClassGains | None:
    """The differences to the baseline; None if no method shares a class with it."""
    reference = counts[baseline]
    differences = {
        method: {
            name: value - reference.accuracy[name] for name, value in of.accuracy.items() if name in reference.accuracy
        }
        for method, of in counts.items()
        if method != baseline
    }
    differences = {method: of for method, of in differences.items() if of}
    if not differences:
        return None
    rows = []
    for method, of in differences.items():
        ordered = sorted(of.items(), key=lambda item: -item[1])
        better, worse = (sum(sign * value > 1e-9 for value in of.values()) for sign in (1, -1))
        rows.append(Gains(names[method], counts[method].overall, better, worse, ordered[0], ordered[-1]))
    best = max(differences, key=lambda method: counts[method].overall)
    ordered = sorted(differences[best].items(), key=lambda item: -item[1])
    shown = ordered if len(ordered) <= _MOST_CLASSES else ordered[: _MOST_CLASSES // 2] + ordered[-_MOST_CLASSES // 2 :]
    axis = f"{names[best]} − {names[baseline]}, points"
    plot = bars(title, {name: {"gain": Point(0, value)} for name, value in shown}, axis, digits=1)
    pairs = [
        Confusion(*pair, share, reference.share(pair))
        for pair in counts[best].confused
        if (share := counts[best].share(pair)) is not None
    ]
    pairs.sort(key=lambda pair: (-pair.share, pair.true, pair.predicted))
    return ClassGains(title, names[baseline], names[best], plot, rows, pairs[:_MOST_PAIRS])
