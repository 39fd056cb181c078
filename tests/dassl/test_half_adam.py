"""Adam in fp16 arithmetic, from fp32 tensors: torch's own on fp16 parameters, bit for bit."""

import pytest
import torch

from dassl.optim.half_adam import HalfAdam

SETTINGS = {"lr": 0.002, "betas": (0.9, 0.999), "eps": 1e-3}


def moved(optimizer: type[torch.optim.Adam], dtype: torch.dtype, gradient: float) -> float:
    """How far three steps of a constant gradient move a weight of zero."""
    weight = torch.nn.Parameter(torch.zeros((), dtype=dtype))
    made = optimizer([weight], **SETTINGS, weight_decay=0.0)
    for _ in range(3):
        weight.grad = torch.full_like(weight, gradient)
        made.step()
    return -weight.item()


@pytest.mark.parametrize(
    ("gradient", "half", "full"), [(1e-3, 0.006, 0.003), (4e-3, 0.024, 0.0048), (2e-2, 0.0056, 0.0057)]
)
def test_small_gradients_take_larger_steps(gradient: float, half: float, full: float):
    """Measured with torch 2 on fp16 and on fp32 parameters; the second moment of the first two rounds to zero."""
    assert moved(HalfAdam, torch.float32, gradient) == pytest.approx(half, abs=5e-5)
    assert moved(HalfAdam, torch.float32, gradient) == moved(torch.optim.Adam, torch.float16, gradient)
    assert moved(torch.optim.Adam, torch.float32, gradient) == pytest.approx(full, abs=5e-5)


def test_equals_torchs_adam_on_fp16_parameters_to_the_bit():
    """Two groups, changing rates and gradients of 1e-6 to 10; stopped and resumed in between."""
    torch.manual_seed(0)
    shapes = [(4, 64), (7,), (16, 48)]
    start = [torch.randn(shape) * 0.1 for shape in shapes]
    expected = [torch.nn.Parameter(value.half()) for value in start]
    found = [torch.nn.Parameter(value.clone()) for value in start]

    def groups(parameters: list[torch.nn.Parameter]) -> list[dict]:
        return [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.01}]

    theirs = torch.optim.Adam(groups(expected), **SETTINGS, weight_decay=5e-4, foreach=False)
    ours = HalfAdam(groups(found), **SETTINGS, weight_decay=5e-4)
    assert all(torch.equal(a, b.float()) for a, b in zip(found, expected, strict=True)), "rounded at the start"
    for step in range(30):
        if step == 12:
            state = ours.state_dict()
            found = [torch.nn.Parameter(parameter.detach().clone()) for parameter in found]
            ours = HalfAdam(groups(found), **SETTINGS, weight_decay=5e-4)
            ours.load_state_dict(state)
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["lr"] = 0.002 * (1 - step / 60)
        for a, b in zip(found, expected, strict=True):
            gradient = torch.randn(a.shape) * 10 ** (torch.rand(a.shape) * 7 - 6)
            a.grad, b.grad = gradient, gradient.half()
        if step == 5:  # a parameter that took no part
            found[1].grad, expected[1].grad = None, None
        ours.step()
        theirs.step()
        assert all(torch.equal(a, b.float()) for a, b in zip(found, expected, strict=True)), step
        moments = [s[name] for s in ours.state.values() for name in ("exp_avg", "exp_avg_sq")]
        others = [s[name] for s in theirs.state.values() for name in ("exp_avg", "exp_avg_sq")]
        assert all(torch.equal(a, b.float()) for a, b in zip(moments, others, strict=True)), step


def test_an_eps_that_fp16_does_not_have_is_an_error():
    with pytest.raises(ValueError, match=r"eps is 1e-08, which is 0 in fp16: expected at least 6e-8"):
        HalfAdam([torch.nn.Parameter(torch.zeros(2))], 0.002, (0.9, 0.999), 1e-8, 0.0)


def test_a_closure_is_called_once_with_gradients():
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = HalfAdam([weight], **SETTINGS, weight_decay=0.0)

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 2.0
    assert (weight < 1).all()
