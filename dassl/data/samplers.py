"""Orders in which a loader visits the items."""

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
    """The items' indices by their ``domain`` or ``label``, keys in ascending order."""
    groups: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(data_source):
        groups[getattr(item, attribute)].append(index)
    return dict(sorted(groups.items()))


def _num_batches(chunks: Sequence[int], per_batch: int) -> int:
    """How many batches of ``per_batch`` different groups can be made from groups of so many chunks each."""
    left, batches = sorted(chunks), 0
    while len(left) >= per_batch and left[-per_batch] > 0:
        left[-per_batch:] = [count - 1 for count in left[-per_batch:]]
        left.sort()
        batches += 1
    return batches


def _draw_batches(groups: dict[int, list[list[int]]], per_batch: int) -> list[int]:
    """Batches of one chunk from each of ``per_batch`` groups, in random order, joined to one list of indices.

    The groups with the most chunks left are drawn from first (ties at random): as many batches as possible, and the
    same number every epoch.
    """
    left = {key: list(chunks) for key, chunks in groups.items()}
    batches = []
    for _ in range(_num_batches([len(chunks) for chunks in left.values()], per_batch)):
        keys = sorted(left, key=lambda key: (-len(left[key]), random.random()))[:per_batch]
        batches.append([index for key in keys for index in left[key].pop()])
    random.shuffle(batches)
    return [index for batch in batches for index in batch]


def _chunks(indices: list[int], size: int, fill: bool = False) -> list[list[int]]:
    """Random chunks of ``size``; a group smaller than that gives one chunk with repeats if ``fill``."""
    if fill and len(indices) < size:
        return [random.choices(indices, k=size)]
    shuffled = random.sample(indices, len(indices))
    return [shuffled[i : i + size] for i in range(0, len(shuffled) - size + 1, size)]


class RandomDomainSampler(Sampler[int]):
    """Batches of equally many random items from each of ``n_domain`` random domains.

    Args:
        data_source: the items.
        batch_size: items a batch.
        n_domain: domains a batch; 0 or less means all.

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
            raise ValueError(f"N_DOMAIN is {n_domain}, but the data have {len(self.domains)} domains")
        if batch_size % self.n_domain:
            raise ValueError(f"The batch size {batch_size} must be a multiple of the {self.n_domain} domains a batch")
        self.n_img_per_domain = batch_size // self.n_domain
        chunks = [len(indices) // self.n_img_per_domain for indices in self.domain_dict.values()]
        self.length = _num_batches(chunks, self.n_domain) * batch_size

    def __iter__(self) -> Iterator[int]:
        chunks = {key: _chunks(indices, self.n_img_per_domain) for key, indices in self.domain_dict.items()}
        return iter(_draw_batches(chunks, self.n_domain))

    def __len__(self) -> int:
        return self.length


class SeqDomainSampler(Sampler[int]):
    """Batches of one domain each, the domains in turn, equally many batches of each.

    Args:
        data_source: the items.
        batch_size: items a batch.
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

    A class with fewer than ``n_ins`` items repeats some.

    Args:
        data_source: the items.
        batch_size: items a batch.
        n_ins: items of a class in a batch.

    Raises:
        ValueError: ``n_ins`` is larger than the batch size, or a batch needs more classes than there are.
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
            raise ValueError(f"A batch takes {self.ncls_per_batch} classes, but the data have {len(self.labels)}")
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
    """The sampler of that name.

    Raises:
        ValueError: there is none of that name.
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
