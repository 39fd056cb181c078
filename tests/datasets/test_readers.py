"""The readers of users' text: any content gives a valid object or one error that names the file, in bounded time."""

import gzip
import json
import os
import re
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from datasets.listing import read_classnames
from datasets.matlab import read_integers, read_structures, read_texts
from datasets.own_data import read_csv
from datasets.splits import read_split
from datasets.text import read_json, read_lines, read_text, shortened
from datasets.validation import check_name, relative_path, same_names, split_entry, unfit_names
from tests.datasets.miniatures import struct_array

FUZZED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Pieces that readers trip over, between arbitrary bytes.
PIECES = st.lists(
    st.one_of(
        st.binary(max_size=12),
        st.sampled_from(
            [
                *(
                    b"path,label,classname\n",
                    b"path;label;classname;split\r\n",
                    b"a.jpg,0,cat\n",
                    b"b.jpg,1,dog,test\n",
                ),
                *(b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b'"', b'""', b"\r", b"\n", b"\t", b"\xed\xa0\x80", b"\xe9"),
                *(b'{"train": [', b'["a.jpg", 0, "cat"]', b"]}", b', "test": [', b"1e999", b"-1", b"[" * 50, b"NaN"),
                *(b'"\\ud800"', b"9" * 5000, b"n01440764 tench\n", b"..\\..\\x", b"MATLAB 5.0", b"IM", b"\x0e\0\0\0"),
            ]
        ),
    ),
    max_size=12,
).map(b"".join)


@FUZZED
@given(content=PIECES)
@pytest.mark.parametrize("name", ["split.json", "split.csv", "classnames.txt", "labels.mat", "split.json.gz"])
def test_any_bytes_are_content_or_one_error(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") and len(content) % 2 else content)
    try:
        if name.endswith(".mat"):
            assert all(isinstance(number, int) for number in read_integers(path, "labels"))
        elif name == "classnames.txt":
            assert all(check_name(value, "") for value in read_classnames(path, ["a", "a b"]).values())
        else:
            split = read_csv(path, tmp_path) if name.endswith(".csv") else read_split(path, tmp_path)
            for item in (item for items in split for item in items):
                check_name(item.classname, "")
                assert item.label >= 0 and os.path.normpath(item.impath).startswith(str(tmp_path))
    except ValueError as error:
        if not str(error).startswith("Class "):  # too few images of a class for a split
            assert str(path) in str(error) and len(str(error)) < 1000


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["train", "val", "test", "x"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@FUZZED
@given(content=JSON)
def test_any_json_is_a_split_or_one_error(tmp_path, content):
    path = tmp_path / "split.json"
    path.write_text(json.dumps(content))
    try:
        read_split(path, tmp_path)
    except ValueError as error:
        assert str(path) in str(error)


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    """Valid MATLAB files: numbers, texts and structures, plain and compressed."""
    folder = tmp_path_factory.mktemp("mat")
    rows = struct_array([{"class": i % 3 + 1, "fname": f"{i:05d}.jpg"} for i in range(5)])
    content = {
        "labels": np.array([[1, 2, 3, 2]], dtype=np.uint8),
        "class_names": np.array([["cat", "red fox"]], dtype=object),
        "annotations": rows,
    }
    for compressed in (True, False):
        savemat(folder / f"{compressed}.mat", content, do_compression=compressed)
    return folder


@pytest.mark.parametrize("compressed", [True, False])
def test_matlab_files(annotations, compressed):
    path = annotations / f"{compressed}.mat"
    assert read_integers(path, "labels") == [1, 2, 3, 2]
    assert read_texts(path, "class_names") == ["cat", "red fox"]
    assert read_structures(path, "annotations", {"class": int, "fname": str})[1] == {"class": 2, "fname": "00001.jpg"}
    with pytest.raises(ValueError, match=r"has no variable cars \(it has: labels, class_names, annotations\)"):
        read_integers(path, "cars")
    with pytest.raises(ValueError, match=r"annotations\(1\) has no field test"):
        read_structures(path, "annotations", {"test": int})
    with pytest.raises(ValueError, match=r"annotations\(1\)\.fname must be an integer, not"):
        read_structures(path, "annotations", {"fname": int})
    with pytest.raises(ValueError, match=r"class_names\(1\) must be an integer"):
        read_integers(path, "class_names")


@settings(FUZZED, max_examples=150)
@given(compressed=st.booleans(), data=st.data())
def test_any_mutated_matlab_file_is_content_or_one_error(annotations, compressed, data):
    content = bytearray((annotations / f"{compressed}.mat").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.sampled_from([0, 1, 2, 127, 128, 255]))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    path = annotations / "mutated.mat"
    path.write_bytes(content[:cut])
    for read in (
        lambda: read_integers(path, "labels"),
        lambda: read_texts(path, "class_names"),
        lambda: read_structures(path, "annotations", {"class": int, "fname": str}),
    ):
        try:
            read()
        except ValueError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"\(0 bytes\) is not a MATLAB file of version 5"),
        (b"<html>" * 100, r"is not a MATLAB file of version 5: download it again"),
        (
            b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(600),
            r"is a MATLAB 7\.3 \(HDF5\) file: save it with `save -v7`",
        ),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), r"is a MATLAB 7\.3 \(HDF5\) file"),
    ],
)
def test_files_that_are_not_matlab_files_are_named(tmp_path, content, message):
    (tmp_path / "labels.mat").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_integers(tmp_path / "labels.mat", "labels")


