"""A data loader whose batches do not depend on the number of workers, and that can skip unreadable images."""

import functools
import gc
import hashlib
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from dassl.utils.console import printable
from dassl.utils.cpu import cores
from dassl.utils.failures import WorkerError, explain_worker, worker_death

LOOK_SECONDS = 2.0  # without a batch, after which the workers are looked at
STOPPED_SECONDS = 30.0  # that a worker may be stopped (as by SIGSTOP) before the run ends
SLOW_SECONDS = 60.0  # without a batch, after which a line says so


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
        super().__init__(items, collate_fn=_collate, generator=generator, worker_init_fn=_prepare_worker, **kwargs)
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
            batches = _with_clear_errors(batches)
        return self._good_batches(batches) if self.items.skip_bad else batches

    def _get_iterator(self) -> Any:
        if not self.num_workers:
            return super()._get_iterator()
        with _signals_left_alone():
            return _WatchedWorkers(self)

    def check_worker_number_rationality(self) -> None:
        """Say once, in place of PyTorch's warning, if there are more workers than cores."""
        if self.num_workers > (there := cores()):
            _say_too_many(self.num_workers, there)

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


class _WatchedWorkers(_MultiProcessingDataLoaderIter):
    """The batches of worker processes. While a batch is late, the workers are looked at every LOOK_SECONDS."""

    _late = _stopped = 0.0  # seconds since the last batch; of these, how long a worker has been stopped

    def _try_get_data(self, timeout: float = LOOK_SECONDS) -> tuple[bool, Any]:
        start = time.monotonic()
        try:
            found = super()._try_get_data(timeout)
        except Exception:
            wait([worker.sentinel for worker in self._workers], timeout=5)  # its pipe may break before it has ended
            for worker in self._workers:
                if worker.exitcode is not None:
                    self._end(worker_death(worker.pid, max(-worker.exitcode, 0)))
            raise
        if found[0]:
            self._late = self._stopped = 0.0
        else:
            self._look_at_workers(time.monotonic() - start)
        return found

    def _look_at_workers(self, waited: float) -> None:
        before, self._late = self._late, self._late + waited
        stopped = [worker for worker in self._workers if _is_stopped(worker.pid)]
        if not stopped:
            if before < SLOW_SECONDS <= self._late:
                print(f"No batch for {self._late:.0f} s: the workers are still reading images (a slow disk?)")
            self._stopped = 0.0
            return
        names = ", ".join(str(worker.pid) for worker in stopped)
        if not self._stopped:
            print(f"Data loader's worker process {names} is stopped (SIGSTOP): `kill -CONT {names}` continues it")
        self._stopped += waited
        if self._stopped >= STOPPED_SECONDS:
            self._end(
                f"the data loader's worker process {names} has been stopped (SIGSTOP, as by a debugger or a scheduler)"
                f" for {self._stopped:.0f} s"
            )

    def _end(self, reason: str) -> NoReturn:
        for worker in self._workers:
            worker.kill()
            worker.join()
        raise WorkerError(reason) from None

    def _shutdown_workers(self) -> None:
        for worker in self._workers:
            if _is_stopped(worker.pid):  # it does not react, and would be waited for
                worker.kill()
                worker.join()
        super()._shutdown_workers()  # type: ignore[no-untyped-call]


def _is_stopped(pid: int | None) -> bool:
    """Whether a signal has stopped a process; known on Linux only."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


@contextmanager
def _signals_left_alone() -> Iterator[None]:
    """Start workers in the block: they do not get Ctrl-C, of which the main process tells them.

    PyTorch's handler of SIGCHLD is taken away again. It raises an error about a dead worker wherever the main thread
    is, such as in a destructor or an optimizer's step; the loader finds out when it waits for that worker's batch.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield  # on Windows there are no such signals, and other threads do not handle them
        return
    handler = signal.getsignal(signal.SIGCHLD)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _prepare_worker(worker: int) -> None:
    """Set up a worker process before its first item."""
    # The collector would write to every object that a forked worker shares with the main process, and so copy them
    gc.freeze()
    for name in ("SIGBUS", "SIGFPE", "SIGSEGV"):  # PyTorch prints a line for each, the main process says it anyway
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


@functools.cache
def _say_too_many(workers: int, cores: int) -> None:
    print(
        f"DATALOADER.NUM_WORKERS is {workers}, this process may use {cores} core{'s' if cores > 1 else ''}:"
        " more workers than cores take memory and are not faster"
    )


def _with_clear_errors(batches: Iterator[Any]) -> Iterator[Any]:
    """The batches; an error from a worker or about one has its message alone, without the worker's traceback.

    A mistake of the program keeps its traceback.
    """
    try:
        yield from batches
    except (ValueError, OSError, MemoryError) as error:
        text, kind = str(error), type(error).__name__
        if not text.startswith(f"Caught {kind} in DataLoader worker"):
            raise
        raise type(error)(re.split(rf"(?m)^(?:\w+\.)*{kind}: ", text)[-1].strip()) from None
    except RuntimeError as error:
        if line := explain_worker(error):
            raise WorkerError(line) from None
        raise


def _collate(items: list[Any]) -> Any:
    """A batch of the items that could be read; None if there are none."""
    readable = [item for item in items if item is not None]
    return default_collate(readable) if readable else None
