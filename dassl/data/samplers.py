"""Samplers: the order in which a loader visits the items."""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data.sampler import RandomSampler, Sampler, SequentialSampler
from yacs.config import CfgNode

from dassl.utils import check_availability

from .datasets import Datum

AVAI_SAMPLERS = [
    "RandomDomainSampler",
    "SeqDomainSampler",
    "RandomSampler",
    "SequentialSampler",
    "RandomClassSampler",
]


def _indices_by(data_source: Sequence[Datum], attribute: str) -> dict[int, list[int]]:
    """Indices of the items by ``domain`` or ``label``, keys in ascending order."""
    groups: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(data_source):
        groups[getattr(item, attribute)].append(index)
    return dict(sorted(groups.items()))


def _num_batches(chunks: Sequence[int], per_batch: int) -> int:
    """Number of batches with one chunk each from ``per_batch`` groups, given the number of chunks per group."""
    left, batches = sorted(chunks), 0
    while len(left) >= per_batch and left[-per_batch] > 0:
        left[-per_batch:] = [count - 1 for count in left[-per_batch:]]
        left.sort()
        batches += 1
    return batches


def _draw_batches(groups: dict[int, list[list[int]]], per_batch: int) -> list[int]:
    """Batches with one chunk each from ``per_batch`` groups, in random order, concatenated to one list of indices.

    Each batch takes the groups with the most remaining chunks (ties are broken at random). This gives the maximum
    number of batches, which is the same in every epoch.
    """
    left = {key: list(chunks) for key, chunks in groups.items()}
    batches = []
    for _ in range(_num_batches([len(chunks) for chunks in left.values()], per_batch)):
        keys = sorted(left, key=lambda key: (-len(left[key]), random.random()))[:per_batch]
        batches.append([index for key in keys for index in left[key].pop()])
    random.shuffle(batches)
    return [index for batch in batches for index in batch]


def _chunks(indices: list[int], size: int, fill: bool = False) -> list[list[int]]:
    """Random chunks of ``size``; with ``fill``, a smaller group gives one chunk with repetitions."""
    if fill and len(indices) < size:
        return [random.choices(indices, k=size)]
    shuffled = random.sample(indices, len(indices))
    return [shuffled[i : i + size] for i in range(0, len(shuffled) - size + 1, size)]


class RandomDomainSampler(Sampler[int]):
    """Batches with the same number of random items from each of ``n_domain`` random domains.

    Args:
        data_source: the items.
        batch_size: items per batch.
        n_domain: domains per batch; 0 or less: all.

    Raises:
        ValueError: the batch size is not a multiple of the number of domains, or there are fewer domains.
    """

    def __init__(self, data_source: Sequence[Datum], batch_size: int, n_domain: int) -> None:
        self.data_source = data_source
        self.domain_dict = _indices_by(data_source, "domain")
        self.domains = list(self.domain_dict)
        self.n_domain = n_domain if n_domain > 0 else len(self.domains)
        self.batch_size = batch_size
        if self.n_domain > len(self.domains):
            raise ValueError(f"N_DOMAIN is {n_domain}, but the data has {len(self.domains)} domains")
        if batch_size % self.n_domain:
            raise ValueError(f"The batch size {batch_size} must be a multiple of the {self.n_domain} domains per batch")
        self.n_img_per_domain = batch_size // self.n_domain
        chunks = [len(indices) // self.n_img_per_domain for indices in self.domain_dict.values()]
        self.length = _num_batches(chunks, self.n_domain) * batch_size

    def __iter__(self) -> Iterator[int]:
        chunks = {key: _chunks(indices, self.n_img_per_domain) for key, indices in self.domain_dict.items()}
        return iter(_draw_batches(chunks, self.n_domain))

    def __len__(self) -> int:
        return self.length


class SeqDomainSampler(Sampler[int]):
    """Batches from one domain each, domains in turn, with the same number of batches per domain.

    Args:
        data_source: the items.
        batch_size: items per batch.
    """

    def __init__(self, data_source: Sequence[Datum], batch_size: int) -> None:
        self.data_source = data_source
        self.domain_dict = _indices_by(data_source, "domain")
        self.domains = list(self.domain_dict)
        self.batch_size = batch_size
        self.rounds = min(len(indices) for indices in self.domain_dict.values()) // batch_size
        self.length = self.rounds * batch_size * len(self.domains)

    def __iter__(self) -> Iterator[int]:
        chunks = [_chunks(indices, self.batch_size)[: self.rounds] for indices in self.domain_dict.values()]
        return iter([index for one_round in zip(*chunks, strict=True) for chunk in one_round for index in chunk])

    def __len__(self) -> int:
        return self.length


class RandomClassSampler(Sampler[int]):
    """Batches of ``n_ins`` random items from each of ``batch_size // n_ins`` random classes.

    Items of a class with fewer than ``n_ins`` items are repeated.

    Args:
        data_source: the items.
        batch_size: items per batch.
        n_ins: items per class in a batch.

    Raises:
        ValueError: ``n_ins`` is larger than the batch size, or there are fewer classes than a batch needs.
    """

    def __init__(self, data_source: Sequence[Datum], batch_size: int, n_ins: int) -> None:
        if n_ins > batch_size:
            raise ValueError(f"N_INS {n_ins} must not be larger than the batch size {batch_size}")
        self.data_source = data_source
        self.batch_size = batch_size
        self.n_ins = n_ins
        self.ncls_per_batch = batch_size // n_ins
        self.index_dic = _indices_by(data_source, "label")
        self.labels = list(self.index_dic)
        if len(self.labels) < self.ncls_per_batch:
            raise ValueError(f"A batch needs {self.ncls_per_batch} classes, but the data has {len(self.labels)}")
        chunks = [max(len(indices) // n_ins, 1) for indices in self.index_dic.values()]
        self.length = _num_batches(chunks, self.ncls_per_batch) * self.ncls_per_batch * n_ins

    def __iter__(self) -> Iterator[int]:
        chunks = {key: _chunks(indices, self.n_ins, fill=True) for key, indices in self.index_dic.items()}
        return iter(_draw_batches(chunks, self.ncls_per_batch))

    def __len__(self) -> int:
        return self.length


def build_sampler(
    sampler_type: str,
    cfg: CfgNode | None = None,
    data_source: Sequence[Datum] | None = None,
    batch_size: int = 32,
    n_domain: int = 0,
    n_ins: int = 16,
) -> Any:
    """Build the sampler named ``sampler_type``.

    Raises:
        ValueError: unknown name.
    """
    check_availability(sampler_type, AVAI_SAMPLERS, "SAMPLER")
    items = data_source if data_source is not None else []
    if sampler_type == "RandomDomainSampler":
        return RandomDomainSampler(items, batch_size, n_domain)
    if sampler_type == "SeqDomainSampler":
        return SeqDomainSampler(items, batch_size)
    if sampler_type == "RandomClassSampler":
        return RandomClassSampler(items, batch_size, n_ins)
    return RandomSampler(items) if sampler_type == "RandomSampler" else SequentialSampler(items)
