"""DatasetBase as plug-ins call it, and the invalid data that it refuses."""

import random

import pytest

from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, build_dataset
from tests.dassl.data.pictures import make_cfg


def data(*labels, names=None):
    return [Datum(f"{i}.jpg", label, classname=(names or {}).get(label, f"c{label}")) for i, label in enumerate(labels)]


def test_names_and_counts():
    dataset = DatasetBase(train_x=data(2, 0, 1, 1), val=data(0), test=data(1, 2))
    assert dataset.num_classes == 3
    assert dataset.lab2cname == {0: "c0", 1: "c1", 2: "c2"}
    assert dataset.classnames == ["c0", "c1", "c2"]
    assert [len(part or []) for part in (dataset.train_x, dataset.train_u, dataset.val, dataset.test)] == [4, 0, 1, 2]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "no training items: an empty or wrong folder"),
        (data(0, 2, 5), "must be 0 to 5 without a gap, but no image has label 1, 3, 4"),
        (data(-1, 0), "must start at 0, but -1"),
        ([*data(0, 1), Datum("x", 1, classname="other")], r"these have several: \(1, \['c1', 'other'\]\)"),
    ],
)
def test_wrong_labels_are_errors(items, message):
    with pytest.raises(ValueError, match=message):
        DatasetBase(train_x=items)


def test_a_path_that_is_no_text_is_an_error():
    with pytest.raises(TypeError, match="impath must be a str, not int"):
        Datum(3)


def test_fewshot_draws_with_pythons_generator_in_order_of_first_appearance():
    items = data(1, 0, 1, 0, 0, 1, 2)
    random.seed(4)
    drawn = DatasetBase(train_x=items).generate_fewshot_dataset(items, num_shots=2)
    rng = random.Random(4)
    by_label = {label: [item for item in items if item.label == label] for label in (1, 0)}
    expected = rng.sample(by_label[1], 2) + rng.sample(by_label[0], 2) + [items[6]]
    assert [item.impath for item in drawn] == [item.impath for item in expected]


def test_fewshot_of_several_sources_with_and_without_repeats():
    items = data(0, 0, 0, 1)
    base = DatasetBase(train_x=items)
    assert base.generate_fewshot_dataset(items) is items
    train, val = base.generate_fewshot_dataset(items, items, num_shots=2, repeat=True)
    assert len(train) == len(val) == 4
    assert len(base.generate_fewshot_dataset(items, num_shots=2)) == 3


def test_splits_by_label_and_domain():
    items = [Datum("a", 1, 0), Datum("b", 0, 2), Datum("c", 1, 2)]
    base = DatasetBase(train_x=data(0))
    assert {k: len(v) for k, v in base.split_dataset_by_label(items).items()} == {1: 2, 0: 1}
    assert {k: len(v) for k, v in base.split_dataset_by_domain(items).items()} == {0: 1, 2: 2}


def test_domains_are_checked():
    base = DatasetBase(train_x=data(0))
    base.domains = ["photo", "sketch"]
    base.check_input_domains(["photo"], ["sketch"])
    with pytest.raises(ValueError, match=r"'skech' is not available \(did you mean sketch"):
        base.check_input_domains(["photo"], ["skech"])


def test_an_unknown_dataset_is_answered_with_the_closest_name():
    @DATASET_REGISTRY.register(force=True)
    class TestOnlyPets(DatasetBase):
        pass

    try:
        with pytest.raises(ValueError, match=r"'TestOnlyPet' is not available \(did you mean TestOnlyPets"):
            build_dataset(make_cfg(DATASET__NAME="TestOnlyPet"))
    finally:
        del DATASET_REGISTRY._obj_map["TestOnlyPets"]
