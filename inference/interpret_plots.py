"""Pictures of a run's page, as PNGs. Letters: N pictures, P patches."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from .interpret_attention import Attention

NAMED = 10  # classes with a color of their own in a map
COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#b8558f", "#a67c00"),
    *("#3a9bd9", "#6a3d9a", "#e31a1c", "#1b7837", "#7f5539"),
)
OTHERS = "#c3c8ce"


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, bbox_inches="tight", facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def shortened(name: str, length: int = 22) -> str:
    """A name that fits into a legend, with what matplotlib takes for formulas escaped."""
    short = name if len(name) <= length else f"{name[: length - 1]}…"
    return short.replace("$", r"\$")


def map_figure(points: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """A map (N, 2) of pictures with the classes (N names) in colors; beyond `NAMED` classes, the rest is grey."""
    figure = Figure(figsize=(5.2, 5.2))
    axes = figure.add_subplot()
    named = [name for name, _ in Counter(classes).most_common(NAMED)]
    labels = np.array(classes)
    rest = ~np.isin(labels, named)
    if rest.any():
        axes.scatter(
            points[rest, 0], points[rest, 1], s=12, color=OTHERS, label=f"{len(set(labels[rest]))} other classes"
        )
    for name, color in zip(sorted(named), COLORS, strict=False):
        axes.scatter(points[labels == name, 0], points[labels == name, 1], s=16, color=color, label=shortened(name))
    axes.set(xticks=[], yticks=[], title=title)
    for side in axes.spines.values():
        side.set_color("#dfe2e6")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, fontsize=8, frameon=False)
    return figure


def shown_picture(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """(H, W, 3) in [0, 1] of a normalised image (3, H, W)."""
    scale, shift = (torch.tensor(values).view(3, 1, 1) for values in (std, mean))
    return (image.cpu() * scale + shift).clamp(0, 1).permute(1, 2, 0).numpy()


def attention_figure(picture: np.ndarray, index: int, blocks: Sequence[tuple[int, Attention]]) -> Figure:
    """The picture, and for each of the blocks where its class token and its prompt tokens look.

    Args:
        picture: (H, W, 3).
        index: of the picture among those that the attention was recorded for.
        blocks: with their numbers, counted from 0.
    """
    rows = [("class token", "of_class")]
    if any(attention.of_prompts is not None for _, attention in blocks):
        rows.append(("prompt tokens", "of_prompts"))
    columns = 1 + len(blocks)
    figure = Figure(figsize=(1.7 * columns, 1.85 * len(rows)))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    grid[0, 0].imshow(picture)
    grid[0, 0].set_title("picture", fontsize=8)
    for row, (label, name) in enumerate(rows):
        for column, (number, attention) in enumerate(blocks, start=1):
            axes, found = grid[row, column], getattr(attention, name)
            axes.set_title(f"{label}, block {number}", fontsize=8)
            if found is None:
                axes.set(aspect="equal")
                axes.text(0.5, 0.5, "not computed", fontsize=8, color="#5f656d", ha="center", va="center")
                continue
            heat = F.interpolate(found[index][None, None], size=picture.shape[:2], mode="bicubic")[0, 0]
            axes.imshow(picture.mean(axis=2), cmap="gray", vmin=0, vmax=1)
            axes.imshow(heat.numpy(), cmap="inferno", alpha=0.6)
    figure.subplots_adjust(wspace=0.06, hspace=0.2)
    return figure
