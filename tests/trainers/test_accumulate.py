"""TRAIN.ACCUMULATE: a batch in pieces gives the gradients, losses and accuracy of the whole batch, in less memory."""

import pytest
import torch

from dassl.config.ranges import out_of_range
from tests.dassl.tiny import TinyTrainer, tiny_cfg
from tests.trainers.live_memory import LiveMemory
from tests.trainers.small import STEPS, batch_of, small_trainer
from tests.trainers.toys.distillation import ToyDistillation
from trainers.accumulate import split_batch
from trainers.base import ClipTrainer

pytestmark = pytest.mark.filterwarnings("ignore:Detected call of")  # the optimizer's step is left out
SETTINGS = {
    "clip_lora": {"TRAINER__CLIPLORA__DROPOUT": 0.0},  # every piece draws for its own tokens
    "prograd": {"TRAINER__PROGRAD__CTX_INIT": False},  # the teacher's words diverge by nothing but rounding
}


def stepped(trainer: ClipTrainer, pieces: int, size: int = 7) -> tuple[dict[str, float], list[torch.Tensor]]:
    """What a step reports with the generator's next number, and its gradients; nothing is learned."""
    trainer.cfg.TRAIN.ACCUMULATE = pieces
    trainer.model_update = lambda names=None: None
    torch.manual_seed(3)
    reported = {name: float(value) for name, value in trainer.forward_backward(batch_of(trainer, size)).items()}
    gradients = [p.grad.clone() for p in trainer.model.parameters() if p.requires_grad]
    return reported | {"next draw": float(torch.rand(1))}, gradients


@pytest.mark.parametrize("name", [name for name in STEPS if name != "lpp"])
def test_pieces_give_the_gradients_of_the_whole_batch(name: str) -> None:
    """To the rounding of fp32 sums in another order, which the temperature multiplies by 100."""
    trainer = small_trainer(name, **SETTINGS.get(name, {}))
    whole, expected = stepped(trainer, 1)
    reported, gradients = stepped(trainer, 3)
    assert reported == pytest.approx(whole, rel=1e-6, abs=1e-6)
    found, given = (torch.cat([one.flatten() for one in all_of]) for all_of in (gradients, expected))
    assert (found - given).norm() <= 5e-6 * given.norm() and given.norm() > 0


@pytest.mark.parametrize(("name", "passes"), [("maple", 1), ("promptsrc", 1), ("cocoop", 3), ("prograd", 3)])
def test_texts_are_passed_once_where_one_gradient_is_all_that_is_asked_for(name: str, passes: int) -> None:
    """CoCoOp's depend on the images, ProGrad has two gradients of each piece."""
    trainer, calls = small_trainer(name), []
    trainer.model.text_encoder.register_forward_hook(
        lambda *given: calls.append(1) if given[-1].requires_grad else None
    )
    stepped(trainer, 3)
    assert len(calls) == passes
    trainer.cfg.TRAIN.ACCUMULATE = 1
    trainer.forward_backward(batch_of(trainer, 7))
    assert len(calls) == passes + 1  # they are computed anew in the next step


def test_a_failed_piece_leaves_nothing_behind() -> None:
    trainer = small_trainer("maple")
    with pytest.raises(ZeroDivisionError), trainer.model.text_features_once():
        first = trainer.model.text_features()
        assert trainer.model.text_features() is first and first.is_leaf
        raise ZeroDivisionError
    assert not trainer.model.text_features().is_leaf


def test_sizes_differ_by_one_at_most() -> None:
    batch = {
        "img": [torch.arange(7), torch.arange(7) + 10],
        "label": torch.arange(7),
        "impath": list("abcdefg"),
        "n": 2,
    }
    parts = split_batch(batch, 3)
    assert [part["label"].tolist() for part in parts] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [part["img"][1].tolist() for part in parts] == [[10, 11, 12], [13, 14], [15, 16]]
    assert ["".join(part["impath"]) for part in parts] == ["abc", "de", "fg"] and {part["n"] for part in parts} == {2}
    assert len(split_batch(batch, 9)) == 7  # the last batch of an epoch may be a small one


def test_less_memory() -> None:
    """Of two pieces one is alive at a time: half of the activations, besides the text tower's."""
    trainer = small_trainer("vpt")  # whose text features are fixed
    peaks = {}
    for pieces in (1, 2, 4):
        stepped(trainer, pieces, 32)
        with LiveMemory() as memory:
            stepped(trainer, pieces, 32)
        peaks[pieces] = memory.peak
    assert peaks[2] < 0.6 * peaks[1] and peaks[4] < 0.4 * peaks[1]


def test_a_scaler_and_lower_precision() -> None:
    """A power of two is exact, so that the scale of amp changes no gradient."""
    trainer = small_trainer("maple")
    _, expected = stepped(trainer, 3)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    _, gradients = stepped(trainer, 3)
    assert all(torch.equal(gradient, 2.0**10 * one) for gradient, one in zip(gradients, expected, strict=True))
    for prec in ("bf16", "amp"):
        trainer = small_trainer("maple", TRAINER__MAPLE__PREC=prec)
        whole, pieces = (stepped(trainer, n)[0]["loss"] for n in (1, 3))
        assert pieces == pytest.approx(whole, rel=0.02)


def test_what_does_not_read_the_setting_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ACCUMULATE is 2, but LPpp makes its steps from the loss of a whole batch"):
        small_trainer("lpp", TRAIN__ACCUMULATE=2)
    own = type("Own", (ToyDistillation,), {})
    cfg = small_trainer("maple", TRAIN__ACCUMULATE=2).cfg
    with pytest.raises(ValueError, match="ACCUMULATE is 2, but Own makes its steps"):
        own.check_steps(own.__new__(own), cfg)
    with pytest.raises(ValueError, match=r"ACCUMULATE is 2, but TinyTrainer has training steps of its own"):
        TinyTrainer(tiny_cfg("", "TRAIN.ACCUMULATE", 2))
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE = 1
    assert out_of_range(cfg) == ["TRAIN.ACCUMULATE: 2, expected at most DATALOADER.TRAIN_X.BATCH_SIZE, 1"]
