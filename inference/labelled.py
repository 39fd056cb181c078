"""Pictures whose classes are known: in a folder for each class, or the test images of a run's data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dassl.data.datasets.build import build_dataset
from dassl.utils import first_few, readable
from datasets.listing import list_images

from .classifier import Classifier


class Labelled(NamedTuple):
    """A picture, and the index of its class; None where that is not known."""

    path: str
    label: int | None


def pictures_in(folder: str | Path, classnames: Sequence[str]) -> list[Labelled]:
    """The images in a folder and below. Those in a folder with the name of a class are taken to be of that class.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it has no images, or the folders in it are of other classes.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(
            f"no folder {path}: --images names a folder of pictures, or of one folder for each class"
        )
    labels = {readable(name).lower(): label for label, name in reversed(list(enumerate(classnames)))}
    found = [
        Labelled(str(path / name), labels.get(readable(name.split("/")[0]).lower()) if "/" in name else None)
        for name in list_images(path)
    ]
    if not found:
        raise ValueError(f"{path} has no images")
    others = sorted({name.split("/")[0] for name in list_images(path) if "/" in name})
    if others and all(one.label is None for one in found):
        print(f"{path}: no folder has the name of a class ({first_few(others)}), so that these pictures have no labels")
    return found


def pictures_of(classifier: Classifier) -> list[Labelled]:
    """The test images of the run's data set.

    Raises:
        FileNotFoundError, ValueError: the data are not here, or have other classes.
    """
    cfg = classifier.run.cfg
    dataset = build_dataset(cfg)
    if list(dataset.classnames) != classifier.classnames:
        raise ValueError(f"the classes of {cfg.DATASET.NAME} are not those of this classifier")
    return [Labelled(item.impath, item.label) for item in dataset.test or []]


def pictures_or_reason(classifier: Classifier, folder: str | None) -> tuple[list[Labelled], str]:
    """Pictures to measure on, or the reason why there are none."""
    if folder is not None:
        return pictures_in(folder, classifier.classnames), ""
    try:
        return pictures_of(classifier), ""
    except (FileNotFoundError, ValueError) as error:
        return [], f"no --images, and the run's data are not here ({str(error).splitlines()[0]})"


def evenly(pictures: Sequence[Labelled], count: int) -> list[Labelled]:
    """At most `count` of the pictures, at equal distances, so that each class keeps its share."""
    step = max(len(pictures) / count, 1)
    return [pictures[int(i * step)] for i in range(min(count, len(pictures)))]
