"""The composition of each sampler's batches, and the length of the sampler."""

import random
from collections import Counter

import pytest

from dassl.data.datasets import Datum
from dassl.data.samplers import RandomClassSampler, RandomDomainSampler, SeqDomainSampler, build_sampler


def make_items(sizes, attribute="domain"):
    return [
        Datum("x", **{"label": 0, "domain": 0, attribute: key}) for key, size in enumerate(sizes) for _ in range(size)
    ]


def batches_of(sampler, size):
    indices = list(sampler)
    assert len(indices) == len(sampler)
    assert len(indices) % size == 0
    return [indices[i : i + size] for i in range(0, len(indices), size)]


@pytest.mark.parametrize("n_domain", [0, 1, 2, 3])
def test_random_domain_batches_are_balanced_and_never_repeat_an_item(n_domain):
    items = make_items([10, 7, 25])
    for seed in range(5):
        random.seed(seed)
        batches = batches_of(RandomDomainSampler(items, batch_size=6, n_domain=n_domain), 6)
        seen = [index for batch in batches for index in batch]
        assert len(set(seen)) == len(seen)
        for batch in batches:
            counts = Counter(items[index].domain for index in batch)
            assert set(counts.values()) == {6 // (n_domain or 3)}
            assert len(counts) == (n_domain or 3)


def test_random_domain_length_is_the_maximum_number_of_batches():
    """All three domains in every batch of 6: the smallest domain of 7 gives 3 pairs."""
    assert len(RandomDomainSampler(make_items([10, 7, 25]), 6, 0)) == 3 * 6


def test_sequential_domain_batches_take_the_domains_in_turn():
    items = make_items([10, 7, 25])
    batches = batches_of(SeqDomainSampler(items, batch_size=3), 3)
    assert [{items[index].domain for index in batch} for batch in batches] == [{0}, {1}, {2}] * 2


def test_random_class_batches_have_n_ins_items_per_class():
    items = make_items([5, 5, 9, 1], attribute="label")
    random.seed(0)
    batches = batches_of(RandomClassSampler(items, batch_size=6, n_ins=3), 6)
    for batch in batches:
        assert set(Counter(items[index].label for index in batch).values()) == {3}
    assert 3 in {items[index].label for batch in batches for index in batch}  # the class with one image repeats it


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomDomainSampler(make_items([4, 4]), 5, 2), "batch size 5 must be a multiple of the 2 domains"),
        (lambda: RandomDomainSampler(make_items([4, 4]), 6, 3), "N_DOMAIN is 3, but the data has 2 domains"),
        (lambda: RandomClassSampler(make_items([4, 4], "label"), 4, 8), "N_INS 8 must not be larger than the batch"),
        (lambda: RandomClassSampler(make_items([4, 4], "label"), 9, 3), "needs 3 classes, but the data has 2"),
        (lambda: build_sampler("RandomSample"), r"'RandomSample' is not available \(did you mean RandomSampler"),
    ],
)
def test_wrong_settings_are_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_build_sampler_knows_the_plain_ones():
    items = make_items([4])
    assert list(build_sampler("SequentialSampler", data_source=items)) == [0, 1, 2, 3]
    assert sorted(build_sampler("RandomSampler", data_source=items)) == [0, 1, 2, 3]
    assert len(build_sampler("SeqDomainSampler", data_source=items, batch_size=2)) == 4
    assert len(build_sampler("RandomClassSampler", data_source=items, batch_size=2, n_ins=2)) == 4
    assert len(build_sampler("RandomDomainSampler", data_source=items, batch_size=2, n_domain=1)) == 4
