"""The device of a run: what is chosen, what is said where it is not there, and what follows it. No GPU is needed."""

from pathlib import Path

import pytest
import torch
from yacs.config import CfgNode

from dassl.config import get_cfg_default
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import Datum
from dassl.engine.rng import rng_schema, rng_state, set_rng_state
from dassl.utils import (
    activate,
    choose_device,
    describe_device,
    device_name,
    device_named,
    empty_cache,
    peak_memory_bytes,
    synchronize,
)
from tests.dassl.tiny import TinyTrainer, tiny_cfg

MPS = torch.device("mps")


def machine(patch: pytest.MonkeyPatch, gpus: int = 0, mps: bool = False, built: str | None = "13.0") -> None:
    """What torch says on a machine with so many GPUs."""
    patch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    patch.setattr(torch.cuda, "device_count", lambda: gpus)
    patch.setattr(torch.version, "cuda", built)
    patch.setattr(torch.version, "hip", None, raising=False)
    patch.setattr(torch.backends.mps, "is_available", lambda: mps)
    patch.setattr(torch.backends.mps, "is_built", lambda: mps)
    patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("name", "use_cuda", "gpus", "expected"),
    [
        ("auto", True, 1, "cuda"),
        ("auto", True, 0, "cpu"),
        ("auto", False, 2, "cpu"),
        ("cpu", True, 2, "cpu"),
        ("cuda", False, 2, "cuda"),  # a device that is named wins
        ("cuda:1", True, 2, "cuda:1"),
        ("mps", False, 0, "mps"),
    ],
)
def test_what_is_chosen(monkeypatch: pytest.MonkeyPatch, name: str, use_cuda: bool, gpus: int, expected: str) -> None:
    machine(monkeypatch, gpus, mps=True)
    cfg = get_cfg_default()
    cfg.DEVICE, cfg.USE_CUDA = name, use_cuda
    assert choose_device(cfg) == torch.device(expected)


def test_a_configuration_of_dassl_has_no_such_key(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=1)
    assert choose_device(CfgNode({"USE_CUDA": True})) == torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "there", "visible", "message"),
    [
        ("cuda:3", {"gpus": 2}, "4,5", r"no GPU of that number: there are 2 GPUs, cuda:0 to cuda:1 \(CUDA_VIS.* '4,5'"),
        ("cuda:1", {"gpus": 1}, None, "there is one GPU, cuda:0$"),
        ("cuda", {"built": None}, None, "is built without CUDA. Install one that is built with it, or use cpu"),
        ("cuda", {}, "", "CUDA_VISIBLE_DEVICES is ''. Does it hide the GPUs"),
        ("cuda:1", {}, None, "nvidia-smi shows whether there is one"),
        ("mps", {"gpus": 1}, None, "no Apple GPU: .* is built without MPS"),
        ("gpu", {"gpus": 1}, None, r"did you mean cuda\?\). It should be one of: auto, cpu, cuda, cuda:N, mps"),
        ("1", {"gpus": 2}, None, r"did you mean cuda:1\?"),
        ("cuda:-1", {"gpus": 2}, None, "'cuda:-1' is not available"),
        ("CUDA", {"gpus": 1}, None, "did you mean cuda or"),
    ],
)
def test_a_device_that_is_not_there(monkeypatch, name: str, there: dict, visible: str | None, message: str) -> None:
    machine(monkeypatch, **there)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(ValueError, match=message) as error:
        device_named(name)
    assert str(error.value).count("device") == 1


def test_a_mac_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    monkeypatch.setattr("platform.mac_ver", lambda: ("12.1", "", ""))
    with pytest.raises(ValueError, match=r"macOS 12\.1 is too old"):
        device_named("mps")


def test_a_mac_computes_on_its_gpu_only_where_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, mps=True, built=None)
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M4", raising=False)
    assert describe_device(True) == "Device: CPU (DEVICE mps, or the flag --device mps, uses the Apple GPU)"
    assert describe_device(True, "mps") == "Device: mps (Apple M4) (DEVICE is mps)"
    assert describe_device(True, "cpu").startswith("Device: cpu (")


