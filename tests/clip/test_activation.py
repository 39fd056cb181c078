"""QuickGELU in training and in evaluation, against its formula."""

import pytest
import torch
from torch import Tensor

from clip.transformer import QuickGELU


def formula(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def inputs(dtype: torch.dtype) -> Tensor:
    x = torch.cat([4 * torch.randn(1000), torch.tensor([0.0, 1e-30, 30.0, -30.0, 200.0, -200.0])])
    return x.to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_training_gives_the_bits_of_the_formula(dtype: torch.dtype) -> None:
    x = inputs(dtype)
    assert torch.equal(QuickGELU()(x), formula(x))
    with torch.no_grad():
        assert torch.equal(QuickGELU()(x), formula(x))


def test_gradient() -> None:
    x = inputs(torch.float64)
    assert torch.autograd.gradcheck(QuickGELU(), x)
    x = inputs(torch.float32)
    (found,) = torch.autograd.grad(QuickGELU()(x).sum(), x)
    (expected,) = torch.autograd.grad(formula(x).sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_keeps_only_its_input_for_the_backward_pass() -> None:
    x = inputs(torch.float32)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        QuickGELU()(x)
    assert [t.data_ptr() for t in saved] == [x.data_ptr()]
