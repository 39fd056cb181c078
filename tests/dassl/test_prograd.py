"""ProGrad's update against the published method's values and against hand computation."""

import pytest
import torch
from torch import nn

from dassl.engine import TrainerX
from tests import golden
from tests.dassl.tiny import TinyTrainer, tiny_cfg
from tests.paths import needs_golden

CTX = "prompt_learner.ctx"
by_file = pytest.mark.parametrize("name", ["aligned", "conflict", "mixed"])


class Bare(TinyTrainer):
    """A trainer to which a test registers its own model."""

    def build_model(self) -> None:
        pass


def trainer_of(model: nn.Module, momentum: float = 0.0, weight_decay: float = 0.0, lr: float = 1.0) -> TrainerX:
    trainer = Bare(tiny_cfg(""))
    learned = [p for p in model.parameters() if p.requires_grad]
    trainer.register_model(
        "prompt_learner", model, torch.optim.SGD(learned, lr=lr, momentum=momentum, weight_decay=weight_decay)
    )
    return trainer


class Vector(nn.Module):
    def __init__(self, *values: float) -> None:
        super().__init__()
        self.ctx = nn.Parameter(torch.tensor(values))
        self.unused = nn.Parameter(torch.ones(1))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


@pytest.mark.parametrize(
    ("a", "b", "step"),
    [
        ((1.0, 2.0), (0.0, -3.0), (1.0, 0.0)),  # b' = (0, -1), a b' = -2: a + 2 b'
        ((1.0, 2.0), (3.0, 4.0), (1.0, 2.0)),  # a b' > 0
        ((2.0, 0.0), (-3.0, 4.0), (1.28, 0.96)),  # b' = (-0.6, 0.8), a b' = -1.2: a + 1.2 b'
        ((1.0, 2.0), (0.0, 0.0), (1.0, 2.0)),
    ],
)
def test_the_conflicting_part_is_taken_out(a, b, step) -> None:
    model = Vector(0.0, 0.0)
    trainer = trainer_of(model)
    model.ctx.grad = torch.full((2,), 9.0)  # of an earlier step
    trainer.prograd_backward_and_update((model.ctx * torch.tensor(a)).sum(), (model.ctx * torch.tensor(b)).sum())
    torch.testing.assert_close(model.ctx.detach(), -torch.tensor(step), rtol=0, atol=1e-6)
    assert model.unused.item() == 1


def test_lambda_and_names() -> None:
    models = {"one": Vector(0.0, 0.0), "two": Vector(0.0, 0.0)}
    trainer = Bare(tiny_cfg(""))
    for name, model in models.items():
        trainer.register_model(name, model, torch.optim.SGD(model.parameters(), lr=1.0))
    both = sum(model.ctx.sum() for model in models.values())
    against = sum(-model.ctx[1] for model in models.values())
    trainer.prograd_backward_and_update(both, against, lambda_=0.5, names=["one"])
    assert models["one"].ctx.tolist() == [-1.0, -0.5]  # b' = (0, -1), a b' = -1
    assert models["two"].ctx.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bad", [0, 1])
def test_losses_that_are_not_finite(bad) -> None:
    model = Vector(1.0, 1.0)
    losses = [model.ctx.sum(), model.ctx.sum()]
    losses[bad] = losses[bad] * float("nan")
    with pytest.raises(FloatingPointError, match="Loss is infinite or NaN"):
        trainer_of(model).prograd_backward_and_update(*losses)
    assert model.ctx.tolist() == [1.0, 1.0]


@needs_golden
@by_file
def test_the_gradient_that_the_optimizer_gets(name) -> None:
    values, meta = golden.read(f"prograd_{name}.safetensors")
    model = nn.Module()
    model.ctx = nn.Parameter(values[f"param0.{CTX}"].clone())
    a, b = ((model.ctx * values[f"aux.grad_{loss}.{CTX}"]).sum() for loss in ("ce", "kl"))
    trainer_of(model, lr=0.0).prograd_backward_and_update(a, b, lambda_=meta["LAMBDA"])
    torch.testing.assert_close(model.ctx.grad, values[f"grad0.{CTX}"], rtol=1e-5, atol=1e-7)
    assert torch.equal(model.ctx.grad, values[f"aux.grad_ce.{CTX}"]) == (not meta["conflict"][0])


@needs_golden
@pytest.mark.parametrize("name", ["conflict", "mixed"])
def test_three_steps(name) -> None:
    """Cross entropy against the distillation loss -T² mean_b sum_k teacher_bk log student_bk, as published."""
    values, meta = golden.read(f"prograd_{name}.safetensors")
    words = meta["prompt_words"] if meta["CTX_INIT"] else ""
    model = golden.build(
        "CoOp",
        meta["classnames"],
        golden.golden_clip(),
        N_CTX=meta["N_CTX"],
        CTX_INIT=words,
        CLASS_TOKEN_POSITION="end",
    )
    golden.load_parameters(model, values, "param0.")
    optim = meta["optim"]
    trainer = trainer_of(model, optim["momentum"], optim["weight_decay"], optim["lr"])
    soft = (values["aux.teacher_logits"] / meta["T"]).softmax(-1)  # (B, K)
    found = []
    for _ in range(meta["steps"]):
        logits = model(values["image"])  # (B, K)
        ce = nn.functional.cross_entropy(logits, values["label"])
        kl = -(meta["T"] ** 2) * (soft * (logits / meta["T"]).log_softmax(-1)).sum(-1).mean()
        found.append(ce.item())
        trainer.prograd_backward_and_update(ce, kl, lambda_=meta["LAMBDA"])
    assert found == pytest.approx(values["losses"].tolist(), rel=1e-4)
    after = dict(model.named_parameters())[CTX]
    torch.testing.assert_close(after.detach(), values[f"param3.{CTX}"], rtol=1e-4, atol=1e-5)
