"""TRAIN.LABEL_SMOOTHING: the cross entropy with 1 - e of a label's weight on its class and e on all, in equal parts."""

import pytest
import torch
from torch.nn import functional as F

from clip.model import CLIP
from dassl.config import get_cfg_default
from dassl.engine.build import TRAINER_REGISTRY
from tests.golden import build
from tests.trainers.test_methods import NAMES, SMALL, small_clip
from tests.trainers.toys.distillation import ToyDistillation
from trainers.base import ClipTrainer

LABEL = torch.tensor([0, 2, 1, 2])


def trainer_of(cls: type[ClipTrainer], model: torch.nn.Module, smoothing: float) -> ClipTrainer:
    trainer = cls.__new__(cls)
    trainer.cfg, trainer.model = get_cfg_default(), model
    trainer.cfg.TRAIN.LABEL_SMOOTHING = smoothing
    return trainer


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
@pytest.mark.parametrize("method", ["MaPLe", "CoOp", "CoCoOp", "VPT", "IVLP", "ToyDistillation"])
def test_every_method_smooths_its_cross_entropy(method, smoothing) -> None:
    cls = ToyDistillation if method == "ToyDistillation" else TRAINER_REGISTRY.get(method)
    if cls is ToyDistillation:
        dataset = type("Dataset", (), {"classnames": NAMES})
        model = ToyDistillation.build(None, dataset, CLIP(32, 32, 3, 64, 16, 77, 49408, 64, 1, 3).eval())
    else:
        model = build(method, NAMES, small_clip(), **SMALL[method])
    image = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    plain = trainer_of(cls, model, 0.0).losses(image, LABEL)[1]
    logits, terms = trainer_of(cls, model, smoothing).losses(image, LABEL)
    weights = (1 - smoothing) * F.one_hot(LABEL, 3) + smoothing / 3
    expected = -(weights * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(terms["ce"], expected, rtol=1e-5, atol=1e-6)
    assert terms["ce"] != plain["ce"]
    assert all(torch.equal(terms[name], plain[name]) for name in terms.keys() - {"ce"})


def test_no_smoothing_is_the_plain_cross_entropy_to_the_bit() -> None:
    """Also in a configuration tree of another repository, without the key."""
    logits = torch.randn(64, 100, generator=torch.Generator().manual_seed(2), requires_grad=True)
    label = torch.arange(64)
    trainer = trainer_of(ClipTrainer, torch.nn.Identity(), 0.0)
    values = [trainer.cross_entropy(logits, label), F.cross_entropy(logits, label)]
    del trainer.cfg.TRAIN["LABEL_SMOOTHING"]
    values.append(trainer.cross_entropy(logits, label))
    gradients = [torch.autograd.grad(value, logits)[0] for value in values]
    assert all(torch.equal(value, values[0]) for value in values)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
