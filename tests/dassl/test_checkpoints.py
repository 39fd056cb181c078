"""Checkpoints are written whole, read without executing anything, and fit or fail loudly."""

import io
import os
import pickle
import re
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dassl.engine import TrainerBase
from dassl.utils import (
    load_checkpoint,
    load_pretrained_weights,
    plain_state,
    resume_from_checkpoint,
    save_checkpoint,
    torch_save,
)
from dassl.utils.safe_load import Placeholder
from dassl.utils.tools import atomic_write
from tests.paths import GOLDEN, needs_golden


class Bomb:
    """Runs a command when it is unpickled by an unpickler that lets it."""

    def __init__(self, command: str, target: Path) -> None:
        self.command, self.target = command, target

    def __reduce__(self) -> tuple:
        return {"system": os.system, "open": open, "exec": exec}[self.command], {
            "system": (f"touch {self.target}",),
            "open": (str(self.target), "w"),
            "exec": (f"open({str(self.target)!r}, 'w')",),
        }[self.command]


class Alive:
    """A live object with state, as the published checkpoints hold a scheduler."""

    def __init__(self) -> None:
        self.optimizer = OrderedDict(lr=0.1)
        self.counts = Counter([1, 1])


@pytest.mark.parametrize("command", ["system", "open", "exec"])
@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_executed(tmp_path, command, zipped) -> None:
    target = tmp_path / "executed"
    weights = {"ctx": torch.arange(4.0)}
    state = {"state_dict": weights, "epoch": 3, "scheduler": Bomb(command, target)}
    torch.save(state, tmp_path / "bad", _use_new_zipfile_serialization=zipped)
    checkpoint = load_checkpoint(tmp_path / "bad")
    assert not target.exists()
    assert torch.equal(checkpoint["state_dict"]["ctx"], weights["ctx"])
    assert isinstance(checkpoint["scheduler"], Placeholder)


def test_a_bare_pickle_is_not_executed(tmp_path) -> None:
    target = tmp_path / "executed"
    (tmp_path / "bad").write_bytes(pickle.dumps(Bomb("system", target)))
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "bad")
    assert not target.exists()


def test_attributes_set_by_a_file_reach_nothing_real(tmp_path) -> None:
    """BUILD on torch's own rebuild function: only this load's copy may change."""
    payload = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(N}X\x08\x00\x00\x00__name__X\x04\x00\x00\x00evilstb."
    buffer = io.BytesIO()
    torch.save({}, buffer)
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(tmp_path / "bad", "w") as archive:
        for name in source.namelist():
            archive.writestr(name, payload if name.endswith("data.pkl") else source.read(name))
    with pytest.raises(ValueError):
        load_checkpoint(tmp_path / "bad")
    assert torch._utils._rebuild_tensor_v2.__name__ == "_rebuild_tensor_v2"


def test_live_objects_come_as_placeholders(tmp_path) -> None:
    parameter = nn.Parameter(torch.ones(2, dtype=torch.float16))
    state = {
        "state_dict": OrderedDict(ctx=parameter, half=torch.ones(3, 2).t()),
        "epoch": 5,
        "val_result": np.float64(81.5),
        "scheduler": Alive(),
        "size": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
    }
    torch.save(state, tmp_path / "file")
    checkpoint = load_checkpoint(tmp_path / "file")
    assert checkpoint["state_dict"]["ctx"].dtype == torch.float16
    assert torch.equal(checkpoint["state_dict"]["half"], torch.ones(2, 3))
    assert (checkpoint["epoch"], checkpoint["val_result"], checkpoint["size"]) == (5, 81.5, (2, 3))
    assert checkpoint["dtype"] == torch.bfloat16
    assert re.search("Alive, not read", repr(checkpoint["scheduler"]))


