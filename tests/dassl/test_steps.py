"""What steps report: read together, with the same averages; and losses that are not finite."""

import json
import re
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from dassl.engine import TrainerBase, steps
from dassl.utils import load_checkpoint, set_random_seed
from tests.dassl.tiny import TinyTrainer, tiny_cfg
from trainers.base import ClipTrainer


class OnDevice(TinyTrainer):
    """Returns tensors, as the built-in methods do, and leaves the check of its loss to the engine."""

    bad: dict[int, float] = {}  # losses of steps in place of the computed ones
    steps = 0

    def forward_backward(self, batch: dict) -> dict:
        image, label = self.parse_batch_train(batch)
        logits = self.model(image)
        loss = nn.functional.cross_entropy(logits, label)
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        reported = loss.detach() if self.steps not in self.bad else torch.tensor(self.bad[self.steps])
        self.steps += 1
        acc = 100.0 * (logits.argmax(1) == label).double().mean(0, keepdim=True)  # of another type and shape
        return {"loss": reported, "acc": acc, "one": 1}


class OnHost(OnDevice):
    """Reads them itself, as Dassl's trainers do."""

    def forward_backward(self, batch: dict) -> dict:
        values = super().forward_backward(batch)
        return {name: value.item() if isinstance(value, torch.Tensor) else value for name, value in values.items()}


def trained(trainer: type[TinyTrainer], folder: Path, *options: object) -> TinyTrainer:
    cfg = tiny_cfg(folder, *options)
    set_random_seed(cfg.SEED)
    built = trainer(cfg)
    built.train()
    return built


