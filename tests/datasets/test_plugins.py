"""Dataset files written for Dassl run as they are; the folder's modules are found by themselves."""

import importlib.util
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

import datasets
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import set_random_seed
from tests.datasets.layouts import build, pictures, relative


@pytest.fixture(scope="module", autouse=True)
def _plugin():
    """The plug-in's file, imported as if it were in ``datasets/``."""
    path = Path(__file__).parent / "plugins" / "flowers17.py"
    spec = importlib.util.spec_from_file_location("datasets.flowers17", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield
    for name in ("Flowers17", "WildPets"):
        del DATASET_REGISTRY._obj_map[name]


def save_flowers(root):
    for name in ("daffodil", "tulip", "iris", "weeds"):
        pictures(root / "flowers17" / "images" / name, [f"{name}{i}.jpg" for i in range(10)])


def test_a_plugin_with_split_file_shots_and_base_new(tmp_path):
    save_flowers(tmp_path)
    dataset = build("Flowers17", tmp_path)
    assert dataset.classnames == ["yellow daffodil", "iris", "tulip"]
    assert (tmp_path / "flowers17" / "split_Flowers17.json").exists()
    assert relative(build("Flowers17", tmp_path).test, tmp_path) == relative(dataset.test, tmp_path)
    assert build("Flowers17", tmp_path, classes="base").classnames == ["yellow daffodil", "iris"]
    assert build("Flowers17", tmp_path, classes="new").classnames == ["tulip"]


def test_a_plugins_shots_are_those_of_its_seed(tmp_path):
    """It draws with Python's generator, seeded by the run: the same items as one ``random.Random(seed)``."""
    save_flowers(tmp_path)
    full = build("Flowers17", tmp_path)
    set_random_seed(3)
    drawn = build("Flowers17", tmp_path, num_shots=2, seed=3)
    rng = random.Random(3)
    expected = []
    for label in dict.fromkeys(item.label for item in full.train_x):
        expected += rng.sample([item.impath for item in full.train_x if item.label == label], 2)
    assert [item.impath for item in drawn.train_x] == expected
    again = build("Flowers17", tmp_path, num_shots=2, seed=3)  # its own pickle, read by itself
    assert [item.impath for item in again.train_x] == expected


def test_a_plugin_that_parts_trainval(tmp_path):
    for part in ("trainval", "test"):
        for name in ("wolf", "lynx"):
            pictures(tmp_path / "wild_pets" / part / name, [f"{i}.jpg" for i in range(10)])
    dataset = build("WildPets", tmp_path)
    assert Counter(item.classname for item in dataset.val) == {"lynx": 2, "wolf": 2}
    assert (len(dataset.train_x), len(dataset.test)) == (16, 20)


def test_a_file_in_the_folder_is_found_and_a_broken_one_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "__path__", [str(tmp_path)])
    (tmp_path / "my_found_module.py").write_text("FOUND = True\n")
    datasets._import_modules()
    assert sys.modules.pop("datasets.my_found_module").FOUND
    (tmp_path / "my_broken_module.py").write_text("import no_such_package_here\n")
    with pytest.raises(ImportError, match=r"my_broken_module\.py cannot be imported: No module named 'no_such_pack"):
        datasets._import_modules()
