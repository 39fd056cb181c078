"""Show a dataset: its classes, prompts, counts, and a contact sheet."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from dassl.data.datasets import DatasetBase, Datum
from dassl.utils import atomic_write, read_image
from dassl.utils.names import DEFAULT_TEMPLATE, fill
from datasets.splits import by_label

PARTS = {"train": "train_x", "val": "val", "test": "test"}
SIDE, GAP, TEXT = 112, 6, 18  # pixels: an image, the space between images, and a line of text


def describe(dataset: DatasetBase, prompts: int = 5) -> dict[str, Any]:
    """Class names, sample prompts, and for each part the number of images in total and per class."""
    template = getattr(dataset, "template", DEFAULT_TEMPLATE)
    parts = {}
    for part, attribute in PARTS.items():
        counts = Counter(item.label for item in getattr(dataset, attribute) or [])
        if counts:
            per_class = {"min": min(counts.values()), "median": median(counts.values()), "max": max(counts.values())}
            parts[part] = {"images": counts.total(), "classes": len(counts), "images per class": per_class}
    return {
        "classes": dataset.classnames,
        "prompts": fill(template, dataset.classnames[:prompts]),
        "parts": parts,
    }


def contact_sheet(items: Sequence[Datum], path: Path, classes: int, columns: int) -> None:
    """Write a PNG with one row for each of the first classes: its name and its first images.

    Args:
        items: of any number of classes.
        path: the file, written atomically.
        classes: maximum number of rows.
        columns: maximum number of images per class.
    """
    groups = sorted(by_label(items).items())[:classes]
    columns = min(columns, max(len(group) for _, group in groups))
    row = TEXT + SIDE + GAP
    sheet = Image.new("RGB", (columns * (SIDE + GAP) + GAP, len(groups) * row + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, (label, group) in enumerate(groups):
        top = GAP + number * row
        draw.text((GAP, top), f"{label}  {group[0].classname}", fill="black", font=font)
        for column, item in enumerate(group[:columns]):
            sheet.paste(_thumbnail(item.impath), (GAP + column * (SIDE + GAP), top + TEXT))
    with atomic_write(path) as file:
        sheet.save(file, "PNG")


def _thumbnail(path: str) -> Image.Image:
    """The centre crop of an image, SIDE × SIDE pixels."""
    return ImageOps.fit(read_image(path, draft=(2 * SIDE, 2 * SIDE)), (SIDE, SIDE))
