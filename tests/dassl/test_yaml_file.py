"""The strict YAML reader: one error with file and line for whatever a file holds, in bounded time and memory."""

import time
import tracemalloc
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from yacs.config import CfgNode

from dassl.config import get_cfg_default, merge_file, merge_options
from dassl.config.yaml_file import read_yaml

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
LAUGHING_KEYS = "a: &a {A: 1, B: 2, C: 3}\n" + "".join(
    f"{b}: &{b} {{A: *{a}, B: *{a}, C: *{a}, D: *{a}, E: *{a}, F: *{a}, G: *{a}}}\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "x.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("SEED: 1\nSEED: 2\n", r"SEED is set twice, in lines 1 and 2"),
        ("OPTIM:\n  LR: 1\n  NAME: sgd\n  LR: 1\n", r"OPTIM.LR is set twice, in lines 2 and 4"),
        ("OPTIM:\n  LR: 1\nSEED: 1\nOPTIM:\n  NAME: sgd\n", r"OPTIM is set twice, in lines 1 and 4"),
        ("OPTIM: {LR: 1}\nOPTIM.LR: 2\n", r"OPTIM.LR is set twice, in lines 1 and 2"),
        ("OPTIM: {'LR': 1,\n LR: 1}", r"OPTIM.LR is set twice, in lines 1 and 2"),
        ("X: [{A: 1, A: 2}]", r"X.0.A is set twice"),
        ("X: &x {A: 1}\nY:\n  <<: *x\n  <<: *x\n", r"Y.<< is set twice, in lines 3 and 4"),
        ("X:\n  <<: {A: 1, A: 2}\n", r"X.<<.A is set twice"),
        ("SEED: 1\nSEED: 2\nVERBOSE: 1\nVERBOSE: 2", r"SEED is set twice.*VERBOSE is set twice"),
        ("OPTIM:\n\tLR: 0.1\n", r"line 2: .*spaces instead of tabs"),
        ("SEED: 1\n---\nSEED: 2\n", r"line 2: .*another document"),
        ("OPTIM: [1, 2", r"line \d: "),
        ("A: 1\nB: *missing\n", r"line 2: .*undefined alias"),
        ("A: !!python/object/apply:os.system ['touch hacked']", r"line 1: the tag !!python/object/apply:os.system"),
        ("A: 1\nB: !!python/name:os.system\n", r"line 2: the tag !!python/name:os.system"),
        ("A: !own {B: 1}", r"the tag !own is not allowed"),
        ("A: !!binary aGk=", r"the tag !!binary"),
        ("A: !!set {x}", r"the tag !!set"),
        ("A: !!bool perhaps", r"does not suit its tag"),
        ("A: !!int x", r"a number that cannot be read"),
        ("A: " + 5000 * "9", r"a number that cannot be read"),
        ("? [A, B]\n: 1\n", r"line 1: a key that is a list or a mapping"),
        ("A: &a [*a]", r"line 1: a value that contains itself"),
        ("A: &a {B: *a}", r"line 1: a value that contains itself"),
        ("A: " + 60_000 * "[", r"line 1: nested in more than 20 levels"),
        ("A: " + 15_000 * "{a: ", r"line 1: nested in more than 20 levels"),
        (30_000 * "- ", r"line 1: nested in more than 20 levels"),
        ("\n".join(" " * i + "a:" for i in range(300)), r"line 20: nested in more than 20 levels"),
        (LAUGHS, r"line 6: aliases that expand to more than 262,144 values"),
        (LAUGHING_KEYS, r"aliases that expand to more than 262,144 values"),
        ("A: &a '" + 1000 * "x" + "'\nB: [" + ", ".join(300 * ["*a"]) + "]", r"aliases that expand"),
        ("# " + 70_000 * "x", r"is larger than 64 KiB"),
        ("SEED: 1\n".encode("utf-16"), r"UTF-16 or binary\): save it as UTF-8"),
        ("SEED: 1\n".encode("utf-16-le"), r"UTF-16 or binary"),
        ("SEED: 1\n".encode("utf-32"), r"UTF-16 or binary"),
        (bytes(range(256)), r"UTF-16 or binary"),
        ("SEED: 1\nOUTPUT_DIR: Müll\n".encode("latin-1"), r"line 2 has the byte 0xFC. Save it as UTF-8"),
        ("A: 1\nB: \x07", r"line 2: the character '\\x07'"),
        ("", "holds nothing, expected keys"),
        ("# a comment\n", "holds nothing"),
        ("[1, 2]", r"holds \[1, 2\], expected keys"),
        ("just words", "holds 'just words', expected keys"),
        ("--- 3", "holds 3, expected keys"),
    ],
)
def test_one_clear_error(tmp_path: Path, content: str | bytes, message: str) -> None:
    start = time.perf_counter()
    with pytest.raises(ValueError, match=message) as caught:
        read_yaml(write(tmp_path, content))
    assert time.perf_counter() - start < 5
    assert "x.yaml" in str(caught.value) and len(str(caught.value)) < 500
    assert not Path("hacked").exists()


