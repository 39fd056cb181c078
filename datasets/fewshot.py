"""The draws: few-shot subsets, and base or new classes."""

import math
import random
from collections.abc import Sequence
from typing import TypeVar

from dassl.data.datasets import Datum
from dassl.utils import check_availability
from datasets.splits import Split, by_label

T = TypeVar("T")
SUBSAMPLES = ("all", "base", "new")


def shot_rng(seed: int) -> random.Random:
    """The generator of the shots. A negative seed (none) gives one seeded from Python's global generator."""
    return random.Random(seed if seed >= 0 else random.getrandbits(64))


def draw_shots(items: Sequence[T], num_shots: int, rng: random.Random) -> list[T]:
    """``num_shots`` items of one class; all of them, without using ``rng``, if there are fewer."""
    return rng.sample(items, num_shots) if len(items) >= num_shots else list(items)


def few_shot(split: Split, num_shots: int, seed: int) -> Split:
    """The K-shot subset: K items of each class of train, then min(K, 4) of val; test is unchanged.

    One ``random.Random(seed)`` draws over train and then over val, for each class in order of first appearance.
    This gives the subsets that the published numbers were measured on. It takes milliseconds and is never cached.

    Args:
        split: the full split.
        num_shots: K; below 1 the split is returned unchanged.
        seed: from 0 on; with a negative seed the subset is not reproducible.
    """
    if num_shots < 1:
        return split
    rng = shot_rng(seed)

    def draw(items: list[Datum], shots: int) -> list[Datum]:
        return [item for group in by_label(items).values() for item in draw_shots(group, shots, rng)]

    train = draw(split.train, num_shots)
    return Split(train, draw(split.val, min(num_shots, 4)), split.test)


def with_fewer_images(items: Sequence[Datum], num_shots: int) -> dict[str, int]:
    """{class name: number of items} of the classes with fewer than ``num_shots`` items."""
    groups = by_label(items).values() if num_shots >= 1 else ()
    return {group[0].classname: len(group) for group in groups if len(group) < num_shots}


def subsample_lists(lists: Sequence[list[Datum]], subsample: str) -> list[list[Datum]]:
    """``subsample_classes`` for any number of lists; the first one defines the classes."""
    check_availability(subsample, SUBSAMPLES, "DATASET.SUBSAMPLE_CLASSES")
    if subsample == "all":
        return list(lists)
    labels = sorted({item.label for item in lists[0]})
    half = math.ceil(len(labels) / 2)
    chosen = labels[:half] if subsample == "base" else labels[half:]
    if not chosen:
        raise ValueError(f"cannot split {len(labels)} class into base and new: set DATASET.SUBSAMPLE_CLASSES to all")
    relabel = {label: new for new, label in enumerate(chosen)}
    return [
        [Datum(i.impath, relabel[i.label], i.domain, i.classname) for i in items if i.label in relabel]
        for items in lists
    ]


def subsample_classes(split: Split, subsample: str) -> Split:
    """The items of the base classes (first ⌈n/2⌉ by label), of the new ones (the rest), or all; labels from 0.

    Raises:
        ValueError: ``subsample`` is none of "all", "base", "new", or a single class is to be split.
    """
    return Split(*subsample_lists(split, subsample))
