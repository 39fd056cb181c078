"""In-memory cache of the decoded images of a few-shot training set, shared by all worker processes."""

import mmap
import multiprocessing
import threading
from typing import Any

import numpy as np
from PIL import Image

_EMPTY, _WRITING, _READY = 0, 1, 2


class ImageCache:
    """Caches decoded RGB pixels until the budget is used up. Nothing is evicted.

    The pixels are in anonymous shared memory: workers forked after the cache was created fill and read the same copy.
    Spawned workers have separate caches, each with its share of the budget.

    Args:
        num_items: number of items.
        budget: maximum size of the pixels in bytes, over all workers.
        num_workers: worker processes that read (0: only this process).
    """

    def __init__(self, num_items: int, budget: int, num_workers: int = 0) -> None:
        self._num_items, self._budget, self._num_workers = num_items, budget, num_workers
        # One row per item: state, offset, width, height. The first field of the last row is the number of bytes used.
        self._table = np.frombuffer(mmap.mmap(-1, (num_items + 1) * 4 * 8), dtype=np.int64).reshape(-1, 4)
        self._pixels = memoryview(mmap.mmap(-1, budget))
        can_fork = "fork" in multiprocessing.get_all_start_methods()
        self._lock: Any = multiprocessing.get_context("fork").Lock() if can_fork else threading.Lock()

    def get(self, index: int) -> Image.Image | None:
        """The image of an item, None if it is not cached."""
        with self._lock:
            state, offset, width, height = self._table[index].tolist()
        if state != _READY:
            return None
        return Image.frombytes("RGB", (width, height), self._pixels[offset : offset + width * height * 3])

    def put(self, index: int, image: Image.Image) -> None:
        """Cache the image of an item if it fits and no other process is writing it."""
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
        """Number of cached images."""
        return int((self._table[:-1, 0] == _READY).sum())

    @property
    def used(self) -> int:
        """Number of bytes used by pixels."""
        return int(self._table[-1, 0])

    def __reduce__(self) -> tuple[type, tuple[int, int, int]]:
        """A pickled cache (for a spawned worker) is empty and has that worker's share of the budget."""
        return ImageCache, (self._num_items, max(self._budget // max(self._num_workers, 1), mmap.PAGESIZE), 1)