def test_a_gpu_with_a_number_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its peak memory is reset, for which CUDA must have been initialized."""
    done: list[object] = []
    monkeypatch.setattr(torch.cuda, "init", lambda: done.append("init"))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(device.index))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: done.append(str(device)))
    for name in ("cuda:1", "cuda", "cpu", "mps"):
        activate(torch.device(name))
    assert done == ["init", 1, "cuda:1", "init", "cuda"]


def test_what_is_asked_of_each_kind_of_device(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 7)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 8)
    for module in (torch.mps, torch.cuda):
        monkeypatch.setattr(module, "empty_cache", lambda name=module.__name__: done.append(f"empty {name}"))
        monkeypatch.setattr(module, "synchronize", lambda *device, name=module.__name__: done.append(name))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"H100 {device.index}")
    devices = [torch.device(name) for name in ("cpu", "mps", "cuda:1")]
    for device in devices:
        synchronize(device)
        empty_cache(device)
    assert done == ["torch.mps", "empty torch.mps", "torch.cuda", "empty torch.cuda"]
    assert [peak_memory_bytes(device) for device in devices[1:]] == [7, 8] and peak_memory_bytes(devices[0]) > 2**20
    assert device_name(devices[2]) == "H100 1" and device_name(devices[0]).endswith(" threads)")


@pytest.mark.parametrize(("name", "pinned"), [("cpu", False), ("auto", True), ("mps", False)])
def test_memory_is_pinned_for_copies_to_cuda_alone(monkeypatch: pytest.MonkeyPatch, name: str, pinned: bool) -> None:
    machine(monkeypatch, gpus=1, mps=True)
    cfg = get_cfg_default()
    cfg.DEVICE, cfg.DATALOADER.NUM_WORKERS = name, 0
    assert build_data_loader(cfg, data_source=[Datum("a.png", 0, 0, "a")]).pin_memory is pinned


# ---- the states of the random generators ----------------------------------------------------------------------


def on_gpus(patch: pytest.MonkeyPatch, count: int, current: int) -> list[tuple[str, object]]:
    """A process that has used CUDA on a machine with so many GPUs; returns which states are set in it."""
    done: list[tuple[str, object]] = []
    patch.setattr(torch.cuda, "is_initialized", lambda: True)
    patch.setattr(torch.cuda, "device_count", lambda: count)
    patch.setattr(torch.cuda, "current_device", lambda: current)
    states = [torch.full((16,), number, dtype=torch.uint8) for number in range(count)]
    patch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    patch.setattr(torch.cuda, "set_rng_state_all", lambda states: done.append(("all", len(states))))
    patch.setattr(torch.cuda, "set_rng_state", lambda state: done.append(("current", state[0].item())))
    return done


def test_the_current_gpu_continues_as_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on cuda:1 of two may go on as the only GPU that CUDA_VISIBLE_DEVICES leaves, and the other way around."""
    on_gpus(monkeypatch, count=2, current=1)
    state = rng_schema()(rng_state(torch.device("cuda:1")))
    assert state["gpu"] == 1 and state["mps"] is None
    set_rng_state(state)

    done = on_gpus(monkeypatch, count=1, current=0)
    set_rng_state(state)
    assert done == [("current", 1)]
    done = on_gpus(monkeypatch, count=2, current=0)
    set_rng_state(state)
    assert done == [("all", 2), ("current", 1)]
    del state["gpu"], state["mps"]  # as earlier versions wrote it, on the first GPU
    set_rng_state(rng_schema()(state))
    assert done[2:] == [("all", 2), ("current", 0)]


def test_a_run_on_the_cpu_leaves_the_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=2)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    state = rng_state(torch.device("cpu"))  # would fail here if it asked for them
    assert state["cuda"] == [] and state["gpu"] == 0
    set_rng_state({**state, "cuda": [torch.zeros(16, dtype=torch.uint8)]})


def test_the_generator_of_an_apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, mps=True)
    done: list[object] = []
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda: torch.arange(36, dtype=torch.uint8))
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state: done.append(len(state)))
    state = rng_schema()(rng_state(MPS))
    set_rng_state(state)
    assert done == [36]
    set_rng_state({**state, "mps": None})
    assert done == [36] and rng_state()["mps"] is None


# ---- runs ------------------------------------------------------------------------------------------------------


def test_a_run_without_its_device_ends_before_its_data_are_read(monkeypatch, tmp_path: Path) -> None:
    machine(monkeypatch)
    monkeypatch.setattr(TinyTrainer, "build_data_loader", lambda self: pytest.fail("read"))
    with pytest.raises(ValueError, match="device is cuda:1, but PyTorch finds no GPU"):
        TinyTrainer(tiny_cfg(tmp_path, "DEVICE", "cuda:1"))
