"""Any bytes give a plain object or a ValueError, in bounded time and memory; nothing in them is called."""

import contextlib
import io
import pickle
import struct
import subprocess
import sys
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from dassl.utils.file_kinds import describe
from dassl.utils.safe_load import Placeholder, load_plain, read_plain
from tests.paths import ROOT

STATE = {
    "state_dict": OrderedDict(w=torch.arange(12.0).view(3, 4), h=torch.ones(5, dtype=torch.float16)),
    "epoch": 3,
    "note": "text",
    "numbers": [1, 2.5, None, True, (2**40, b"bytes")],
}


def saved(content: Any = STATE, zipped: bool = True, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    return buffer.getvalue()


def archive(data_pkl: bytes, storages: dict[str, bytes] | None = None, more: dict[str, bytes] | None = None) -> bytes:
    """A file of torch.save with this pickle and these storages."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("archive/data.pkl", data_pkl)
        for key, content in (storages or {}).items():
            target.writestr(f"archive/data/{key}", content)
        for name, content in (more or {}).items():
            target.writestr(name, content)
    return buffer.getvalue()


def tensor_pickle(size: tuple, stride: tuple, offset: Any = 0, numel: Any = 4, storage: str = "FloatStorage") -> bytes:
    """The pickle of one tensor, which may state anything."""

    class Tensor:
        def __reduce__(self) -> tuple:
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, OrderedDict())

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, Storage):
                return "storage", getattr(torch, storage), "0", "cpu", numel
            return None

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Pickler(buffer, 2).dump(Tensor())
    return buffer.getvalue()


def read(content: bytes, folder: Path) -> Any:
    path = folder / "file"
    path.write_bytes(content)
    return load_plain(path)


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected)
    else:
        assert found == expected


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_is_read(tmp_path: Path, zipped: bool, protocol: int) -> None:
    assert_same(read(saved(STATE, zipped, protocol), tmp_path), STATE)


@pytest.mark.parametrize("zipped", [True, False])
def test_kinds_of_tensors(tmp_path: Path, zipped: bool) -> None:
    base = torch.randn(6, 5)
    tensors = {
        "transposed": base.t(),
        "part": base[2:4, 1:3],
        "stepped": base[::2, ::2],
        "number": torch.tensor(3.0),
        "empty": torch.empty(0, 3),
        "expanded": torch.ones(1).expand(7),
        "learned": torch.ones(2).requires_grad_(),
    }
    types = (torch.float64, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool, torch.complex64)
    tensors |= {str(dtype): torch.ones(3, dtype=dtype) for dtype in types}
    found = read(saved(tensors, zipped), tmp_path)
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype, name
        assert found[name].requires_grad == tensor.requires_grad
    assert found["part"].untyped_storage().data_ptr() == found["transposed"].untyped_storage().data_ptr()
    tagged = nn.Parameter(torch.ones(2))
    tagged.tag = "x"  # type: ignore[attr-defined]
    assert torch.equal(read(saved({"p": tagged}, zipped), tmp_path)["p"], tagged)


def test_a_compressed_archive_is_read(tmp_path: Path) -> None:
    source, target = zipfile.ZipFile(io.BytesIO(saved())), tmp_path / "packed"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in source.namelist():
            packed.writestr(name, source.read(name))
    assert_same(load_plain(target), STATE)


def entries_twice() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return archive(b"N.", more={"archive/data.pkl": b"K\x01."})


def overlapping() -> bytes:
    """The directory's second entry is moved to where the first one is."""
    content = bytearray(archive(tensor_pickle((4,), (1,)), {"0": bytes(16), "1": bytes(16)}))
    second = content.rindex(b"PK\x01\x02")
    first = content.rindex(b"PK\x01\x02", 0, second)
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    return bytes(content)


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("archive/data.pkl", tensor_pickle((1,), (1,), numel=100 << 18))
        target.writestr("archive/data/0", bytes(100 << 20))
    return buffer.getvalue()


def overwritten_directory() -> bytes:
    content = bytearray(saved())
    start = content.index(b"PK\x01\x02")
    content[start : start + 40] = bytes(40)
    return bytes(content)


def flipped_bit() -> bytes:
    content = bytearray(archive(tensor_pickle((4,), (1,)), {"0": b"sixteen bytes..!"}))
    content[content.index(b"sixteen")] ^= 1
    return bytes(content)


ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a name twice": (entries_twice, "'archive/data.pkl' stands more than once"),
    "overlap": (overlapping, "overlaps|does not begin where"),
    "bomb": (bomb, "far more than weights do"),
    "directory": (overwritten_directory, "directory"),
    "bit": (flipped_bit, "checksum does not hold"),
    "no storage": (lambda: archive(tensor_pickle((4,), (1,))), "'data/0' is missing"),
    "short storage": (
        lambda: archive(tensor_pickle((4,), (1,)), {"0": bytes(15)}),
        "has 15 bytes, its tensors state 16",
    ),
    "two pickles": (lambda: archive(b"N.", more={"other/data.pkl": b"N."}), "zip archive of other files"),
    "other files": (lambda: archive(b"N.").replace(b"data.pkl", b"data.txt"), "other files .archive/data.txt"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_broken_archives(tmp_path: Path, name: str) -> None:
    content, message = ARCHIVES[name]
    with pytest.raises(ValueError, match=message):
        read(content(), tmp_path)


@pytest.mark.parametrize(
    ("size", "stride", "offset", "numel"),
    [
        ((5,), (1,), 0, 4),
        ((2, 2), (4, 1), 0, 4),
        ((4,), (1,), 1, 4),
        ((1,), (1,), 4, 4),
        ((-1,), (1,), 0, 4),
        ((2,), (-1,), 3, 4),
        ((4,), (1,), -1, 4),
        ((4,), (1, 1), 0, 4),
        ((10**12,), (0,), 0, 4),
        ((0, 10**15), (1, 1), 0, 4),
        ((2**62, 2**62), (0, 0), 0, 4),
        ((4.0,), (1,), 0, 4),
        ((True,), (1,), 0, 4),
        ((4,), (1,), 0, -4),
        ((4,), (1,), 0, 10**15),
        ((1,) * 80, (1,) * 80, 0, 4),
    ],
)
def test_tensors_outside_their_storage(tmp_path: Path, size: Any, stride: Any, offset: Any, numel: Any) -> None:
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        read(archive(tensor_pickle(size, stride, offset, numel), {"0": bytes(16)}), tmp_path)


def global_call(name: str, arguments: bytes) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n" + arguments + b"R."


NUMBER = b"\x8a\x05" + struct.pack("<q", 10**11)[:5]  # LONG1
BOMBS = {
    "bytearray": global_call("builtins bytearray", b"(" + NUMBER + b"t"),
    "bytes": global_call("builtins bytes", b"(" + NUMBER + b"t"),
    "numpy scalar": global_call("numpy.core.multiarray scalar", b"(cnumpy\ndtype\n(X\x02\0\0\0f8tR" + NUMBER + b"t"),
    "memo": b"Nr\xff\xff\xff\x7f.",
    "BINBYTES8": b"\x8e" + struct.pack("<Q", 10**12) + b"x.",
    "BINUNICODE8": b"\x8d" + struct.pack("<Q", 10**12) + b"x.",
    "BINUNICODE": b"X" + struct.pack("<I", 2**32 - 1) + b"x.",
    "BINBYTES": b"B" + struct.pack("<I", 2**32 - 1) + b"x.",
    "LONG4": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
    "number": b"\x8b" + struct.pack("<i", 10**6) + b"\x01" * 10**6 + b".",
    "digits": b"L" + b"9" * 100_000 + b"L\n.",
    "deep": b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep key": b"}" + b")" + b"\x85" * 100_000 + b"Ns.",
    "deep set": b"\x8f(" + b")" + b"\x85" * 100_000 + b"\x90.",
    "own member": b"]q\0h\0a.",
    "laughs": b"]" + b"".join(b"q%c](h%ch%ce" % (i, i, i) for i in range(60)) + b".",
    "laughing key": b"})" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60)) + b"Ns.",
    "copies": b"](" + b"K\x01" * 100_000 + b"eq\0" + b"cbuiltins\nset\nq\x010](" + b"h\x01h\0\x85R" * 10_000 + b"e.",
    "operations": b"](" + b"N" * 1_100_000 + b"e.",
    "colliding": b"}("
    + b"".join(b"\x8a\x10" + (i * (2**61 - 1)).to_bytes(16, "little") + b"N" for i in range(9))
    + b"u.",
    "state of a function": global_call("torch._utils _rebuild_tensor_v2", b"(N}tb"),
    "extension": b"\x82\x01.",
    "buffer": b"\x97.",
}


