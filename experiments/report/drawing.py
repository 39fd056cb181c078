"""Bars and curves as SVG for the report's page, drawn by matplotlib.

Text stays text, in the page's font; colors are variables of the page's style, so that a plot follows a light or dark
screen. The same data give the same bytes: ids are seeded, and there is no date.
"""

import io
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, MaxNLocator, NullLocator

from dassl.utils.console import printable, utf8_text

__all__ = ["COLORS", "Line", "Plot", "Point", "bars", "curves", "legend"]

COLORS = 8  # variables --c0 … --c7 of the page's style
_MARKERS = "osD^vPXp*"
_DASHES = ("-", "--", ":")
# matplotlib only knows colors: these stand for the style's variables, which take their places in the SVG
_SERIES = tuple(f"#a1b2c{number}" for number in range(COLORS))
_INK, _FAINT, _GRID, _PAPER = "#a1b2d0", "#a1b2d1", "#a1b2d2", "#a1b2d3"
_VARIABLES = {color: f"var(--c{number})" for number, color in enumerate(_SERIES)} | {
    _INK: "var(--ink)",
    _FAINT: "var(--faint)",
    _GRID: "var(--grid)",
    _PAPER: "var(--paper)",
}
_WIDTH = 5.0  # inches: as wide as a phone's screen when a letter of 10 points has its natural size
_SETTINGS: Any = {
    **{"svg.fonttype": "none", "font.size": 10},
    # "$" in a name is no formula
    **{"text.parse_math": False, "axes.formatter.use_mathtext": False, "font.family": ["DejaVu Sans"]},
    **{"text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _FAINT},
    **{"xtick.color": _FAINT, "ytick.color": _FAINT, "xtick.labelcolor": _INK, "ytick.labelcolor": _INK},
    **{"axes.grid": True, "grid.color": _GRID, "grid.linewidth": 0.8, "axes.axisbelow": True},
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.unicode_minus": True},
    **{"legend.frameon": False, "legend.fontsize": 10},
}


@dataclass(frozen=True)
class Plot:
    """An SVG element, and what it shows in words for those who do not see it."""

    title: str
    description: str
    svg: str


@dataclass(frozen=True)
class Point:
    """A value at x, and those of the single seeds."""

    x: float
    mean: float
    deviation: float | None = None
    seeds: Sequence[float] = ()


@dataclass(frozen=True)
class Line:
    """A line of a plot; ``number`` selects its color and marker, the same in all plots of a section."""

    label: str
    number: int
    points: Sequence[Point]


def style(number: int) -> dict[str, Any]:
    """Color, marker and dash of a line: no two of the first 72 are equal, and neighbors differ in color and marker."""
    return {
        "color": _SERIES[number % COLORS],
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _DASHES[number // COLORS % len(_DASHES)],
    }


def bars(title: str, rows: Mapping[str, Mapping[str, Point]], axis: str, digits: int = 2, log: bool = False) -> Plot:
    """Horizontal bars: a group of them for each row, one for each name in it, with the value, and seeds as dots.

    Args:
        rows: for each row its points by name; a point's ``x`` is not used. Names have the same color in all rows.
        axis: what is measured, with its unit.
        digits: decimals of the values.
        log: logarithmic axis.
    """
    names = list(dict.fromkeys(name for points in rows.values() for name in points))
    labels = [_shortened(name) for name in rows]
    thickness = 0.8 / len(names)
    with matplotlib.rc_context(_SETTINGS):
        height = len(rows) * (0.12 + 0.19 * len(names))
        figure, axes = _figure(0.1 + max(map(len, labels)) * 0.085, height + 0.1, 0.8 if len(names) > 1 else 0.5)
        for number, name in enumerate(names):
            offset = (number - (len(names) - 1) / 2) * thickness
            found = [(row + offset, points[name]) for row, points in enumerate(rows.values()) if name in points]
            places, points = [place for place, _ in found], [point for _, point in found]
            color = _SERIES[number % COLORS]
            axes.barh(places, [p.mean for p in points], thickness * 0.9, color=color, alpha=0.75, label=name)
            dots = [(seed, place) for place, point in found if len(point.seeds) > 1 for seed in point.seeds]
            if dots:
                axes.plot(*zip(*dots, strict=True), ".", color=_INK, markeredgecolor=_PAPER, markersize=6, mew=0.5)
            for place, point in found:
                end = max([0, point.mean, *point.seeds])
                text = f"\u2002{point.mean:,.{digits}f}".replace("-", "\u2212")
                axes.text(end, place, text, va="center", size=8.5)
        values = [value for of in rows.values() for p in of.values() for value in (p.mean, *p.seeds)]
        _set_range(axes, values, log)
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(_shortened(axis, 70))
        if len(names) > 1:
            figure.legend(loc="lower center", ncols=len(names))
        svg = _svg(figure, title)
    lines = (
        f"{row}: " + ", ".join(f"{name} {p.mean:,.{digits}f}" for name, p in points.items())
        for row, points in rows.items()
    )
    return Plot(title, f"Bars, {axis}. {'; '.join(lines)}.", svg)


def _set_range(axes: Any, values: Sequence[float], log: bool) -> None:
    """The range of the bars' axis, with a place for the values: from 0, or, if logarithmic, a third of the least."""
    if log:
        low, high = min(values) / 3, max(values)
        axes.set_xscale("log")
        axes.set_xlim(low, high * (high / low) ** 0.3)
    else:
        low, high = min(0.0, *values), max(0.0, *values)
        axes.set_xlim(low * 1.05, high + 0.2 * ((high - low) or 1))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(EngFormatter(sep="") if high >= 1000 else "{x:g}")


def curves(
    title: str,
    lines: Sequence[Line],
    x_axis: str,
    y_axis: str,
    levels: Sequence[Line] = (),
    scale: Literal["linear", "log2"] = "linear",
) -> Plot:
    """Lines through means, with the seeds as dots and their deviation as a band.

    Args:
        levels: horizontal lines, at the mean of their first point.
        scale: of the x axis.
    """
    with matplotlib.rc_context(_SETTINGS):
        figure, axes = _figure(0.65, 2.8, 0.5)
        for line in lines:
            look = style(line.number)
            points = [point for point in sorted(line.points, key=lambda p: p.x) if isfinite(point.mean)]
            axes.plot([p.x for p in points], [p.mean for p in points], **look, markersize=5, linewidth=1.6)
            if len(points) > 1:
                below, above = ([p.mean + sign * (p.deviation or 0) for p in points] for sign in (-1, 1))
                axes.fill_between([p.x for p in points], below, above, color=look["color"], alpha=0.12, linewidth=0)
            dots = [(p.x, value) for p in points if len(p.seeds) > 1 for value in p.seeds]
            if dots:
                axes.plot(*zip(*dots, strict=True), ".", color=look["color"], markersize=4, alpha=0.6)
        for level in levels:
            look = style(level.number) | {"marker": "", "linestyle": (0, (5, 2))}
            axes.axhline(level.points[0].mean, **look, linewidth=1.4)
        if scale == "log2":
            axes.set_xscale("log", base=2)
        ticks = sorted({point.x for line in lines for point in line.points})
        if len(ticks) <= 13:
            axes.xaxis.set_major_locator(FixedLocator(ticks))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter("{x:g}")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(_shortened(x_axis, 70))
        axes.set_ylabel(_shortened(y_axis))
        svg = _svg(figure, title)
    return Plot(title, f"Curves of {y_axis} over {x_axis}. {_in_words([*lines, *levels])}", svg)


def _in_words(lines: Iterable[Line]) -> str:
    parts = []
    for line in lines:
        points = sorted(line.points, key=lambda p: p.x)
        if len(points) > 6:
            points = [points[0], points[-1]]
        parts.append(f"{line.label}: " + ", ".join(f"{p.mean:.2f} at {p.x:g}" for p in points))
    return "; ".join(parts) + "."


def legend(labels: Mapping[str, int], levels: Iterable[str] = ()) -> Plot:
    """The lines' labels with their colors and markers, once for all plots of a section."""
    levels = set(levels)
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(_WIDTH, 0.3 + 0.23 * len(labels)))
        handles = []
        for label, number in labels.items():
            look = style(number) | ({"marker": "", "linestyle": (0, (5, 2))} if label in levels else {})
            handles.append(Line2D([], [], **look, markersize=6, label=_shortened(label, 58)))
        figure.legend(handles=handles, loc="upper left", handlelength=3)
        svg = _svg(figure, "legend " + " ".join(labels))
    return Plot("Legend", f"Legend: {', '.join(labels)}.", svg)


def _figure(left: float, height: float, bottom: float) -> tuple[Figure, Any]:
    """A figure with one plot of this height; what is left of it and below it takes so many inches."""
    whole = height + bottom
    figure = Figure(figsize=(_WIDTH, whole))
    place = {"left": left / _WIDTH, "right": 0.985, "bottom": bottom / whole, "top": 1 - 0.08 / whole}
    return figure, figure.subplots(gridspec_kw=place)


def _shortened(name: str, most: int = 28) -> str:
    name = utf8_text(printable(name))
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most - most // 2) :]}"


def _svg(figure: Figure, seed: str) -> str:
    """The figure as an SVG element that can stand in a page more than once."""
    output = io.StringIO()
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": utf8_text(seed)}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the page's fonts may have it
        figure.savefig(output, format="svg", metadata=nothing)
    text = output.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style\b.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # nothing refers to them
    text = re.sub(r"font-family: [^;\"]*; ", "", text)  # the page's
    text = re.sub(r'(<svg [^>]*?) width="[^"]*" height="[^"]*"', r"\1", text)  # as wide as its place
    text = re.sub(f"(?<=: )({'|'.join(_VARIABLES)})", lambda found: _VARIABLES[found[0]], text)
    return re.sub(r"\n\s*", "\n", text)