@needs_golden
def test_the_published_kind_of_checkpoint_loads() -> None:
    path = GOLDEN / "reference_checkpoint" / "MultiModalPromptLearner" / "model.pth.tar-5"
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    checkpoint = load_checkpoint(path)
    assert checkpoint["epoch"] == 5
    assert len(checkpoint["state_dict"]) == 96
    assert all(isinstance(value, torch.Tensor) for value in checkpoint["state_dict"].values())
    assert isinstance(checkpoint["scheduler"]["successor"], Placeholder)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_truncated_files(tmp_path, share) -> None:
    torch.save({"state_dict": {"w": torch.randn(100, 100)}, "epoch": 1}, tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"file \(\d+ bytes\) is not a readable checkpoint.*truncated"):
        load_checkpoint(tmp_path / "file")


def test_files_that_are_no_checkpoints(tmp_path) -> None:
    (tmp_path / "text").write_text("<html>quota exceeded</html>" * 50)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "text")
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(ValueError, match="holds list, expected a checkpoint"):
        load_checkpoint(tmp_path / "list")
    torch.jit.script(nn.Linear(1, 1)).save(tmp_path / "jit")
    with pytest.raises(ValueError, match="TorchScript archive"):
        load_checkpoint(tmp_path / "jit")
    with pytest.raises(FileNotFoundError, match=r"No checkpoint at .*In that folder: jit, list, text"):
        load_checkpoint(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="does not exist either"):
        load_checkpoint(tmp_path / "nowhere" / "none")
    with pytest.raises(ValueError, match="None"):
        load_checkpoint(None)


def test_a_failed_write_leaves_the_old_file(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "file") as file:
        file.write(b"new, half")
        raise RuntimeError
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_plain_state_drops_what_is_not_plain() -> None:
    state = {"f": lambda x: x, "n": np.int32(3), "a": np.ones(2), "c": Counter("aa"), "t": (1, [None]), "s": {1}}
    plain = plain_state(state)
    assert torch.equal(plain.pop("a"), torch.ones(2, dtype=torch.float64))
    assert plain == {"f": None, "n": 3, "c": {"a": 2}, "t": (1, [None]), "s": [1]}
    assert plain_state(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1))["param_groups"][0]["lr"] == 0.1


def test_a_part_of_a_tensor_is_saved_alone(tmp_path) -> None:
    embedding = torch.randn(100, 77, 8)
    torch_save({"token_prefix": embedding[:, :1]}, tmp_path / "file")
    assert (tmp_path / "file").stat().st_size < 10_000
    assert torch.equal(torch.load(tmp_path / "file")["token_prefix"], embedding[:, :1])


def test_save_checkpoint_strips_module_and_points_to_the_last(tmp_path) -> None:
    state = {"state_dict": {"module.ctx": torch.ones(1)}, "epoch": 2, "optimizer": None, "scheduler": Alive()}
    save_checkpoint(state, tmp_path, is_best=True)
    assert (tmp_path / "checkpoint").read_text() == "model.pth.tar-2\n"
    for name in ("model.pth.tar-2", "model-best.pth.tar"):
        saved = torch.load(tmp_path / name, weights_only=True)
        assert (list(saved["state_dict"]), saved["epoch"], saved["scheduler"]) == (["ctx"], 2, None)
    save_checkpoint(state, tmp_path, remove_module_from_keys=False, model_name="mine.pth")
    assert list(load_checkpoint(tmp_path / "mine.pth")["state_dict"]) == ["module.ctx"]
    assert (tmp_path / "checkpoint").read_text() == "mine.pth\n"


