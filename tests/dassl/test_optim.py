"""Schedules against golden values, optimizers against their definitions."""

import json
import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from dassl.config import get_cfg_default
from dassl.optim import AVAI_OPTIMS, build_lr_scheduler, build_optimizer
from dassl.optim.lr_scheduler import ConstantWarmupScheduler, LinearWarmupScheduler
from dassl.optim.radam import RAdam
from dassl.utils import plain_state
from dassl.utils.object_state import load_object_state
from tests.paths import GOLDEN, needs_golden

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of")  # schedules are read without optimizer steps


def optim_cfg(**changes):
    node = get_cfg_default().OPTIM
    for name, value in changes.items():
        node[name] = value
    return node


def rates(optimizer, scheduler, epochs: int) -> list[float]:
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
    return found


def sgd(lr: float = 0.1) -> torch.optim.SGD:
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


@needs_golden
def test_all_golden_schedules() -> None:
    settings = json.loads((GOLDEN / "lr_schedules.json").read_text())
    assert len(settings) == 120
    for setting in settings:
        optimizer = sgd(setting["LR"])
        scheduler = build_lr_scheduler(optimizer, SimpleNamespace(**setting))
        found = rates(optimizer, scheduler, setting["MAX_EPOCH"])
        assert found == pytest.approx(setting["lr_per_epoch"], rel=0, abs=1e-12), setting


def test_cosine_after_warm_up() -> None:
    """lr(t) = base (1 + cos(pi (t - w) / T)) / 2 after the warm-up, which ends at epoch w."""
    cfg = optim_cfg(
        LR=0.2, LR_SCHEDULER="cosine", MAX_EPOCH=6, WARMUP_EPOCH=2, WARMUP_TYPE="linear", WARMUP_MIN_LR=0.01
    )
    optimizer = sgd(0.2)
    cosine = [0.2 * (1 + math.cos(math.pi * t / 6)) / 2 for t in range(4)]
    assert rates(optimizer, build_lr_scheduler(optimizer, cfg), 6) == pytest.approx([0.01, 0.1, *cosine], abs=1e-15)


def test_cosine_per_iteration() -> None:
    """lr(t) = low + (base - low) (1 + cos(pi t / T)) / 2 over T steps, whatever MAX_EPOCH is."""
    cfg = optim_cfg(LR_SCHEDULER="cosine", LR_STEP="iteration", LR_MIN=0.01, MAX_EPOCH=3)
    optimizer = sgd(0.2)
    expected = [0.01 + 0.19 * (1 + math.cos(math.pi * t / 8)) / 2 for t in range(9)]
    assert rates(optimizer, build_lr_scheduler(optimizer, cfg, 8), 9) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("kind", ["cosine", "single_step", "multi_step"])
@pytest.mark.parametrize("warmup", [-1, 2])
@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_saved_state_is_plain_and_resumes(tmp_path, kind, warmup, stop) -> None:
    cfg = optim_cfg(
        LR=0.1, LR_SCHEDULER=kind, STEPSIZE=(2, 4), MAX_EPOCH=8, WARMUP_EPOCH=warmup, WARMUP_TYPE="constant"
    )
    optimizer = sgd()
    expected = rates(optimizer, build_lr_scheduler(optimizer, cfg), 8)
    optimizer = sgd()
    scheduler = build_lr_scheduler(optimizer, cfg)
    rates(optimizer, scheduler, stop)
    torch.save({"s": plain_state(scheduler.state_dict()), "o": optimizer.state_dict()}, tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    resumed = sgd()
    scheduler = build_lr_scheduler(resumed, cfg)
    resumed.load_state_dict(state["o"])
    load_object_state(scheduler, state["s"], "a file,")
    assert rates(resumed, scheduler, 8 - stop) == expected[stop:]


def test_warm_up_classes_take_the_published_arguments() -> None:
    optimizer = sgd()
    successor = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    found = rates(optimizer, ConstantWarmupScheduler(optimizer, successor, 1, 1e-5, -1, True), 3)
    assert found == [1e-5, 0.1, 0.05]
    optimizer = sgd()
    successor = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    found = rates(optimizer, LinearWarmupScheduler(optimizer, successor, 2, 1e-5, last_epoch=-1, verbose=False), 4)
    assert found == [1e-5, 0.05, 0.1, 0.05]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LR_SCHEDULER": "cosin"}, r"'cosin' is not available \(did you mean cosine"),
        ({"WARMUP_EPOCH": 1, "WARMUP_TYPE": "const"}, "did you mean constant"),
        ({"LR_SCHEDULER": "multi_step", "STEPSIZE": 5}, "must be a list of epochs, not 5"),
        ({"LR_SCHEDULER": "single_step", "STEPSIZE": (1.5,)}, "whole number of epochs"),
        ({"LR_SCHEDULER": "cosine", "LR_STEP": "iteration"}, "trainer changes the rate per epoch: set it to epoch"),
    ],
)
def test_bad_schedules(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        build_lr_scheduler(sgd(), optim_cfg(**changes))


@pytest.mark.parametrize("changes", [{"LR_SCHEDULER": "single_step"}, {"LR_SCHEDULER": "cosine", "WARMUP_EPOCH": 1}])
def test_schedules_that_are_not_per_iteration(changes) -> None:
    with pytest.raises(ValueError, match=r"LR_STEP iteration needs OPTIM\.LR_SCHEDULER cosine"):
        build_lr_scheduler(sgd(), optim_cfg(LR_STEP="iteration", **changes), 8)


@pytest.mark.parametrize("name", AVAI_OPTIMS)
def test_every_optimizer_takes_its_settings(name) -> None:
    model = nn.Linear(2, 1)
    cfg = optim_cfg(
        NAME=name, LR=0.01, WEIGHT_DECAY=0.3, MOMENTUM=0.7, ADAM_BETA1=0.8, RMSPROP_ALPHA=0.6, SGD_NESTEROV=True
    )
    optimizer = build_optimizer(model, cfg)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.01, 0.3, 2)
    if name in ("sgd", "rmsprop"):
        assert group["momentum"] == 0.7
    else:
        assert group["betas"] == (0.8, 0.999)
    assert group.get("amsgrad", False) == (name == "amsgrad")
    assert group.get("alpha", 0.6) == 0.6
    assert group.get("nesterov", True)
    model(torch.ones(1, 2)).sum().backward()
    before = model.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(before, model.weight)