def test_matlab_files_that_contain_something_else(annotations, tmp_path):
    path = tmp_path / "labels.mat"
    savemat(path, {"labels": np.array([[1.5, 2]])})
    with pytest.raises(ValueError, match=r"labels\(1\) must be an integer, not 1\.5"):
        read_integers(path, "labels")
    content = bytearray((annotations / "False.mat").read_bytes())
    flags = content.index(b"\x06\0\0\0\x08\0\0\0") + 8
    content[flags] = 17  # MATLAB's opaque objects
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"has no variable labels"):
        read_integers(path, "labels")
    path.write_bytes((annotations / "False.mat").read_bytes()[:-40])
    with pytest.raises(ValueError, match="is damaged"):
        read_integers(path, "labels")


def test_a_matlab_file_that_states_a_huge_size_takes_no_memory(tmp_path):
    path = tmp_path / "labels.mat"
    savemat(path, {"labels": np.array([["a"] * 9], dtype=object)})
    content = path.read_bytes()
    sizes = np.array([1, 9], dtype="<i4").tobytes()
    path.write_bytes(content.replace(sizes, np.array([2**15, 2**16], dtype="<i4").tobytes(), 1))
    with pytest.raises(ValueError, match=r"states the size \(32768, 65536\), but has"):
        read_texts(path, "labels")


# Encodings


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a cat\n".encode("utf-16"), "is UTF-16, not UTF-8: save it as UTF-8"),
        ("a cat\n".encode("utf-32"), "is UTF-32, not UTF-8"),
        ("a cat\nb dog".encode("utf-16-le"), r"is not text \(line 1 has a byte 0\)"),
        ("a cat\nb café\n".encode("cp1252"), r"is not UTF-8 \(line 2: byte 0xe9, .*'b café' of a Windows code page"),
        ("a größe".encode("latin-1"), "save it as UTF-8, for example with `iconv -f WINDOWS-1252 -t UTF-8`"),
        (b"a \xed\xa0\x80\n", "is not UTF-8"),  # a surrogate
        (b"a cat\n\n\0", r"line 3 has a byte 0"),
        (b"\x89PNG\r\n\x1a\n\xff", "is not UTF-8"),
    ],
)
def test_other_encodings_are_named_with_the_remedy(tmp_path, content, message):
    path = tmp_path / "classnames.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_classnames(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content", ["\ufeffa cat\r\nb dog\r\n", "a cat\rb dog", "\n  a cat  \n\nb dog", "a\tcat\t\nb\tdog\t"]
)
def test_lines_as_windows_and_spreadsheets_write_them(tmp_path, content):
    path = tmp_path / "classnames.txt"
    path.write_bytes(content.encode())
    assert read_classnames(path) == {"a": "cat", "b": "dog"}
    assert "\r" not in read_text(path) and "\ufeff" not in read_text(path)


def test_line_numbers_count_blank_lines(tmp_path):
    (tmp_path / "x").write_bytes(b"a\r\n\r\nb\x0cc\n")
    assert read_lines(tmp_path / "x") == [(1, "a"), (3, "b\x0cc")]


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "link", "nothing"])
def test_only_regular_files_are_opened(tmp_path, kind):
    path = tmp_path / "classnames.txt"
    message = {"pipe": "a named pipe, not a file", "folder": "a folder, not a file", "device": "a device, not a file"}
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link":
        path.symlink_to(tmp_path / "gone")
    with pytest.raises((ValueError, FileNotFoundError), match=message.get(kind, "does not exist")):
        read_classnames(path)


# classnames.txt