def test_resume_from_checkpoint_restores_a_plugins_own_file(tmp_path, capsys) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3], gamma=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler.step()
    state = {"state_dict": model.state_dict(), "epoch": 1}
    save_checkpoint({**state, "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, tmp_path)
    other = nn.Linear(2, 1)
    optimizer2 = torch.optim.SGD(other.parameters(), lr=0.5, momentum=0.9)
    scheduler2 = torch.optim.lr_scheduler.MultiStepLR(optimizer2, [1, 3], gamma=0.1)
    assert resume_from_checkpoint(tmp_path, other, optimizer2, scheduler2) == 1
    assert torch.equal(other.weight, model.weight)
    assert optimizer2.param_groups[0]["lr"] == pytest.approx(0.05)
    assert scheduler2.state_dict() == scheduler.state_dict()
    save_checkpoint({**state, "optimizer": None, "scheduler": Alive()}, tmp_path)
    assert resume_from_checkpoint(tmp_path, other, optimizer2, scheduler2) == 1
    assert "no state of the optimizer" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="No file 'checkpoint'"):
        resume_from_checkpoint(tmp_path / "empty", other)


def test_load_pretrained_weights_names_what_is_left_out(tmp_path, capsys) -> None:
    torch.save(
        {"state_dict": {"module.weight": torch.ones(1, 2), "bias": torch.ones(3), "x": torch.ones(1)}}, tmp_path / "w"
    )
    model = nn.Linear(2, 1)
    load_pretrained_weights(model, tmp_path / "w")
    assert torch.equal(model.weight, torch.ones(1, 2))
    assert "unmatched keys or size: ['bias', 'x']" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"No layer of .* matches the model: the file has weight, bias, x"):
        load_pretrained_weights(nn.Conv2d(1, 1, 1), tmp_path / "w")


class Prompted(nn.Module):
    def __init__(self, depth: int = 2, width: int = 3) -> None:
        super().__init__()
        self.ctx = nn.Parameter(torch.randn(width))
        self.compound = nn.ParameterList(torch.randn(width) for _ in range(depth))
        self.clip = nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("token_prefix", torch.randn(2))


def registered(model: nn.Module) -> TrainerBase:
    trainer = TrainerBase()
    trainer.register_model("learner", model)
    return trainer


def test_saved_models_hold_learned_tensors_only(tmp_path) -> None:
    trainer = registered(Prompted())
    trainer.save_model(4, tmp_path, val_result=50.0)
    saved = torch.load(tmp_path / "learner" / "model.pth.tar-5", weights_only=True)
    assert list(saved["state_dict"]) == ["ctx", "token_prefix", "compound.0", "compound.1"]
    assert (saved["epoch"], saved["val_result"], saved["optimizer"], saved["scheduler"]) == (5, 50.0, None, None)
    trainer._models["learner"].clip.weight.data.add_(1e-6)  # frozen, but follows something that learns
    trainer.save_model(5, tmp_path, model_name="model-best.pth.tar")
    assert "clip.weight" in load_checkpoint(tmp_path / "learner" / "model-best.pth.tar")["state_dict"]


def test_load_model(tmp_path, capsys) -> None:
    trainer = registered(Prompted())
    trainer.save_model(0, tmp_path)
    other = registered(Prompted())
    own_clip = other._models["learner"].clip.weight.clone()
    other.load_model(tmp_path, epoch=1)
    assert torch.equal(other._models["learner"].ctx, trainer._models["learner"].ctx)
    assert torch.equal(other._models["learner"].clip.weight, own_clip)
    assert other.loaded_epoch == 1
    other.load_model(tmp_path)  # no best model: the last saved
    assert other.loaded_epoch == 1
    with pytest.raises(FileNotFoundError, match=r"model.pth.tar-2. In that folder: checkpoint, model.pth.tar-1"):
        other.load_model(tmp_path, epoch=2)
    (tmp_path / "learner" / "checkpoint").unlink()
    with pytest.raises(FileNotFoundError, match=r"model-best.pth.tar. In that folder: model.pth.tar-1"):
        other.load_model(tmp_path)
    other.load_model("")
    assert "load_model() is skipped" in capsys.readouterr().out