@pytest.mark.slow
def test_bombs_end_in_an_error_with_little_memory_and_time(tmp_path: Path) -> None:
    """In a process that may take 1 GiB more than it has after importing torch."""
    for name, payload in BOMBS.items():
        (tmp_path / name).write_bytes(archive(b"\x80\x02" + payload if payload[:1] != b"\x80" else payload))
    code = """if True:
        import resource, sys, time
        from pathlib import Path
        from dassl.utils.safe_load import Placeholder, load_plain
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 30), now + (1 << 30)))
        for path in sorted(Path(sys.argv[1]).iterdir()):
            start = time.process_time()
            try:
                result = type(load_plain(path)).__name__
            except ValueError as error:
                result = "ValueError"
            print(path.name, result, time.process_time() - start, sep="|")
    """
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    results = [line.split("|") for line in done.stdout.splitlines()]
    assert [name for name, *_ in results] == sorted(BOMBS)
    harmless = {"bytes": "Placeholder", "memo": "NoneType", "frame": "NoneType"}
    assert {name: kind for name, kind, _ in results if kind != "ValueError"} == harmless
    assert all(float(seconds) < 20 for *_, seconds in results), results


@pytest.mark.parametrize("zipped", [True, False])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files(tmp_path: Path, zipped: bool, data: st.DataObject) -> None:
    content = bytearray(saved(STATE, zipped))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["set", "cut", "insert", "repeat", "delete"]))
        if kind == "set":
            content[start] = data.draw(st.integers(0, 255))
        elif kind == "cut" and start > 4:
            del content[start:]
        elif kind == "insert":
            content[start:start] = data.draw(st.binary(max_size=20))
        elif kind == "repeat":
            content[start:start] = content[start : start + 40]
        else:
            del content[start : start + data.draw(st.integers(1, 30))]
        if not content:
            break
    try:
        read(bytes(content), tmp_path)
    except ValueError as error:
        assert "is not a readable checkpoint" in str(error) or "TorchScript" in str(error)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    payload=st.one_of(
        st.binary(max_size=60),
        st.lists(
            st.sampled_from(
                [bytes([b]) for b in b"(.012NR}]ted)sbu\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94oaQl"]
                + [b"K\x01", b"q\x00", b"h\x00", b"X\x01\0\0\0a", b"\x8c\x01b", b"ccollections\nOrderedDict\n"]
                + [b"cbuiltins\nset\n", b"cos\nsystem\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nSize\n"]
                + [b"ctorch\ndevice\n", b"ctorch\nfloat32\n", b"ccollections\nCounter\n", b"cbuiltins\ncomplex\n"]
            ),
            max_size=30,
        ).map(lambda parts: b"".join(parts) + b"."),
    )
)
def test_random_pickles(tmp_path: Path, payload: bytes) -> None:
    for content in (payload, archive(payload), archive(b"\x80\x02" + payload, {"0": b"1234"})):
        with contextlib.suppress(ValueError):
            repr(read(content, tmp_path))