def test_folders_with_spaces(tmp_path):
    path = tmp_path / "classnames.txt"
    path.write_text("alarm clock old clock\nalarm bell\ncar red car\nbig  box a box\n")
    folders = ["alarm", "alarm clock", "car", "big  box"]
    expected = {"alarm clock": "old clock", "alarm": "bell", "car": "red car", "big  box": "a box"}
    assert read_classnames(path, folders) == expected
    path.write_text("alarm clock\tred fox\n")
    assert read_classnames(path) == {"alarm clock": "red fox"}
    path.write_text("alarm clock\n")
    with pytest.raises(ValueError, match="line 1: expected a new '<folder> <class name>', found 'alarm clock'"):
        read_classnames(path, ["alarm clock"])
    path.write_text("a\tcat\tfelis\n")
    with pytest.raises(ValueError, match=r"line 1: the class name 'cat\\tfelis' contains characters that are not text"):
        read_classnames(path)
    path.write_text("a " + "x " * 100_000)
    with pytest.raises(ValueError, match=r"line 1: the class name 'x x .* has 199999 characters"):
        read_classnames(path, ["a"])


# Tables


@pytest.mark.parametrize("mark", [",", ";", "\t", ", "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_tables_of_all_kinds(tmp_path, mark, end):
    rows = [
        ["Path", "label", "classname", "split"],
        ["./i\\a.jpg", "0", "cat", "train"],
        ["i/b.jpg", "1", '"dog, big"', "test"],
    ]
    path = tmp_path / "split.csv"
    path.write_bytes(("\ufeff" + end.join(mark.join(row) for row in rows) + end * 2).encode())
    split = read_csv(path, tmp_path)
    assert [(i.impath, i.label, i.classname) for i in split.train] == [(f"{tmp_path}/i/a.jpg", 0, "cat")]
    assert [(i.impath, i.label, i.classname) for i in split.test] == [(f"{tmp_path}/i/b.jpg", 1, "dog, big")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.jpg,0,duck, goose", r"line 2 has 4 fields, but the header has 3: a name that contains the delimiter"),
        ("a.jpg,0", "line 2: path and class name must be non-empty text"),
        ("a.jpg,1.0,cat", "line 2: the label must be an integer, not '1.0'"),
        ("a.jpg,-1,cat", "line 2: the label must be 0 to the number of classes - 1, not -1"),
        ("a.jpg,1000000000000,cat", "line 2: the label must be 0 to the number of classes - 1, not 1000000000000"),
        ("a.jpg," + "9" * 5000 + ",cat", "line 2: the label must be an integer, not '999"),
        ("a.jpg,٣,cat", "line 2: the label must be an integer"),
        ("a.jpg,0,", "line 2: path and class name must be non-empty text"),
        ('a.jpg,0," "', "line 2: path and class name must be non-empty text"),
        ("a.jpg,0,_", "line 2: the class name '_' is blank"),
        ("a.jpg,0,\u200b", r"line 2: the class name '\\u200b' is blank"),
        ("a.jpg,0," + "x" * 2000, r"line 2: the class name 'xxx.* has 2000 characters"),
        ("a.jpg,0," + "x" * 200_000, r"line 2: field larger than field limit"),
        ("x" * 5000 + ",0,cat", "line 2: 'xxx.* is not a path"),
        ('a.jpg,0,"cat', "line 2: unexpected end of data"),
        ('a.jpg,0,"cat"s', "line 2: .*expected after"),
        ("/a.jpg,0,cat", "line 2: '/a.jpg' must be relative to the image folder"),
        ("C:\\x\\a.jpg,0,cat", r"line 2: 'C:\\\\x\\\\a.jpg' must be relative"),
        ("x/../../a.jpg,0,cat", "must be relative to the image folder and stay inside it"),
        ("\\\\server\\a.jpg,0,cat", "must be relative to the image folder"),
        ("x/..,0,cat", "line 2: 'x/..' is the image folder itself, not an image"),
    ],
)
def test_rows_that_are_errors(tmp_path, row, message):
    path = tmp_path / "split.csv"
    path.write_text(f"path,label,classname\n{row}\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=f"{re.escape(str(path))}, {message}" if message[0] == "l" else message
    ) as error:
        read_csv(path, tmp_path)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("trailing", [",,", ",", ""])
def test_empty_cells_of_spreadsheets_are_left_out(tmp_path, trailing):
    lines = ["path,label,classname,split", "a.jpg,0,cat,train", "b.jpg,0,cat,test", ",,,"]
    (tmp_path / "split.csv").write_text("".join(f"{line}{trailing}\n" for line in lines))
    assert [len(items) for items in read_csv(tmp_path / "split.csv", tmp_path)] == [1, 0, 1]


def test_a_column_twice_and_a_header_alone(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("path,label,label,classname\n")
    with pytest.raises(ValueError, match="has a column twice: path,label,label,classname"):
        read_csv(path, tmp_path)
    path.write_text("")
    with pytest.raises(ValueError, match="path,label,classname is missing"):
        read_csv(path, tmp_path)


# JSON


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"train": [], "test": [["a.jpg", ' + "1" * 5000 + ', "cat"]]}', "is not valid JSON"),
        ('{"train": [["a.jpg", 1e999, "cat"]], "test": []}', r"train\[0\]: the label must be an integer, not inf"),
        ('{"train": [["a.jpg", 0.5, "cat"]], "test": []}', r"train\[0\]: the label must be an integer, not 0\.5"),
        ('{"train": [["a.jpg", true, "cat"]], "test": []}', r"train\[0\]: the label must be an integer, not True"),
        ('{"train": [], "test": [["a.jpg", 1000000000000, "cat"]]}', r"test\[0\]: the label must be 0 to"),
        ('{"train": [["a\\ud800.jpg", 0, "cat"]], "test": []}', r"train\[0\]: 'a\\ud800\.jpg' is not a path"),
        ('{"train": [["a\\u0000.jpg", 0, "cat"]], "test": []}', r"train\[0\]: 'a\\x00\.jpg' is not a path"),
        ('{"train": [["a.jpg", 0, "c\\udfff"]], "test": []}', r"train\[0\]: the class name .* characters that are not"),
        ('{"train": [["a.jpg", 0, "   "]], "test": []}', r"train\[0\]: the class name '   ' is blank"),
        ('{"train": [["a.jpg", 0, "cat", 3]], "test": []}', r"train\[0\] must be \[relative path, label, class name\]"),
        ('{"train": [], "train": [], "test": []}', "the key 'train' stands twice"),
        ('{"train": [], "valid": [], "test": []}', "has the unknown lists valid; known are"),
        ("", "is not valid JSON"),
        ("null", "must be an object with the lists"),
    ],
)
def test_splits_that_are_errors(tmp_path, content, message):
    path = tmp_path / "split.json"
    path.write_text(content)
    start = time.monotonic()
    with pytest.raises(ValueError, match=message) as error:
        read_split(path, tmp_path)
    assert str(path) in str(error.value) and len(str(error.value)) < 600
    assert time.monotonic() - start < 5


