"""Two training logs side by side: a published one, or any other of this engine's form, and a run's.

Lines of training hold a step's losses to four decimals, each with its mean over the epoch so far in brackets:
``epoch [1/5] batch [5/80] time 0.5 (0.6) data 0.0 (0.1) loss 2.6523 (2.3535) acc 50.0 (45.0) lr 1.0e-05 eta 0:01``.
Earlier versions of the engine separate with tabs and write ``epoch [1/5][5/80]``.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

__all__ = ["Log", "compare", "read_log", "table"]

_STEP = re.compile(r"epoch \[(\d+)/\d+\]\s*(?:batch )?\[(\d+)/\d+\]\s+(.*)")
_NUMBER = r"-?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|inf|nan)"
_VALUE = re.compile(rf"(\w+) ({_NUMBER}) \({_NUMBER}\)")
_RATE = re.compile(rf"\blr ({_NUMBER})")
_ACCURACY = re.compile(rf"\* accuracy: ({_NUMBER})%")
_NOT_COMPARED = ("time", "data")  # seconds


@dataclass
class Log:
    """What a log holds.

    Attributes:
        steps: by (epoch, batch), counted from 1, the values of that batch as they are printed: loss, acc, lr, …
        accuracies: of the tests, in percent, in the log's order.
    """

    steps: dict[tuple[int, int], dict[str, str]] = field(default_factory=dict)
    accuracies: list[str] = field(default_factory=list)


def read_log(path: Path) -> Log:
    """Read a log, or the ``log.txt`` of a run folder. Of a step that stands twice (a resumed run) the last one counts.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds neither a step of training nor the accuracy of a test.
    """
    if path.is_dir():
        path = path / "log.txt"
    log = Log()
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if step := _STEP.search(line):
                values = {name: value for name, value in _VALUE.findall(step[3]) if name not in _NOT_COMPARED}
                if rate := _RATE.search(step[3]):
                    values["lr"] = rate[1]
                log.steps[int(step[1]), int(step[2])] = values
            elif accuracy := _ACCURACY.search(line):
                log.accuracies.append(accuracy[1])
    if not log.steps and not log.accuracies:
        raise ValueError(
            f"{path} holds no line of training such as 'epoch [1/5] batch [5/80] … loss 2.65 (2.35) …' and no "
            "'* accuracy: 85.00%': expected the log of a run"
        )
    return log


def compare(theirs: Log, ours: Log) -> dict[str, Any]:
    """Both sides of every value that both logs hold, and for each kind of value how far they are apart.

    Two values are equal where they differ by no more than half a unit of the last digit printed of each.

    Returns:
        ``steps`` (rows with epoch, batch, value, theirs, ours, difference, equal; the difference is None where a side
        is not finite), ``tests`` (the same without epoch and batch), ``values`` (by kind: how many were compared, the
        first and the largest difference), and ``only_theirs`` and ``only_ours``, how many steps the other log lacks.
    """
    both = sorted(theirs.steps.keys() & ours.steps.keys())
    steps = [
        {"epoch": epoch, "batch": batch, **_row(name, theirs.steps[epoch, batch][name], ours.steps[epoch, batch][name])}
        for epoch, batch in both
        for name in theirs.steps[epoch, batch]
        if name in ours.steps[epoch, batch]
    ]
    tests = [_row("accuracy", *pair) for pair in zip(theirs.accuracies, ours.accuracies, strict=False)]
    return {
        "steps": steps,
        "tests": tests,
        "values": {name: _summary(rows) for name, rows in _by_name([*steps, *tests])},
        "only_theirs": len(theirs.steps) - len(both),
        "only_ours": len(ours.steps) - len(both),
    }


def _row(name: str, theirs: str, ours: str) -> dict[str, Any]:
    difference = float(ours) - float(theirs)
    row = {"value": name, "theirs": theirs, "ours": ours}
    if not math.isfinite(difference):
        return row | {"difference": None, "equal": theirs == ours}
    rounding = (_last_digit(theirs) + _last_digit(ours)) / 2
    return row | {"difference": difference, "equal": abs(difference) <= rounding * (1 + 1e-9)}


def _last_digit(number: str) -> float:
    """One unit of the last digit of a printed number: 0.0001 of 2.6523, 1e-9 of 1.0000e-05."""
    mantissa, _, exponent = number.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals)


def _by_name(rows: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for name in dict.fromkeys(row["value"] for row in rows):
        yield name, [row for row in rows if row["value"] == name]


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    first = next((row for row in rows if not row["equal"]), None)
    sizes = [row["difference"] for row in rows]
    largest = None if None in sizes else max(sizes, key=abs)
    return {"compared": len(rows), "first_difference": first, "largest_difference": largest}


def table(found: dict[str, Any], most: int = 20) -> str:
    """The comparison for a screen: every kind of value, then the losses of the first steps, side by side."""
    summary = [
        [name, of["compared"], _where(of["first_difference"]), _signed(of["largest_difference"])]
        for name, of in found["values"].items()
    ]
    losses = [row for row in found["steps"] if row["value"] == "loss"]
    columns = [[row["epoch"], row["batch"], row["theirs"], row["ours"], _signed(row["difference"])] for row in losses]
    lines = [
        tabulate(summary, ["value", "compared", "first difference", "largest difference"], disable_numparse=True),
        "",
        tabulate(columns[:most], ["epoch", "batch", "loss there", "loss here", "difference"], disable_numparse=True),
    ]
    if len(losses) > most:
        lines.append(f"… {len(losses):,} steps in all: --json FILE writes them all")
    if not found["steps"]:
        lines.append("No step of training is in both logs: set TRAIN.PRINT_FREQ to the number of batches between lines")
    for side, count in (("the other log", found["only_theirs"]), ("the run", found["only_ours"])):
        if count:
            lines.append(f"{count:,} printed steps are in {side} only")
    return "\n".join(lines)


def _signed(difference: float | None) -> str:
    return "not a number" if difference is None else f"{difference:+.3g}" if difference else "0"


def _where(row: dict[str, Any] | None) -> str:
    if row is None:
        return "none"
    place = f"epoch {row['epoch']}, batch {row['batch']}: " if "epoch" in row else ""
    return f"{place}{row['theirs']} there, {row['ours']} here"
