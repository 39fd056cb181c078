"""The loader: batches that do not depend on the number of workers, and images that cannot be read."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from .seeding import item_rng


class BadImageError(ValueError):
    """An image of the dataset that is missing or cannot be decoded."""


class LoadedItems(Dataset):
    """A dataset as the loader reads it: one seed an item, and bad images skipped if that is asked for.

    A training item that cannot be read is replaced by the next one that can, so that batches keep their size;
    an evaluation item is left out. Attributes of the wrapped dataset are reachable through this one.

    Args:
        dataset: what is read.
        is_train: whether it is training data: then its randomness is seeded by (epoch, index).
        skip_bad: skip images that cannot be read instead of raising BadImageError.
    """

    def __init__(self, dataset: Any, is_train: bool, skip_bad: bool) -> None:
        self.dataset = dataset
        self.is_train = is_train
        self.skip_bad = skip_bad
        # Shared with the workers, which outlive an epoch: the seed of the epoch, and who found which image bad.
        self.epoch_seed = torch.zeros((), dtype=torch.int64).share_memory_()
        self.bad = torch.zeros(len(dataset) if skip_bad else 0, dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, index: int) -> Any:
        if not self.is_train:
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
    """A DataLoader whose batches depend on torch's main generator alone.

    Training: each ``iter()`` draws one number from the main generator; the order and every item's randomness derive
    from it, so batches are the same for any number of workers, and restoring the main generator at an epoch's start
    repeats the epoch. Evaluation draws nothing.
    """

    def __init__(self, items: LoadedItems, **kwargs: Any) -> None:
        super().__init__(items, collate_fn=_collate, generator=torch.Generator(), **kwargs)
        self.items = items
        # Of its own: the loader's generator seeds the workers, which persistent ones do not repeat every epoch.
        self._order = torch.Generator()
        if hasattr(self.sampler, "generator"):
            self.sampler.generator = self._order

    def __iter__(self) -> Any:
        if self.items.is_train:
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
                f"{', '.join(names)}{', …' if len(bad) > 5 else ''}"
            )


def _without_traceback(batches: Iterator[Any]) -> Iterator[Any]:
    """The batches; a worker's BadImageError comes as it was raised there, without the traceback around it."""
    try:
        yield from batches
    except BadImageError as error:
        marker = f"{BadImageError.__name__}: "
        raise BadImageError(str(error).rpartition(marker)[2].strip() or str(error)) from None


def _collate(items: list[Any]) -> Any:
    """A batch of the items that could be read; None if none could."""
    kept = [item for item in items if item is not None]
    return default_collate(kept) if kept else None