def test_damaged_and_huge_gzip_files_are_errors(tmp_path, monkeypatch):
    path = tmp_path / "split.json.gz"
    whole = gzip.compress(b'{"train": [], "test": []}')
    path.write_bytes(whole)
    assert read_split(path, tmp_path) == ([], [], [])
    for damaged in (whole[:-12], b"{}", whole[:12] + b"\xff" * 9 + whole[21:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is not a valid gzip file"):
            read_json(path)
    monkeypatch.setattr("datasets.text.read_bytes.__defaults__", (2**20,))
    path.write_bytes(gzip.compress(b" " * 2**21))
    with pytest.raises(ValueError, match="has more than 1 MiB"):
        read_json(path)


# Names and paths


@pytest.mark.parametrize(
    "spelling", ["a/b.jpg", "./a/b.jpg", "a//b.jpg", "a/./b.jpg", "x/../a/b.jpg", "a\\b.jpg", ".\\a\\b.jpg"]
)
def test_spellings_of_one_path(spelling):
    assert relative_path(spelling, "") == "a/b.jpg"
    assert split_entry([spelling, 0, "cat"], "") == ("a/b.jpg", 0, "cat")


@pytest.mark.parametrize("other", ["Red Fox", "red_fox", "red  fox", " red fox", "RED_FOX"])
def test_names_that_give_one_prompt_are_one_name(other):
    with pytest.raises(ValueError, match=f"The folders 'a' and 'c' have the same class name: 'red fox' and '{other}'"):
        same_names({"a": "red fox", "b": "wolf", "c": other}, "folders")
    same_names({"a": "red fox", "b": "red foxes", "c": "café"}, "folders")
    with pytest.raises(ValueError, match="the same class name"):
        same_names({0: "caf\u00e9", 1: "cafe\u0301"}, "labels")


def test_identifiers_are_no_names():
    assert unfit_names(["tench", "n01440764"]) == "1 of 2 class names are WordNet ids (n01440764)"
    assert "WordNet ids" in unfit_names(["n02085620-Chihuahua", "n02085782_spaniel"])
    assert "WordNet synsets" in unfit_names(["tench.n.01", "great_white_shark.n.01"])
    assert unfit_names(["0", "1"]) == "2 of 2 class names are numbers (0, 1)"
    assert unfit_names(["tench", "northern lights", "n1", "St. Bernard", "7 dwarfs"]) == ""


def test_values_in_messages_are_short():
    assert shortened("cat") == "'cat'"
    assert len(shortened("x" * 10**6)) < 100 and len(shortened([["x" * 100] * 100] * 100)) < 300
    assert shortened(10**5000) == "a very long int"