def test_containers_of_other_kinds(tmp_path: Path) -> None:
    content = {"s": {1, 2}, "f": frozenset("ab"), "c": Counter("aab"), "b": bytearray(b"ab"), "z": 1 + 2j, "t": ()}
    assert_same(read(saved(content), tmp_path), content)
    found = read(saved({"x": nn.Linear(1, 1), "y": torch.eye(2).to_sparse()}), tmp_path)
    assert all(isinstance(value, Placeholder) for value in found.values())
    assert found["x"].origin == "torch.nn.modules.linear.Linear" and "sparse" in found["y"].origin


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"", "empty"),
        (bytes(100), "zeros"),
        (b"<!DOCTYPE html><html>", r"web page \(HTML\)"),
        (b"\xef\xbb\xbf\n <HTML lang='de'>", r"web page \(HTML\)"),
        ("<html>über".encode("latin-1"), r"web page \(HTML\)"),
        ("<html>".encode("utf-16"), r"web page \(HTML\)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "Git LFS.*git lfs pull"),
        (b'{"error": "Repository not found"}', "JSON.*Repository not found"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "XML.*AccessDenied"),
        (b"Not Found", 'text that begins "Not Found"'),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (bytes([120]) + bytes(256) + b"ustar\x00", "tar archive"),
        (b"\x89PNG\r\n\x1a\n", "picture .PNG"),
        (b"\xff\xd8\xff\xe0", "picture .JPEG"),
        (b"\x08\x07\x12\x07pytorch", "ONNX"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x93NUMPY\x01\x00", "NumPy"),
        (b"\x80\x04\x95", "pickle that torch.save did not write"),
        (b"\x01\x02\x03\xff\xfe\x00", "no format for weights"),
    ],
)
def test_what_a_file_is(tmp_path: Path, start: bytes, kind: str) -> None:
    with pytest.raises(ValueError, match=kind) as raised:
        read(start, tmp_path)
    assert "weights_only" not in str(raised.value) and "torch.load" not in str(raised.value)


@given(st.binary(max_size=600))
def test_any_bytes_are_described(start: bytes) -> None:
    assert describe(start[:512], len(start)).startswith(("it ", "its "))


def test_the_end_of_a_cut_file_is_missed(tmp_path: Path) -> None:
    for zipped in (True, False):
        content = saved({"w": torch.randn(1000)}, zipped)
        for share in (0.1, 0.5, 0.99):
            (tmp_path / "cut").write_bytes(content[: int(len(content) * share)])
            with pytest.raises(ValueError, match=r"cut|end is missing"):
                read_plain(tmp_path / "cut")
