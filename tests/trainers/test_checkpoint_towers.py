"""TRAIN.CHECKPOINT_TOWERS: blocks that are computed again in the backward pass give the same bits in less memory."""

import pytest
import torch

from clip.transformer import Transformer
from tests.trainers.live_memory import LiveMemory
from tests.trainers.small import batch_of, small_trainer
from trainers.base import ClipTrainer

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of")  # the optimizer's step is left out


def towers(trainer: ClipTrainer) -> list[Transformer]:
    return [module for module in trainer.model.modules() if isinstance(module, Transformer)]


def gradients(trainer: ClipTrainer, recompute: bool, size: int = 4) -> list[torch.Tensor]:
    """Of a step from the same random numbers, with its loss; nothing is learned."""
    for tower in towers(trainer):
        tower.recompute = recompute
    trainer.model_update = lambda names=None: None
    torch.manual_seed(3)
    loss = trainer.forward_backward(batch_of(trainer, size))["loss"]
    own = [p.grad.clone() for p in trainer.model.parameters() if p.requires_grad]
    return [torch.as_tensor(loss), *own, torch.rand(1)]


@pytest.mark.parametrize(
    ("name", "prec"),
    [(name, "fp32") for name in ("vpt", "maple", "mma", "prograd", "clip_lora")] + [("clip_lora", "amp")],
)
def test_the_same_gradients_to_the_bit(name: str, prec: str) -> None:
    """Prompts that enter before blocks, adapters beside them, two backward passes, dropout."""
    trainer = small_trainer(name)
    trainer.precision.name = prec
    expected, found = gradients(trainer, False), gradients(trainer, True)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


def test_pieces_of_conditional_prompts_are_computed_again_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = small_trainer("cocoop")
    monkeypatch.setattr(trainer.model, "piece_sizes", lambda images, backward: (2, 2, backward))
    expected, found = gradients(trainer, False), gradients(trainer, True)
    assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))


@pytest.mark.parametrize(("name", "size"), [("coop", 1), ("vpt", 16)])  # most activations: text tower, image tower
def test_less_memory_in_both_towers(name: str, size: int) -> None:
    """Of four blocks, one block's activations and four inputs are alive at a time."""
    trainer, peaks = small_trainer(name), []
    for recompute in (False, True):
        gradients(trainer, recompute, size)
        with LiveMemory() as memory:
            gradients(trainer, recompute, size)
        peaks.append(memory.peak)
    assert peaks[1] < 0.7 * peaks[0]


def test_the_setting_reaches_both_towers() -> None:
    assert [tower.recompute for tower in towers(small_trainer("maple", TRAIN__CHECKPOINT_TOWERS=True))] == [True, True]
    assert [tower.recompute for tower in towers(small_trainer("maple"))] == [False, False]
