"""A data loader whose batches do not depend on the number of workers, and that can skip unreadable images."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from dassl.utils.console import printable


class BadImageError(ValueError):
    """An image of the dataset is missing or cannot be decoded."""


def item_seed(epoch_seed: int, index: int) -> int:
    """A 63-bit seed for an item in an epoch."""
    digest = hashlib.blake2b(b"%d/%d" % (epoch_seed, index), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def item_rng(epoch_seed: int, index: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generators for an item, and restore their states on exit."""
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seed = item_seed(epoch_seed, index)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


class LoadedItems(Dataset):
    """Wraps a dataset for the loader: optionally one seed per item, and no unreadable images.

    With ``skip_bad``, a training item that cannot be read is replaced by the next readable one, so that batches keep
    their size, and an evaluation item is left out. Attributes of the wrapped dataset are available on the wrapper.

    Args:
        dataset: the dataset to wrap.
        is_train: whether this is training data.
        skip_bad: skip images that cannot be read instead of raising BadImageError.
        seeded: whether the randomness of training data is seeded by (epoch, index).
    """

    def __init__(self, dataset: Any, is_train: bool, skip_bad: bool, seeded: bool = True) -> None:
        self.dataset = dataset
        self.is_train = is_train
        self.skip_bad = skip_bad
        self.seeded = seeded and is_train
        # In shared memory, because workers persist between epochs: the seed of the epoch, and which images are bad.
        self.epoch_seed = torch.zeros((), dtype=torch.int64).share_memory_()
        self.bad = torch.zeros(len(dataset) if skip_bad else 0, dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, index: int) -> Any:
        if not self.seeded:
            return self._read(index)
        with item_rng(int(self.epoch_seed), index):
            return self._read(index)

    def _read(self, index: int) -> Any:
        if not self.skip_bad:
            return self.dataset[index]
        count = len(self) if self.is_train else 1
        for candidate in range(index, index + count):
            candidate %= len(self)
            try:
                return self.dataset[candidate]
            except BadImageError:
                self.bad[candidate] = 1
        if self.is_train:
            raise BadImageError(f"None of the {len(self)} training images can be read: check DATASET.ROOT")
        return None


class Loader(DataLoader):
    """A DataLoader whose batches depend only on torch's global generator.

    Training: each ``iter()`` draws one number from the global generator. The order and the randomness of every item
    derive from it, so batches are the same for any number of workers, and restoring the state of the global generator
    at the start of an epoch repeats the epoch. Evaluation draws nothing.

    Args:
        published: draw as torch's own loader does instead, of which published code has one: an order, and a seed for
            each worker process, per ``iter()``, also of an evaluation; items draw where they are read.
    """

    def __init__(self, items: LoadedItems, published: bool = False, **kwargs: Any) -> None:
        generator = None if published else torch.Generator()
        super().__init__(items, collate_fn=_collate, generator=generator, **kwargs)
        self.items = items
        # Not the loader's own generator, which seeds the workers: persistent workers are not seeded again every epoch.
        self._order = torch.Generator()
        if not published and hasattr(self.sampler, "generator"):
            self.sampler.generator = self._order

    def __iter__(self) -> Any:
        if self.items.seeded:
            seed = int(torch.empty((), dtype=torch.int64).random_())
            self.items.epoch_seed.fill_(seed)
            self._order.manual_seed(seed)
        batches: Iterator[Any] = super().__iter__()
        if self.num_workers:
            batches = _without_traceback(batches)
        return self._good_batches(batches) if self.items.skip_bad else batches

    def _good_batches(self, batches: Iterator[Any]) -> Iterator[Any]:
        yield from (batch for batch in batches if batch is not None)
        if bad := self.items.bad.nonzero().flatten().tolist():
            data_source = getattr(self.items, "data_source", None)
            names = [data_source[index].impath for index in bad[:5]] if data_source else [f"item {i}" for i in bad[:5]]
            done = "replaced by others" if self.items.is_train else "left out of the evaluation"
            print(
                f"Warning: {len(bad)} of {len(self.items)} {'training' if self.items.is_train else 'evaluation'} "
                f"images cannot be read and were {done} (DATASET.ON_BAD_IMAGE skip): "
                f"{printable(', '.join(names))}{', …' if len(bad) > 5 else ''}"
            )


def _without_traceback(batches: Iterator[Any]) -> Iterator[Any]:
    """The batches; a BadImageError from a worker is raised again without the traceback in its message."""
    try:
        yield from batches
    except BadImageError as error:
        marker = f"{BadImageError.__name__}: "
        raise BadImageError(str(error).rpartition(marker)[2].strip() or str(error)) from None


def _collate(items: list[Any]) -> Any:
    """A batch of the items that could be read; None if there are none."""
    readable = [item for item in items if item is not None]
    return default_collate(readable) if readable else None
