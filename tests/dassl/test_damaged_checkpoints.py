"""Checkpoints that are damaged or hold something else: the same content, or one error that names the file."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dassl.engine import TrainerBase
from dassl.utils import load_checkpoint, load_pretrained_weights, resume_from_checkpoint, save_checkpoint, torch_save
from dassl.utils.torchtools import last_checkpoint

STATE = {
    "state_dict": {
        "ctx": torch.arange(12.0).view(3, 4),
        "half": torch.linspace(-1, 1, 5).half(),
        "steps": torch.tensor(7),
        "turned": torch.arange(6.0).view(2, 3).t(),
    },
    "epoch": 3,
    "belongs_to": {"backbone": "ViT-B/16"},
    "optimizer": None,
    "scheduler": None,
    "val_result": 81.25,
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    return type(a) is type(b) and a == b


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("whole")
    save_checkpoint(STATE, folder)
    return (folder / "model.pth.tar-3").read_bytes()


@pytest.mark.filterwarnings("ignore")  # of PyTorch, about versions that the flipped bytes claim
@pytest.mark.parametrize("mask", [0xFF, 0x01, 0x80])
def test_a_flipped_byte_is_seen_wherever_it_is(tmp_path, content, mask) -> None:
    seen = 0
    for position in range(0, len(content), 37):
        damaged = bytearray(content)
        damaged[position] ^= mask
        (tmp_path / "file").write_bytes(damaged)
        try:
            assert same(load_checkpoint(tmp_path / "file"), STATE), position
        except ValueError as error:
            assert str(tmp_path / "file") in str(error)
            seen += 1
    assert seen > 20  # the others are padding, or names and times that nothing reads


def test_a_damaged_tensor_is_named(tmp_path, content) -> None:
    damaged = content.replace(torch.arange(12.0).numpy().tobytes(), torch.arange(1.0, 13.0).numpy().tobytes())
    assert damaged != content
    (tmp_path / "file").write_bytes(damaged)
    with pytest.raises(ValueError, match=r"file .* is not a readable checkpoint: its entry 'data/\d' is damaged"):
        load_checkpoint(tmp_path / "file")


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.update(a=weights["b"], b=weights["a"]),
        lambda weights: weights.update(c=weights.pop("b")),
        lambda weights: weights.pop("b"),
    ],
    ids=["swapped", "renamed", "removed"],
)
def test_tensors_under_other_names_are_seen(tmp_path, change) -> None:
    save_checkpoint({"state_dict": {"a": torch.zeros(2), "b": torch.ones(2)}, "epoch": 1}, tmp_path)
    path = tmp_path / "model.pth.tar-1"
    state = torch.load(path, weights_only=True)
    change(state["state_dict"])
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"tar-1 (is damaged|lacks tensors).*state_dict\.[ab].*on purpose"):
        load_checkpoint(path)
    del state["tensor_crc32"]
    torch.save(state, path)
    load_checkpoint(path)


def test_files_of_others_need_no_checksums(tmp_path) -> None:
    torch.save(STATE, tmp_path / "plain")
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "without")
    finally:
        torch.serialization.set_crc32_options(before)
    torch.save(STATE, tmp_path / "old", _use_new_zipfile_serialization=False)
    for name in ("plain", "without", "old"):
        assert same(load_checkpoint(tmp_path / name), STATE)


def test_every_kind_of_tensor_has_a_checksum(tmp_path) -> None:
    weights = {
        **{str(kind): torch.ones(3).to(kind) for kind in (torch.bfloat16, torch.complex64, torch.bool, torch.int8)},
        "empty": torch.zeros(0),
        "scalar": torch.tensor(1.5),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "expanded": torch.ones(1, 3).expand(1000, 3),
    }
    save_checkpoint({"state_dict": weights, "epoch": 0}, tmp_path)
    loaded = load_checkpoint(tmp_path / "model.pth.tar-0")["state_dict"]
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    assert (tmp_path / "model.pth.tar-0").stat().st_size < 20_000


def test_an_overwritten_directory_of_the_zip(tmp_path, content) -> None:
    start = content.index(b"PK\x01\x02")
    for replaced in (b"\0" * 200, b"PK\x01\x02" + b"\xff" * 196, content[:200]):
        (tmp_path / "file").write_bytes(content[:start] + replaced + content[start + 200 :])
        with pytest.raises(ValueError, match=r"file.* is (damaged|not a readable checkpoint)"):
            load_checkpoint(tmp_path / "file")


# ---- content ---------------------------------------------------------------------------------------------------


class Learner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ctx = nn.Parameter(torch.zeros(3))
        self.register_buffer("mask", torch.zeros(2))
        self.register_buffer("steps", torch.tensor(0))


def trainer_with(model: nn.Module) -> TrainerBase:
    trainer = TrainerBase()
    trainer.register_model("learner", model)
    return trainer


def good_weights() -> dict[str, torch.Tensor]:
    return {"ctx": torch.ones(3), "mask": torch.tensor([0.0, -torch.inf]), "steps": torch.tensor(4)}


def load(folder: Path, state: Any) -> Learner:
    (folder / "learner").mkdir(exist_ok=True)
    torch.save(state, folder / "learner" / "model.pth.tar-1")
    model = Learner()
    trainer_with(model).load_model(str(folder), epoch=1)
    return model


def test_masks_and_counters_load(tmp_path) -> None:
    model = load(tmp_path, {"state_dict": good_weights(), "epoch": 1})
    assert (model.mask[1].item(), model.steps.item(), model.ctx.sum().item()) == (-torch.inf, 4, 3)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"epoch": 1}, "state_dict: required key not provided"),
        ({"state_dict": None}, "state_dict: expected a dict of tensors, found None"),
        ({"state_dict": [torch.ones(3)]}, "state_dict: expected a dict of tensors, found list of 1"),
        ({"state_dict": "ctx"}, "state_dict: expected a dict of tensors, found str 'ctx'"),
        ({"state_dict": {5: torch.ones(3)}}, "expected strings as names of tensors, not int 5"),
        ({"state_dict": {}}, r"missing ctx \(3,\)"),
        ({"state_dict": good_weights(), "epoch": "last"}, "epoch: expected a whole number from 0 on, found str 'last'"),
        ({"state_dict": good_weights(), "epoch": -1}, "epoch: expected a whole number"),
        ({"state_dict": good_weights(), "epoch": True}, "epoch: expected a whole number"),
        ({"state_dict": good_weights(), "belongs_to": ["RN50"]}, "belongs_to: expected a dict, found list of 1"),
        ({"state_dict": good_weights() | {"module.ctx": torch.ones(3)}}, "both 'ctx' and 'module.ctx'"),
    ],
)
def test_a_broken_entry_is_named(tmp_path, state, message) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, state)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(3).to_sparse(), r"it is <torch\._utils\._rebuild_sparse_tensor, not read>, not a tensor"),
        (
            torch.ones(3, device="meta"),
            r"it is <torch\._utils\._rebuild_meta_tensor\w+, not read>, not a tensor",
        ),
        (torch.ones(3, dtype=torch.complex64), "ctx holds torch.complex64 in the file, torch.float32 in the model"),
        (torch.ones(3, dtype=torch.bool), "ctx holds torch.bool in the file"),
        (torch.ones(3, dtype=torch.int64), "ctx holds torch.int64 in the file"),
        (torch.tensor([1.0, torch.nan, 0.0]), "ctx holds NaN or infinite values"),
        (torch.tensor([1.0, -torch.inf, 0.0]), "ctx holds NaN or infinite values"),
        (torch.tensor([torch.inf, -torch.inf, 0.0]).half(), "ctx holds NaN or infinite values"),
        (torch.tensor([1e300, 0, 0], dtype=torch.float64), "ctx holds NaN or infinite values"),
        (None, r"ctx has shape \(\) in the file, \(3,\) in the model: it is None, not a tensor"),
        ("text", "ctx has shape .*: it is str 'text', not a tensor"),
        ([1.0, 2.0, 3.0], "ctx has shape .*: it is list of 3, not a tensor"),
    ],
)
def test_what_is_no_parameter_is_refused(tmp_path, value, message) -> None:
    with pytest.raises(ValueError, match=rf"model\.pth\.tar-1 does not fit the model(?s:.*){message}"):
        load(tmp_path, {"state_dict": good_weights() | {"ctx": value}, "epoch": 1})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "a storage of the type torch.QInt8Storage"),
        (
            torch.ones(1, 1).expand(10**6, 10**6),
            r"of size \(1000000, 1000000\), .* in a storage of 1 elements",
        ),
    ],
)
def test_what_is_not_even_read(tmp_path, value, message) -> None:
    with pytest.raises(ValueError, match=rf"model\.pth\.tar-1 .* is not a readable checkpoint: .*{message}"):
        load(tmp_path, {"state_dict": good_weights() | {"ctx": value}, "epoch": 1})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mask", torch.tensor([0.0, torch.nan]), "mask holds NaN"),
        ("steps", torch.tensor(1.5), "steps holds torch.float32 in the file, torch.int64 in the model"),
        ("steps", 4, "steps has shape .*: it is int 4, not a tensor"),
    ],
)
def test_what_is_no_buffer_is_refused(tmp_path, name, value, message) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, {"state_dict": good_weights() | {name: value}, "epoch": 1})


def test_large_finite_values_load(tmp_path) -> None:
    """Their sum overflows fp32, which is no reason to refuse them."""
    model = load(tmp_path, {"state_dict": good_weights() | {"ctx": torch.full((3,), 3e38)}, "epoch": 1})
    assert model.ctx[0] == torch.tensor(3e38)


def test_the_readers_of_plugins_refuse_the_same(tmp_path) -> None:
    model = nn.Linear(2, 1)
    broken = {"weight": torch.tensor([[torch.nan, 0]]), "bias": torch.zeros(1)}
    save_checkpoint({"state_dict": broken, "epoch": 1}, tmp_path)
    with pytest.raises(ValueError, match="weight holds NaN or infinite values"):
        resume_from_checkpoint(tmp_path, model)
    with pytest.raises(ValueError, match="weight holds NaN or infinite values"):
        load_pretrained_weights(model, tmp_path / "model.pth.tar-1")
    save_checkpoint({"state_dict": {"weight": torch.zeros(1, 2)}, "epoch": 1}, tmp_path)
    with pytest.raises(ValueError, match=r"(?s)model.pth.tar-1 does not fit the model.*bias"):
        resume_from_checkpoint(tmp_path, model)
    torch.save({5: torch.ones(1)}, tmp_path / "numbers")
    with pytest.raises(ValueError, match=r"numbers is not valid: .*strings as names"):
        load_pretrained_weights(model, tmp_path / "numbers")
    optimizer = torch.optim.Adam(model.parameters())
    whole = {"state_dict": nn.Linear(2, 1).state_dict(), "epoch": 1}
    save_checkpoint(whole | {"optimizer": {"state": {}, "param_groups": []}}, tmp_path)
    with pytest.raises(ValueError, match="entry 'optimizer', is not valid: param_groups: expected a list of 1"):
        resume_from_checkpoint(tmp_path, model, optimizer)


# ---- the file that names the last checkpoint -------------------------------------------------------------------


@pytest.mark.parametrize(
    "pointer",
    [
        *(b"", b"\n", b"..", b".", b"/etc/passwd", b"../other/model.pth.tar-1", b"sub/model.pth.tar-1"),
        *(rb"C:\model.pth.tar-1", b"\x80\x02}q\x00.", "model".encode("utf-16"), b"a\0b", b"model.pth.tar-1\nmore"),
    ],
)
def test_a_pointer_to_something_else(tmp_path, pointer) -> None:
    trainer = trainer_with(Learner())
    trainer.save_model(0, str(tmp_path))
    (tmp_path / "learner" / "checkpoint").write_bytes(pointer)
    with pytest.raises(ValueError, match=r"learner.checkpoint holds bytes .*In that folder: .*model\.pth\.tar-1"):
        trainer.load_model(str(tmp_path))
    with pytest.raises(ValueError, match=r"checkpoint holds bytes"):
        resume_from_checkpoint(tmp_path / "learner", Learner())


def test_a_pointer_to_a_missing_file(tmp_path) -> None:
    trainer = trainer_with(Learner())
    trainer.save_model(0, str(tmp_path))
    (tmp_path / "learner" / "checkpoint").write_text("model.pth.tar-9\n")
    with pytest.raises(FileNotFoundError, match=r"tar-9, which .*checkpoint names\. In that folder: .*tar-1"):
        trainer.load_model(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="No file 'checkpoint' in"):
        last_checkpoint(tmp_path)


# ---- anything --------------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5)
tensors = st.sampled_from(
    [torch.ones(3), torch.tensor(1), torch.zeros(0), torch.ones(3).half(), torch.eye(2).to_sparse()]
)
values = st.recursive(
    scalars | tensors,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["state_dict", "epoch", "belongs_to", "optimizer", "tensor_crc32"])


def loads_or_is_refused(path: Path, reader: Callable[[Path], Any] = load_checkpoint) -> Any:
    try:
        return reader(path)
    except ValueError as error:
        assert str(path) in str(error) and len(str(error)) < 3000
        return None


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300) | st.binary(max_size=50).map(lambda tail: b"PK\x03\x04" + tail))
def test_any_bytes(tmp_path_factory, content) -> None:
    path = tmp_path_factory.getbasetemp() / "any_bytes"
    path.write_bytes(content)
    loads_or_is_refused(path)


@settings(max_examples=60, deadline=None)
@given(values | st.dictionaries(names, values))
def test_any_content(tmp_path_factory, state) -> None:
    path = tmp_path_factory.getbasetemp() / "learner" / "model.pth.tar-1"
    path.parent.mkdir(exist_ok=True)
    torch.save(state, path)
    loads_or_is_refused(path)
    loads_or_is_refused(path, lambda _: trainer_with(Learner()).load_model(str(path.parents[1]), epoch=1))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_change_of_a_checkpoint(tmp_path_factory, content, data) -> None:
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start, min(len(content), start + 64)))
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(content[:start] + data.draw(st.binary(max_size=64)) + content[end:])
    found = loads_or_is_refused(path)
    assert found is None or same(found, STATE)


def test_nested_too_deeply(tmp_path) -> None:
    nested = b"]" * 20_000 + b"a" * 19_999
    payload = b"\x80\x02}(X\x05\0\0\0entry" + nested + b"X\x0c\0\0\0tensor_crc32]u."
    torch_save({}, tmp_path / "empty")
    with zipfile.ZipFile(tmp_path / "empty") as source, zipfile.ZipFile(tmp_path / "deep", "w") as archive:
        for name in source.namelist():
            archive.writestr(name, payload if name.endswith("data.pkl") else source.read(name))
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "deep"))):
        load_checkpoint(tmp_path / "deep")
