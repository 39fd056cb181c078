"""results.json and config.yaml of a run, whatever they hold: complete results, or none; a value, or one error."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dassl.config.saved import saved_settings
from dassl.config.yaml_file import MOST_BYTES
from dassl.utils import read_json, read_results, write_results
from experiments.report.command import main
from experiments.runs import read_settings, run_status

GOOD = {"accuracy": 81.5, "epoch": 5, "complete": True}
FOLDER = "base2new/train_base/dtd/shots_16/MaPLe/vit_b16/seed1"
BROKEN = {
    "a text": b'{"accuracy": "81.5", "complete": true}',
    "a list": b'{"accuracy": [81.5], "complete": true}',
    "true": b'{"accuracy": true, "complete": true}',
    "NaN": b'{"accuracy": NaN, "complete": true}',
    "infinite": b'{"accuracy": 1e400, "complete": true}',
    "too large": b'{"accuracy": 250, "complete": true}',
    "far too large": b'{"accuracy": 1' + b"0" * 400 + b', "complete": true}',
    "negative": b'{"accuracy": -1, "complete": true}',
    "thousands of digits": b'{"accuracy": 1' + b"0" * 9000 + b', "complete": true}',
    "an epoch as text": b'{"accuracy": 81.5, "epoch": "5", "complete": true}',
    "half an epoch": b'{"accuracy": 81.5, "epoch": 0.5, "complete": true}',
    "not complete": b'{"accuracy": 81.5, "complete": 1}',
    "without an accuracy": b'{"complete": true}',
    "another value": b"[81.5]",
    "null": b"null",
    "nested": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "UTF-16": json.dumps(GOOD).encode("utf-16"),
    "Latin-1": '{"accuracy": 81.5, "complete": true, "dataset": "\xe9"}'.encode("latin-1"),
    "binary": b"\x80\x02}q\x00.\0",
    "empty": b"",
    "cut": b'{"accuracy": 81.5, "comp',
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_broken_results_are_no_results(tmp_path, content, capsys) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    (folder / "results.json").write_bytes(content)
    assert read_results(folder / "results.json") is None
    assert run_status(folder).state != "finished"
    assert main([str(tmp_path)]) == 0
    assert f"incomplete: {folder}: no complete results.json" in capsys.readouterr().out


def test_results_that_are_no_file(tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    assert read_results(tmp_path / "folder") is None
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert read_results(tmp_path / "pipe") is None
        with pytest.raises(ValueError, match="pipe is not a regular file"):
            read_json(tmp_path / "pipe")
        with pytest.raises(ValueError, match="pipe is not a file"):
            read_settings(tmp_path / "pipe")


def test_a_huge_file_is_not_read_to_its_end(tmp_path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(2**40)  # takes no space
    assert read_results(tmp_path / "huge") is None
    with pytest.raises(ValueError, match=r"huge is longer than the 1,000 bytes"):
        read_json(tmp_path / "huge", max_bytes=1000)
    with pytest.raises(ValueError, match="huge is larger than 64 KiB"):
        read_settings(tmp_path / "huge")


def test_results_with_more_entries_and_a_byte_order_mark(tmp_path) -> None:
    write_results(tmp_path / "results.json", {"accuracy": None, "epoch": None, "macro_f1": float("nan"), "new": [1]})
    assert read_results(tmp_path / "results.json")["new"] == [1]
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode())
    assert read_results(tmp_path / "bom") == GOOD


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.fixed_dictionaries({"accuracy": json_values, "complete": st.sampled_from([True, 1, "true"])}) | json_values)
def test_any_json_value(tmp_path_factory, value) -> None:
    path = tmp_path_factory.getbasetemp() / "results.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    found = read_results(path)
    if found is not None:
        assert found["accuracy"] is None or 0 <= found["accuracy"] <= 100


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes(tmp_path_factory, content) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    read_results(path)
    for reader in (read_json, read_settings):
        assert_value_or_error(path, reader)


YAML_WORDS = [
    *("a", "b: ", ": ", "- ", "\n", "  ", "[", "]", "{", "}", "&x ", "*x", "? ", "<<: ", "'", '"', "|", "\x00"),
    *("!!bool ", "!!timestamp ", "!!int ", "!!python/object/apply:os.getcwd ", "%YAML 9\n", "---\n"),
    *("2000-99-99", "1e5", "9" * 5000),
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(YAML_WORDS), max_size=12))
def test_any_yaml(tmp_path_factory, words) -> None:
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_text("".join(words), encoding="utf-8")
    assert_value_or_error(path, read_settings)


def assert_value_or_error(path: Path, reader: Any) -> None:
    try:
        reader(path)
    except ValueError as error:
        assert str(path) in str(error) and len(str(error)) < 1000


# Each key holds the one before twice: 2^16 leaves
DOUBLING = "k0: &k0 {a: 1}\n" + "".join(f"k{n + 1}: &k{n + 1} {{a: *k{n}, b: *k{n}}}\n" for n in range(16))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "x is not valid YAML"),
        ("- a", r"x holds \['a'\], expected keys"),
        ("a: !!bool x", "x is not valid YAML"),
        ("[" * 600, "x is not valid YAML: .*more than 20 levels"),
        ("a" * (MOST_BYTES + 1), "x is larger than 64 KiB"),
        (DOUBLING, "x is not valid YAML: .*aliases that expand to more"),
        ("a: &a {b: *a}", "x is not valid YAML: .*contains itself"),
    ],
)
def test_texts_that_are_no_configuration(text, message) -> None:
    with pytest.raises(ValueError, match=message):
        saved_settings(text, "x")
    assert saved_settings("", "x") == {}


@pytest.mark.parametrize("value", ["abc", "[5]", "-1", "true", "1.5", "9" * 5000])
def test_a_training_whose_configuration_has_no_number_of_epochs(tmp_path, value) -> None:
    from experiments.methods import method_named
    from experiments.protocols import Request, base2new_test

    job = base2new_test(Request(method_named("maple"), "dtd", seed=1, output=str(tmp_path)))
    job.needs.path.mkdir(parents=True)
    (job.needs.path / "config.yaml").write_text(f"OPTIM: {{MAX_EPOCH: {value}}}\n")
    with pytest.raises(ValueError, match=r"seed1/config\.yaml(: OPTIM\.MAX_EPOCH is| is not valid YAML)"):
        job.epoch()
