"""Decoded images of a few-shot training set in memory, one copy for all worker processes."""

import mmap
import multiprocessing
import threading
from typing import Any

import numpy as np
from PIL import Image

_EMPTY, _WRITING, _READY = 0, 1, 2


class ImageCache:
    """Keeps the decoded RGB pixels of items, until the budget is used up; what is kept then stays.

    The pixels lie in anonymous shared memory: workers that are forked after the cache was made fill and read the
    same copy. Where workers are spawned instead, each has a cache of its own with its part of the budget.

    Args:
        num_items: number of items.
        budget: bytes that the pixels of all workers together may take.
        num_workers: worker processes that will read (0: this process alone).
    """

    def __init__(self, num_items: int, budget: int, num_workers: int = 0) -> None:
        self._num_items, self._budget, self._num_workers = num_items, budget, num_workers
        # A row an item: state, offset, width, height. The last row holds the bytes used, in its first field.
        self._table = np.frombuffer(mmap.mmap(-1, (num_items + 1) * 4 * 8), dtype=np.int64).reshape(-1, 4)
        self._pixels = memoryview(mmap.mmap(-1, budget))
        can_fork = "fork" in multiprocessing.get_all_start_methods()
        self._lock: Any = multiprocessing.get_context("fork").Lock() if can_fork else threading.Lock()

    def get(self, index: int) -> Image.Image | None:
        """The image of an item, None if it is not kept."""
        with self._lock:
            state, offset, width, height = self._table[index].tolist()
        if state != _READY:
            return None
        return Image.frombytes("RGB", (width, height), self._pixels[offset : offset + width * height * 3])

    def put(self, index: int, image: Image.Image) -> None:
        """Keep an item's image if it fits and no other process is doing so."""
        width, height = image.size
        size = width * height * 3
        with self._lock:
            offset = int(self._table[-1, 0])
            if self._table[index, 0] != _EMPTY or offset + size > self._budget:
                return
            self._table[-1, 0] = offset + size
            self._table[index] = (_WRITING, offset, width, height)
        self._pixels[offset : offset + size] = image.tobytes()
        with self._lock:
            self._table[index, 0] = _READY

    def __len__(self) -> int:
        """Number of images kept."""
        return int((self._table[:-1, 0] == _READY).sum())

    @property
    def used(self) -> int:
        """Bytes of pixels kept."""
        return int(self._table[-1, 0])

    def __reduce__(self) -> tuple[type, tuple[int, int, int]]:
        """A pickled cache (for a spawned worker) starts empty, with that worker's part of the budget."""
        return ImageCache, (self._num_items, max(self._budget // max(self._num_workers, 1), mmap.PAGESIZE), 1)