def test_a_checkpoint_of_another_shape_is_refused_with_both(tmp_path) -> None:
    registered(Prompted(depth=2)).save_model(0, tmp_path)
    with pytest.raises(ValueError, match=r"(?s)another prompt depth.*missing compound.2 \(3,\)"):
        registered(Prompted(depth=3)).load_model(tmp_path, epoch=1)
    with pytest.raises(ValueError, match=r"unexpected compound.1 \(3,\)"):
        registered(Prompted(depth=1)).load_model(tmp_path, epoch=1)
    with pytest.raises(ValueError, match=r"ctx has shape \(3,\) in the file, \(5,\) in the model"):
        registered(Prompted(width=5)).load_model(tmp_path, epoch=1)


def test_names_not_to_be_loaded(tmp_path) -> None:
    class ClassNames(TrainerBase):
        not_loaded = ("token_prefix",)

    registered(Prompted()).save_model(0, tmp_path)
    trainer = ClassNames()
    model = Prompted()
    model.token_prefix = torch.zeros(7)  # other classes
    trainer.register_model("learner", model)
    trainer.load_model(tmp_path, epoch=1)
    assert torch.equal(model.token_prefix, torch.zeros(7))


def test_modules_not_to_be_loaded(tmp_path) -> None:
    """A file may hold a teacher, whose parameters have the names that learned ones have elsewhere."""

    class Taught(TrainerBase):
        not_loaded = ("teacher",)

    saved, model = Prompted(), Prompted()
    saved.teacher = Prompted(width=5)
    registered(saved).save_model(0, tmp_path)
    trainer = Taught()
    trainer.register_model("learner", model)
    trainer.load_model(tmp_path, epoch=1)
    assert torch.equal(model.ctx, saved.ctx) and torch.equal(model.compound[1], saved.compound[1])


class Tied(nn.Module):
    """A learned head and a frozen backbone, each under two names; a teacher and a buffer that change in training."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.tail = self.head
        self.backbone = nn.Linear(4, 3).requires_grad_(False)
        self.blocks = nn.ModuleList([self.backbone])
        self.teacher = nn.Linear(3, 2, bias=False).requires_grad_(False)
        self.register_buffer("mean", torch.zeros(3))


HEAD = {"head.weight", "head.bias"}


def test_a_module_under_two_names_is_saved_once(tmp_path) -> None:
    trainer = registered(Tied())
    trainer.save_model(0, tmp_path)
    assert load_checkpoint(tmp_path / "learner" / "model.pth.tar-1")["state_dict"].keys() == HEAD | {"mean"}
    trainer._models["learner"].blocks[0].bias.data += 1
    trainer.save_model(1, tmp_path)
    saved = load_checkpoint(tmp_path / "learner" / "model.pth.tar-2")["state_dict"]
    assert saved.keys() == HEAD | {"mean", "backbone.bias"}


@pytest.mark.parametrize("names", [{"head"}, {"tail"}, {"head", "tail"}])
def test_one_name_of_a_tied_tensor_is_enough(names) -> None:
    source, target = Tied(), Tied()
    state = {key: value for key, value in source.state_dict().items() if key.partition(".")[0] in {*names, "mean"}}
    registered(target).load_weights("learner", state, "file")
    assert torch.equal(target.tail.weight, source.head.weight) and target.tail is target.head
    with pytest.raises(ValueError) as error:
        registered(Tied()).load_weights("learner", {"mean": torch.zeros(3)}, "file")
    assert re.findall(r"missing (\S+)", str(error.value)) == ["head.weight", "head.bias"]


def test_learned_buffers_and_averaged_teachers_are_saved_and_loaded(tmp_path) -> None:
    model = Tied()
    trainer = registered(model)
    model.mean.add_(torch.arange(3))
    model.teacher.weight.data.mul_(0.9)
    trainer.save_model(0, tmp_path)
    other = Tied()
    registered(other).load_model(tmp_path, epoch=1)
    assert torch.equal(other.mean, torch.tensor([0.0, 1.0, 2.0]))
    assert torch.equal(other.teacher.weight, model.teacher.weight)


def test_nothing_to_load(tmp_path, capsys) -> None:
    TrainerBase().load_model(str(tmp_path), epoch=5)
    assert f"Nothing to load from {tmp_path}" in capsys.readouterr().out
