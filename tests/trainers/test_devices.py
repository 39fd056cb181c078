"""What an Apple GPU needs of the trainers, as far as can be seen without one: precisions, no double precision."""

import ast
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dassl.engine.state import fingerprint
from tests.paths import ROOT
from trainers.features import keys
from trainers.linear_probe import Probe
from trainers.memory import available_bytes
from trainers.precision import Precision

MPS, CPU = torch.device("mps"), torch.device("cpu")


def test_fp32_needs_no_trial() -> None:
    precision = Precision("fp32", MPS)
    assert precision.name == "fp32" and precision.grad_scaler() is None


@pytest.mark.parametrize("name", ["fp16", "bf16", "amp"])
def test_a_precision_that_the_device_lacks(name: str) -> None:
    """This PyTorch has no MPS, as another one lacks a type there."""
    with pytest.raises(ValueError, match=rf"^PREC {name}: PyTorch .* cannot compute so on mps \(.*\). Use PREC fp32$"):
        Precision(name, MPS)


@pytest.mark.parametrize("error", [TypeError("BFloat16 is not supported on MPS"), RuntimeError("no kernel. Details")])
def test_the_reason_is_told(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*size: int, **given: object) -> Tensor:
        raise error

    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(ValueError, match=rf"\({str(error).partition('.')[0]}\)"):
        Precision("bf16", MPS)


@pytest.mark.parametrize("name", ["bf16", "amp"])
def test_the_trial_is_a_training_step(name: str) -> None:
    """Where the device can, here the CPU, it passes and draws no numbers."""
    state = torch.get_rng_state()
    Precision(name, CPU)._try()
    assert torch.equal(state, torch.get_rng_state())


def test_amp_on_an_apple_gpu_is_that_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Precision, "_try", lambda self: None)
    precision = Precision("amp", MPS)
    autocast = precision.autocast()
    assert isinstance(autocast, torch.autocast) and (autocast.device, autocast.fast_dtype) == ("mps", torch.float16)
    scaler = precision.grad_scaler()
    assert scaler is not None and scaler._device == "mps" and scaler.is_enabled()
    assert Precision("fp16", MPS).dtype == torch.float16


def test_memory_of_an_apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 100)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 30)
    assert available_bytes(MPS) == 70


def test_features_of_an_apple_gpu_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M4", raising=False)
    monkeypatch.setattr("platform.mac_ver", lambda: ("15.2", "", ""))
    found = [keys.key_of_tower(torch.nn.Linear(2, 2), "fp32", device)["computer"] for device in (MPS, CPU)]
    assert found[0] == ["mps (Apple M4)", "15.2"] and found[1] != found[0]


class OnMps(Tensor):
    """A tensor that says that it is on an Apple GPU."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return MPS

    def cpu(self) -> Tensor:  # type: ignore[override]
        return self.as_subclass(Tensor)


def test_fingerprints_of_an_apple_gpu_are_those_of_the_cpu() -> None:
    tensor = torch.randn(300, 7)
    assert fingerprint(tensor.as_subclass(OnMps)) == fingerprint(tensor)


def test_the_linear_probe_s_C_stays_in_double_precision_on_the_cpu() -> None:
    probe = Probe(3, 4).to("meta", torch.float16)
    assert probe.weight.device.type == probe.bias.device.type == "meta" and probe.weight.dtype == torch.float16
    assert probe.C.device.type == "cpu" and probe.C.dtype == torch.float64
    assert list(probe.state_dict()) == ["weight", "bias", "C"]


# Functions that compute in double precision, or with torch.linalg's decompositions: on the CPU, since MPS has neither
ON_THE_CPU = {
    ("trainers/linear_probe.py", "__init__", "float64"),
    ("trainers/linear_probe.py", "_arrays", "double"),
    ("trainers/lpp.py", "__init__", "eigvalsh"),
    ("trainers/promptsrc.py", "epoch_weights", "float64"),
}
LACKING = {"double", "float64", "complex128", "eigh", "eigvalsh", "svd", "lstsq", "pinv", "qr"}


def test_nothing_else_needs_what_an_apple_gpu_lacks() -> None:
    folders = ("clip", "trainers", "dassl/evaluation", "dassl/metrics", "dassl/optim", "dassl/engine")
    found = set()
    for path in (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                names = {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
                name = Path(path).relative_to(ROOT).as_posix()
                found |= {(name, function.name, attribute) for attribute in names & LACKING}
    assert found == ON_THE_CPU