def test_optimizer_of_parameters_and_of_given_groups() -> None:
    weight, bias = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    assert build_optimizer([weight, bias], optim_cfg()).param_groups[0]["params"] == [weight, bias]
    groups = [{"params": [weight], "lr": 0.5}, {"params": [bias]}]
    optimizer = build_optimizer(nn.Linear(1, 1), optim_cfg(LR=0.1), param_groups=groups)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1]
    with pytest.warns(UserWarning, match="STAGED_LR does nothing if param_groups are given"):
        build_optimizer(nn.Linear(1, 1), optim_cfg(STAGED_LR=True), param_groups=[{"params": [weight]}])


def test_staged_learning_rates() -> None:
    model = nn.Sequential()
    model.add_module("backbone", nn.Linear(2, 3))
    model.add_module("classifier", nn.Linear(3, 1))
    cfg = optim_cfg(LR=0.1, STAGED_LR=True, NEW_LAYERS=("classifier",), BASE_LR_MULT=0.2)
    base, new = build_optimizer(model, cfg).param_groups
    assert (base["lr"], base["params"]) == (pytest.approx(0.02), list(model.backbone.parameters()))
    assert (new["lr"], new["params"]) == (0.1, list(model.classifier.parameters()))
    with pytest.raises(ValueError, match=r"no layer 'clasifier' \(did you mean classifier"):
        build_optimizer(model, optim_cfg(STAGED_LR=True, NEW_LAYERS="clasifier"))
    with pytest.raises(TypeError, match="needs the module itself"):
        build_optimizer(model.parameters(), cfg)


def test_unknown_optimizer() -> None:
    with pytest.raises(ValueError, match=r"'adamW' is not available \(did you mean adamw"):
        build_optimizer(nn.Linear(1, 1), optim_cfg(NAME="adamW"))


def test_radam_follows_the_paper() -> None:
    """Momentum SGD while rho_t <= 5 (torch's threshold), then the rectified adaptive step (Liu et al., algorithm 2)."""
    lr, b1, b2, eps, decay = 0.1, 0.9, 0.99, 1e-8, 0.01
    parameter = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = RAdam([parameter], lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay)
    x, m, v = 1.0, 0.0, 0.0
    rho_inf = 2 / (1 - b2) - 1
    for t in range(1, 12):
        g = 2 * x
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        rho = rho_inf - 2 * t * b2**t / (1 - b2**t)
        x -= lr * decay * x
        step = m / (1 - b1**t)
        if rho > 5:
            r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            step *= r * math.sqrt(1 - b2**t) / (math.sqrt(v) + eps)
        x -= lr * step
        optimizer.zero_grad()
        (parameter**2).sum().backward()
        optimizer.step()
        assert parameter.item() == pytest.approx(x, rel=1e-12)
    with pytest.raises(ValueError, match="degenerated_to_sgd"):
        RAdam([parameter], degenerated_to_sgd=False)


def test_schedulers_raise_no_warning_in_a_normal_loop() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = sgd()
        scheduler = build_lr_scheduler(optimizer, optim_cfg(LR_SCHEDULER="cosine", WARMUP_EPOCH=1, MAX_EPOCH=3))
        for _ in range(3):
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize("name", AVAI_OPTIMS)
def test_a_step_on_a_gpu_is_one_kernel_where_torch_has_it(name: str) -> None:
    """In one group, in groups from generators, and not where a parameter is on the CPU."""
    with FakeTensorMode():
        gpu, cpu = (nn.Parameter(torch.zeros(3, device=device)) for device in ("cuda", "cpu"))
        given = ([gpu], iter([gpu]), [{"params": iter([gpu])}, {"params": gpu.detach().requires_grad_(), "lr": 1.0}])
        fused = [build_optimizer(params, optim_cfg(NAME=name)).defaults.get("fused") for params in given]
        assert fused == [True if name in ("adam", "amsgrad", "adamw", "sgd") else None] * 3
        for params in ([cpu], [gpu, cpu]):
            optimizer = build_optimizer(params, optim_cfg(NAME=name))
            assert optimizer.defaults.get("fused") is None and optimizer.defaults["foreach"] is None
            assert [len(group["params"]) for group in optimizer.param_groups] == [len(params)]