def test_what_is_no_fault(tmp_path: Path) -> None:
    """A byte order mark, CRLF, anchors, keys that override merged ones, dates as strings, a document's start."""
    text = "---\r\nBASE: &base {A: 1, B: 2}\r\nNEW:\r\n  <<: *base\r\n  B: 3\r\nDAY: 2024-13-45\r\nEQUAL: =\r\n"
    loaded = read_yaml(write(tmp_path, b"\xef\xbb\xbf" + text.encode()))
    assert loaded["NEW"] == {"A": 1, "B": 3}
    assert (loaded["DAY"], loaded["EQUAL"]) == ("2024-13-45", "=")


def test_agrees_with_pyyaml_on_plain_files(tmp_path: Path) -> None:
    text = yaml.safe_dump({"A": [1, 2.5, "x", None, True], "B": {"C": "1e-5", "D": 1e-5, "E": -3}})
    assert read_yaml(write(tmp_path, text)) == yaml.safe_load(text)


def test_a_folder_lists_its_files_and_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, "SEED: 1")
    with pytest.raises(FileNotFoundError, match=r"is a folder, not a config file. The YAML files in it: x.yaml"):
        merge_file(get_cfg_default(), tmp_path)
    cfg = get_cfg_default()
    with pytest.raises(ValueError, match=r"OPTIM.LR: takes a number"):
        merge_file(cfg, write(tmp_path, "SEED: 3\nTRAINER: {OURS: {A: 1}}\nOPTIM: {LR: fast}"))
    assert cfg.SEED == -1 and "OURS" not in cfg.TRAINER


# fmt: off
YAML_WORDS = st.sampled_from([
    "OPTIM", "LR", "TRAINER", "SEED", "INPUT.SIZE", "OURS", ":", ": ", "\n", "\n  ", "\t", "- ", "[", "]", "{", "}",
    ",", "&a ", "*a", "<<", "!!int ", "!!python/name:os.system ", "---\n", "...", "? ", "|\n ", ">", "'", '"', "\\x",
    "#", "=", "1", "-1", "0.1", "1e9", ".nan", ".inf", "0x_", "0b1", "1:30", "2020-01-01", "yes", "null", "~", "é",
    "\0",
])
WORDS = st.text(max_size=10) | st.sampled_from([
    "OPTIM.LR", "SEED", "INPUT.SIZE", "TRAINER.OURS.X", "OPTIM", "LR", "=", "OPTIM.LR=1", "SEED=", "=3", "(3,3)", "[1",
    "1e-5", "-1", "{'A': 1}", "{1, 2}", "1j", "b'x'", "None", "'quoted'", "nan", "1e999", "'\\d'", 400 * "(",
    5000 * "9", "0x" + 5000 * "f", 3000 * "-" + "1", "a.b" * 2000, "TRAINER.OURS" + 3000 * ".A", "TRAINER.OURS..X",
])
# fmt: on


TREES: list[CfgNode] = []  # one that no example has changed yet; making one takes longer than an example


def untouched_tree() -> CfgNode:
    if not TREES:
        TREES.append(get_cfg_default())
        TREES[0].TRAINER.OURS = CfgNode(new_allowed=True)
    return TREES[0]


def check_changed_tree() -> None:
    """It can be frozen, copied, written and read."""
    cfg = TREES.pop()
    cfg.clone().freeze()
    assert CfgNode.load_cfg(cfg.dump()) is not None


def merges_or_refuses(folder: Path, content: bytes) -> None:
    try:
        merge_file(untouched_tree(), write(folder, content))
        check_changed_tree()
    except ValueError as error:
        assert "x.yaml" in str(error)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=200, deadline=5000)
@given(st.one_of(st.lists(YAML_WORDS, max_size=30).map(lambda words: "".join(words).encode()), st.binary(max_size=300)))
def test_any_file_is_merged_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    merges_or_refuses(tmp_path_factory.getbasetemp(), content)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
KEYS = (
    st.sampled_from(["OPTIM", "INPUT", "DATASET", "TRAINER", "SEED", "LR", "SIZE", "MAPLE", "OURS", "NAME"]) | st.text()
)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=60, deadline=5000)
@given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=4) | VALUES, max_size=4))
def test_any_tree_is_merged_or_refused(tmp_path_factory: pytest.TempPathFactory, tree: dict) -> None:
    merges_or_refuses(tmp_path_factory.getbasetemp(), yaml.safe_dump(tree).encode())


@settings(max_examples=200, deadline=5000)
@given(st.lists(WORDS, max_size=6))
def test_any_words_are_options_or_refused(words: list[str]) -> None:
    try:
        merge_options(untouched_tree(), words)
        check_changed_tree()
    except ValueError as error:
        assert len(str(error)) < 5000


def test_bounded_in_time_and_memory(tmp_path: Path) -> None:
    """The largest file that is read at all, of many unknown keys."""
    path = write(tmp_path, "".join(f"UNKNOWN{i}: {i}\n" for i in range(1_500)))
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"UNKNOWN0: no such key(.|\n)*…"):
        merge_file(get_cfg_default(), path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.perf_counter() - start < 30
    assert peak < 100 * 2**20
