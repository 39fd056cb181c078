"""Finding pictures on a command line, and reading them in batches: one that cannot be read is named, not fatal."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dassl.data.loader import LoadedItems, Loader
from dassl.utils.progress import progress
from datasets.listing import is_image, is_left_behind

from .classifier import Classifier


def find_pictures(arguments: Sequence[str]) -> list[str]:
    """The files that the arguments name: files, folders with what is below them, patterns, and - for a list on stdin.

    A file of the list may be missing, which is found when it is read.

    Raises:
        FileNotFoundError: an argument is no file, folder or pattern that matches.
        ValueError: there are no pictures.
    """
    found = [path for argument in arguments for path in _expand(argument)]
    if not found:
        raise ValueError(f"no pictures in {' '.join(arguments)}")
    return found


def _expand(argument: str) -> Iterator[str]:
    if argument == "-":
        yield from (os.fsdecode(line) for line in sys.stdin.buffer.read().splitlines() if line.strip())
    elif os.path.isdir(argument):
        yield from _below(argument)
    elif os.path.exists(argument):
        yield argument
    elif matching := sorted(glob.glob(argument, recursive=True)):
        for path in matching:
            yield from _below(path) if os.path.isdir(path) else [path]
    else:
        raise FileNotFoundError(f"no file, folder or pattern that matches: {argument}")


def _below(folder: str) -> Iterator[str]:
    """The pictures in a folder and in those below it, by their suffix, in the order of their names."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_left_behind(name))
        yield from (os.path.join(parent, name) for name in sorted(names) if is_image(name) and not is_left_behind(name))


class Pictures(Dataset):
    """Items (index, tensor (3, H, W), error): of a picture that cannot be read a black one, with the error's text."""

    def __init__(self, classifier: Classifier, paths: Sequence[str]):
        self.read, self.paths = classifier.reader, paths
        self.size = tuple(classifier.run.cfg.INPUT.SIZE)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[int, Tensor, str]:
        try:
            return index, self.read(self.paths[index]), ""
        except (OSError, ValueError) as error:
            return index, torch.zeros(3, *self.size), str(error)


def read_pictures(
    classifier: Classifier, paths: Sequence[str], batch: int, workers: int | None = None
) -> Iterator[tuple[Tensor, Tensor, dict[int, str]]]:
    """Batches: indices (B,) and images (B, 3, H, W) of those that could be read, and the errors of the others by index.

    Args:
        workers: processes that read; by default the run's DATALOADER.NUM_WORKERS, or none for a single batch.
    """
    if workers is None:
        workers = classifier.run.cfg.DATALOADER.NUM_WORKERS if len(paths) > batch else 0
    items = LoadedItems(Pictures(classifier, paths), is_train=False, skip_bad=False)
    loader = Loader(items, batch_size=batch, num_workers=workers)
    for indices, images, errors in progress(loader, "pictures", len(loader)):
        good = torch.tensor([not error for error in errors])
        failed = {int(index): error for index, error in zip(indices, errors, strict=True) if error}
        yield indices[good], images[good], failed
