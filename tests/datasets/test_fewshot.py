"""Few-shot and base/new logic against the published subsets, and split files."""

import gzip
import json

import pytest

from dassl.data.datasets import Datum
from datasets.fewshot import few_shot, subsample_classes
from datasets.splits import Split, read_split, write_split
from datasets.validation import check_split
from tests.paths import GOLDEN, PUBLISHED, needs_golden, needs_published

SPLIT_SIZES = {
    "Caltech101": (4128, 1649, 2465),
    "DescribableTextures": (2820, 1128, 1692),
    "EuroSAT": (13500, 5400, 8100),
    "OxfordFlowers": (4093, 1633, 2463),
    "OxfordPets": (2944, 736, 3669),
    "StanfordCars": (6509, 1635, 8041),
    "UCF101": (7639, 1898, 3783),
}


def published(name):
    return read_split(PUBLISHED / f"split_zhou_{name}.json.gz", "/images")


@needs_published
@pytest.mark.parametrize("name", SPLIT_SIZES)
def test_published_splits_parse_to_the_published_counts(name):
    split = published(name)
    assert tuple(len(items) for items in split) == SPLIT_SIZES[name]
    check_split(*split, name)


@needs_published
def test_published_subsets_are_reproduced():
    subsets = json.loads(gzip.decompress((PUBLISHED / "fewshot_indices.json.gz").read_bytes()))
    assert len(subsets) == 15
    splits = {name: published(name) for name in {subset["dataset"] for subset in subsets.values()}}
    for subset in subsets.values():
        split = splits[subset["dataset"]]
        drawn = few_shot(split, subset["num_shots"], subset["seed"])
        assert drawn.train == [split.train[i] for i in subset["train"]]
        assert drawn.val == [split.val[i] for i in subset["val"]]
        assert drawn.test is split.test


@needs_golden
def test_golden_subsets_are_reproduced():
    golden = json.loads((GOLDEN / "fewshot_sampling.json").read_text())
    split = Split(**{n: [Datum(p, y, classname=c) for p, y, c in items] for n, items in golden["split"].items()})
    assert len(golden["cases"]) == 18
    for case in golden["cases"]:
        drawn = few_shot(split, case["num_shots"], case["seed"])
        assert [item.impath for item in drawn.train] == case["train"]
        assert [item.impath for item in drawn.val] == case["val"]


def make_split(sizes):
    items = [Datum(f"{label}/{i}.jpg", label, classname=f"c{label}") for label, n in enumerate(sizes) for i in range(n)]
    return Split(items, list(items), list(items))


def test_no_shots_keep_everything():
    split = make_split([3, 4])
    assert few_shot(split, -1, 1) is split


def test_a_class_with_fewer_items_gives_all_and_costs_no_draw():
    """The classes after it get the shots they would get without it."""
    drawn = few_shot(make_split([2, 9]), 5, 3)
    alone = few_shot(make_split([0, 9]), 5, 3)
    assert [item.impath for item in drawn.train[:2]] == ["0/0.jpg", "0/1.jpg"]
    assert [item.impath for item in drawn.train[2:]] == [item.impath for item in alone.train]


def test_validation_takes_at_most_four():
    drawn = few_shot(make_split([20]), 16, 1)
    assert (len(drawn.train), len(drawn.val), len(drawn.test)) == (16, 4, 20)
    assert len(few_shot(make_split([20]), 2, 1).val) == 2


def test_seed_zero_is_a_seed():
    split = make_split([50])
    paths = [[item.impath for item in few_shot(split, 8, seed).train] for seed in (0, 0, 1)]
    assert paths[0] == paths[1] != paths[2]


@pytest.mark.parametrize(("classes", "base", "new"), [(5, 3, 2), (4, 2, 2), (1000, 500, 500), (37, 19, 18)])
def test_base_is_the_first_half_rounded_up_and_labels_start_at_zero(classes, base, new):
    split = make_split([1] * classes)
    for subsample, count, first in (("base", base, 0), ("new", new, base)):
        for items in subsample_classes(split, subsample):
            assert [item.label for item in items] == list(range(count))
            assert [item.classname for item in items] == [f"c{first + i}" for i in range(count)]
    assert subsample_classes(split, "all") == split


def test_subsample_of_another_name_is_an_error():
    with pytest.raises(ValueError, match=r"'bass' is not available \(did you mean base"):
        subsample_classes(make_split([1, 1]), "bass")


def test_splits_are_written_with_relative_paths_and_read_back(tmp_path):
    items = [Datum(str(tmp_path / "images" / "a" / "1.jpg"), 0, classname="a")]
    write_split(tmp_path / "split.json", Split(items, [], items), tmp_path / "images")
    assert json.loads((tmp_path / "split.json").read_text()) == {
        **{"train": [["a/1.jpg", 0, "a"]], "val": []},
        "test": [["a/1.jpg", 0, "a"]],
    }
    again = read_split(tmp_path / "split.json", tmp_path / "moved")
    assert again.train[0].impath == str(tmp_path / "moved" / "a" / "1.jpg")
    with pytest.raises(ValueError, match=r"is not below .*elsewhere: a split contains relative paths"):
        write_split(tmp_path / "split.json", Split(items, [], items), tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", 'must be an object with the lists "train"'),
        ('{"train": []}', 'must be an object with the lists "train"'),
        ('{"train": {}, "test": []}', '"train" must be a list, not dict'),
        ('{"train": [["a.jpg", 0]], "test": []}', r"train\[0\] must be \[relative path, label, class name\]"),
        ('{"train": [["a.jpg", "0", "a"]], "test": []}', r"train\[0\]: the label must be an integer, not '0'"),
        ('{"train": [["a.jpg", true, "a"]], "test": []}', "the label must be an integer, not True"),
        ('{"train": [["", 0, "a"]], "test": []}', "path and class name must be non-empty text"),
        ('{"train": [], "test": [["/a.jpg", 0, "a"]]}', r"test\[0\]: '/a.jpg' must be relative to the image folder"),
        ('{"train": [], "test": [["b/../../a.jpg", 0, "a"]]}', "must be relative to the image folder and stay inside"),
    ],
)
def test_a_damaged_split_file_is_an_error(tmp_path, content, message):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_split(tmp_path / "split.json", tmp_path)


def items_of(*pairs):
    return [Datum("x.jpg", label, classname=name) for label, name in pairs]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (Split([], [], items_of((0, "a"))), "Pets has no training images"),
        (Split(items_of((0, "a")), [], []), "Pets has no test images"),
        (
            Split(items_of((0, "a"), (2, "c")), [], items_of((0, "a"))),
            "Pets: .*without a gap, but no image has label 1",
        ),
        (
            Split(items_of((0, "a")), [], items_of((1, "b"))),
            r"the test images have labels without training .*: 1 \(b\)",
        ),
        (
            Split(items_of((0, "a")), items_of((0, "b")), items_of((0, "a"))),
            "the validation images have other class names than the training images: label 0 is 'b', in training 'a'",
        ),
    ],
)
def test_an_inconsistent_split_is_an_error(split, message):
    with pytest.raises(ValueError, match=message):
        check_split(*split, "Pets")
