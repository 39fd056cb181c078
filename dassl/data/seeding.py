"""Seeds of training items that depend only on (epoch seed, index), not on the process that reads them."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


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