def recorded(folder: Path) -> tuple[list[dict], dict[str, list]]:
    """The losses and rates of history.jsonl, and TensorBoard's points."""
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    curves = {tag: [(p.step, p.value) for p in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return [{key: row[key] for key in ("losses", "lr", "steps")} for row in rows], curves


def printed(text: str) -> list[str]:
    """The printed lines of steps, without times."""
    lines = re.findall(r"^(epoch .*\]) time .*\) (loss .*) eta", text, flags=re.MULTILINE)
    return [" ".join(line) for line in lines]


@pytest.mark.parametrize("freq", [1, 3, 4, 6, 1000])
def test_averages_do_not_depend_on_when_they_are_read(freq, tmp_path, capsys) -> None:
    """Equal to the bit to those of a step that reads its values itself; and so are the lines that are printed."""
    found = {}
    for trainer in (OnHost, OnDevice):
        trained(trainer, tmp_path / trainer.__name__, "TRAIN.PRINT_FREQ", freq)
        found[trainer] = recorded(tmp_path / trainer.__name__), printed(capsys.readouterr().out)
    assert found[OnHost] == found[OnDevice]
    (rows, curves), lines = found[OnDevice]
    assert [row["steps"] for row in rows] == [6] * 4 and rows[0]["losses"]["one"] == 1
    assert [step for step, _ in curves["train/loss"]] == list(range(24))
    assert len(lines) == {1: 24, 3: 8, 4: 4, 6: 4, 1000: 24}[freq]


def reads_of(monkeypatch) -> list[int]:
    """The numbers of values of each transfer."""
    found, read = [], steps.read_numbers

    def counted(tensors):
        found.append(len(tensors))
        return read(tensors)

    monkeypatch.setattr(steps, "read_numbers", counted)
    return found


@pytest.mark.parametrize(
    ("freq", "most", "expected"), [(1, 100, [1] * 6), (4, 100, [4, 2]), (10, 100, [6]), (5, 2, [2, 2, 1, 1])]
)
def test_steps_are_read_together(freq, most, expected, tmp_path, monkeypatch) -> None:
    reads = reads_of(monkeypatch)
    monkeypatch.setattr(steps, "MOST_UNREAD", most)
    trained(OnDevice, tmp_path, "TRAIN.PRINT_FREQ", freq, "OPTIM.MAX_EPOCH", 1)
    assert reads == [2 * count for count in expected]


def test_numbers_are_one_transfer_for_each_type(monkeypatch) -> None:
    values = [torch.tensor(0.1), torch.tensor([7]), torch.tensor([[0.2]]), torch.tensor(0.1, dtype=torch.float64)]
    transfers, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: transfers.append(len(tensor)) or tolist(tensor))
    assert steps.read_numbers(values) == [values[0].item(), 7, values[2].item(), 0.1]
    assert transfers == [2, 1, 1]
    assert steps.read_numbers([]) == []


def test_a_value_that_the_step_changes_afterwards(tmp_path) -> None:
    """As a CUDA graph does, which writes to the same tensors in every step."""

    class Reuses(OnDevice):
        def forward_backward(self, batch: dict) -> dict:
            if self.steps == 0:
                self.kept = torch.zeros(())
            values = super().forward_backward(batch)
            return {"loss": self.kept.copy_(values["loss"]), "acc": values["acc"]}

    trained(Reuses, tmp_path / "reuses")
    trained(OnDevice, tmp_path / "new")
    assert recorded(tmp_path / "reuses")[1]["train/loss"] == recorded(tmp_path / "new")[1]["train/loss"]


@pytest.mark.parametrize(
    ("bad", "where", "saved"),
    [
        ({8: float("nan"), 9: float("inf")}, "nan in epoch 2, batch 3 at learning rate 0.05", ["model.pth.tar-1"]),
        ({11: -float("inf")}, "-inf in epoch 2, batch 6 at learning rate 0.05", ["model.pth.tar-1"]),
        ({5: float("inf")}, "inf in epoch 1, batch 6 at learning rate 1e-05", []),  # the rate of the step, not the next
    ],
)
def test_a_loss_that_is_not_finite_ends_the_run_before_anything_is_written(bad, where, saved, tmp_path) -> None:
    """Five steps are read together; the error is about the first such step of them."""
    with pytest.raises(FloatingPointError, match=re.escape(f"infinite or NaN! ({where}.) Lower OPTIM.LR")):
        trained(type("Breaks", (OnDevice,), {"bad": bad}), tmp_path, "TRAIN.PRINT_FREQ", 5, "TRAIN.CHECKPOINT_FREQ", 1)
    assert [path.name for path in tmp_path.glob("net/model*")] == saved
    assert (tmp_path / "history.jsonl").exists() == bool(saved)
    assert not saved or load_checkpoint(tmp_path / "resume.pth.tar")["epoch"] == 1
    assert not (tmp_path / "results.json").exists()


def test_a_gradient_scaler_may_skip_nine_steps_in_a_row(tmp_path) -> None:
    """Across reads; the tenth ends the run."""

    class Scaled(OnDevice):
        def build_model(self) -> None:
            super().build_model()
            self.scaler = torch.amp.GradScaler("cpu", enabled=False)

    nine, nan = {*range(2, 11), *range(12, 20)}, float("nan")
    trained(type("Nine", (Scaled,), {"bad": dict.fromkeys(nine, nan)}), tmp_path / "nine", "TRAIN.PRINT_FREQ", 4)
    with pytest.raises(FloatingPointError, match="nan in epoch 2, batch 6"):
        trained(type("Ten", (Scaled,), {"bad": dict.fromkeys({*nine, 11}, nan)}), tmp_path / "ten")


def test_what_a_step_may_not_return(tmp_path) -> None:
    for number, (values, error, message) in enumerate(
        [
            (
                {"loss": torch.zeros(2)},
                ValueError,
                r"'loss' of shape \(2,\), expected a number or a tensor of one element",
            ),
            ([0.5], TypeError, "a dict of name to value, or None, not list"),
        ]
    ):
        trainer = type("Wrong", (TinyTrainer,), {"forward_backward": lambda self, batch, values=values: values})
        with pytest.raises(error, match=message):
            trained(trainer, tmp_path / str(number))


@pytest.mark.parametrize("own_step", [False, True])
def test_built_in_methods_leave_the_check_to_the_loop(own_step) -> None:
    """Which then looks at every term; a step of a subclass's own, or without the loop, has it at once."""

    step = {"forward_backward": lambda self, batch: {}} if own_step else {}
    trainer, nan = object.__new__(type("Method", (ClipTrainer,), step)), torch.tensor(float("nan"))
    TrainerBase.__init__(trainer)  # without a configuration
    with pytest.raises(FloatingPointError, match="nan in epoch 1, batch 1"):
        trainer.detect_anomaly(nan)
    trainer.losses_checked_later = True
    terms = {"loss": 0.5, "kl": float("inf"), "acc": float("nan")}
    if own_step:
        with pytest.raises(FloatingPointError):
            trainer.detect_anomaly(nan)
        trainer.check_losses(terms)
    else:
        trainer.detect_anomaly(nan)
        with pytest.raises(FloatingPointError, match="inf in epoch 1, batch 4"):
            trainer.check_losses(terms, batch_idx=3)
        trainer.check_losses({"loss": 0.5, "acc": float("nan")})
