"""How the cost of a training step grows with the number of classes, and with the tokens of the text tower.

    python -m benchmarks.scaling --classes 50,100,200,350,500,700,1000 --json scaling.json --plot scaling.png
    python -m benchmarks.scaling --definitional 50,200,500 --json scaling.json --plot scaling.png

The steps of all class counts take turns, in alternating order, so that a change of the machine's clock meets all of
them. The smallest time of each counts, since everything else that a machine does only adds to it. Least squares give
seconds = fixed + slope × tokens, and the same for classes. Random weights, class names and the step are those of
`benchmarks.step`. The definitional step, whose cost is that of K × 77 tokens, is measured once for the class counts
of --definitional.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from scipy.stats import linregress
from tabulate import tabulate

from clip.model import CLIP
from inference.interpret_plots import COLORS, OTHERS, png

from .models import random_clip
from .step import TrainerComparison
from .timing import Work, circumstances, listed, model_parser, run_and_report, say


def sharing_weights(clip_model: CLIP) -> CLIP:
    """The same model with modules of its own, so that a method can add to them."""
    return copy.deepcopy(clip_model, {id(parameter): parameter for parameter in clip_model.parameters()})


def line(x: Sequence[float], seconds: Sequence[float]) -> dict[str, float]:
    """Least squares of seconds = fixed + slope · x, and R²."""
    found = linregress(x, seconds)
    return {"fixed": float(found.intercept), "slope": float(found.slope), "r2": float(found.rvalue**2)}


def measure(args: argparse.Namespace, comparisons: Sequence[TrainerComparison]) -> list[dict[str, Any]]:
    """A row for each class count: ``classes``, ``tokens``, ``seconds``, ``all_seconds``, maybe ``definitional``."""
    rows: list[dict[str, Any]] = []
    steps: list[Work] = []
    for one in comparisons:
        classes, batch = one.args.classes, (one.images(args.batch), one.labels(args.batch), args.batch)
        say(f"a first step, {classes} classes")
        steps.append(one.step(one.ours, *batch))
        steps[-1]()
        rows.append({"classes": classes, "tokens": one.text_tokens()["ours"], "all_seconds": []})
        if classes in args.definitional:
            say(f"the definitional step, {classes} classes")
            measured, _ = one.clock.measure(one.step(one.theirs, *batch), 1)
            rows[-1]["definitional"] = measured["seconds"]
    for repeat in range(args.repeats):
        say(f"steps, {repeat + 1} of {args.repeats}")
        for one, step, row in list(zip(comparisons, steps, rows, strict=True))[:: -1 if repeat % 2 else 1]:
            measured, _ = one.clock.measure(step, 1)
            row["all_seconds"].append(measured["seconds"])
    return [{**row, "seconds": min(row["all_seconds"])} for row in rows]


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The measurements and the lines through them as plain values."""
    clip_model = random_clip(args.backbone)
    cases = [argparse.Namespace(**{**vars(args), "classes": classes}) for classes in args.classes]
    comparisons = [TrainerComparison(case, sharing_weights(clip_model)) for case in cases]
    rows = measure(args, comparisons)
    seconds = [row["seconds"] for row in rows]
    lines = {name: line([row[name] for row in rows], seconds) for name in ("tokens", "classes")}
    result = {**circumstances(args, comparisons[0].device), "steps": rows, "lines": lines}
    if args.plot:
        Path(args.plot).write_bytes(png(plot(result)))
    return result


def plot(result: dict[str, Any]) -> Figure:
    """Seconds against tokens with the line; and against classes, of both sides if the definitional one is measured."""
    rows, found = result["steps"], result["lines"]["tokens"]
    ours, theirs = COLORS[:2]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    tokens, seconds = [row["tokens"] for row in rows], [row["seconds"] for row in rows]
    left.plot([0, max(tokens)], [found["fixed"], found["fixed"] + found["slope"] * max(tokens)], color=OTHERS)
    left.plot(tokens, seconds, "o", color=ours)
    for row in rows:
        place = {"xytext": (-5, 5), "textcoords": "offset points", "ha": "right", "fontsize": 8}
        left.annotate(str(row["classes"]), (row["tokens"], row["seconds"]), **place)
    left.set(xlabel="tokens of the text tower (numbers: classes)", ylabel="seconds per training step")
    left.set_title(line_text("tokens", found), fontsize=9)
    right.plot([row["classes"] for row in rows], seconds, "o-", color=ours, label="ours")
    if full := [row for row in rows if "definitional" in row]:
        x, y = [row["classes"] for row in full], [row["definitional"] for row in full]
        right.plot(x, y, "s-", color=theirs, label="definitional")
        right.set_yscale("log")
        right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.yaxis.set_major_formatter("{x:g}")
        right.yaxis.set_minor_formatter(NullFormatter())
        right.legend(frameon=False)
    right.set(xlabel="classes", ylabel="seconds per training step")
    right.set_title(title(result), fontsize=9)
    for axes in (left, right):
        axes.grid(color=OTHERS, alpha=0.4)
        axes.set_ylim(bottom=None if axes.get_yscale() == "log" else 0)
    return figure


def title(result: dict[str, Any]) -> str:
    settings = result["settings"]
    model = f"{settings['method']}, {settings['backbone']}, batch {settings['batch']}, {settings['prec']}"
    return f"{model}\n{result['device']}, {result['threads']} threads"


def line_text(name: str, found: dict[str, float]) -> str:
    times, unit = (1000, "1,000 tokens") if name == "tokens" else (1, "class")
    return f"{found['fixed']:.2f} s + {1000 * times * found['slope']:.2f} ms per {unit}, R² {found['r2']:.3f}"


def report(result: dict[str, Any]) -> str:
    """A row for each class count, and the lines."""
    rows = []
    for row in result["steps"]:
        full = row.get("definitional")
        both = [f"{full:.2f}", f"{full / row['seconds']:.1f}"] if full else ["-", "-"]
        rows.append([row["classes"], row["tokens"], f"{row['seconds']:.3f}", f"{max(row['all_seconds']):.3f}", *both])
    head = ["classes", "text tokens", "step, s", "slowest, s", "definitional, s", "ratio"]
    lines = [f"seconds = {line_text(name, found)}" for name, found in result["lines"].items()]
    table = tabulate(rows, head, disable_numparse=True)
    return "\n".join([title(result), table, *lines])


def main(argv: Sequence[str] | None = None) -> None:
    parser = model_parser(__doc__, ["classes"])
    parser.set_defaults(classes="50,100,200,350,500,700,1000", repeats=5)
    parser.add_argument("--trainer", dest="method", default="MaPLe", help="a trainer, or a method's row")
    parser.add_argument("--definitional", type=listed(int), default=[], help="class counts whose definitional step")
    parser.add_argument("--plot", help="draw the result into this PNG file")
    parser.add_argument("options", nargs="*", metavar="KEY VALUE", help="settings instead of the published ones")
    run_and_report(parser.parse_args(argv), run, report)


if __name__ == "__main__":
    main()
