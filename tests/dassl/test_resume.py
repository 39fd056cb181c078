"""A stopped and resumed run ends with the same bits as one that was not stopped."""

import copy
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dassl.engine import TrainerX
from dassl.engine.resume import RESUME_FILE
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint, read_results, set_random_seed
from dassl.utils.checkpoints import torch_save
from tests.dassl.tiny import Stop, TinyTrainer, everything, stop_after_epoch, tiny_cfg


class PiecesTrainer(TinyTrainer):
    def check_steps(self, cfg) -> None:
        """Takes TRAIN.ACCUMULATE."""


def train(cfg, stop_after: int | None = None, trainer_class=TinyTrainer) -> TinyTrainer:
    """A run as train.py makes it, ended by an exception after ``stop_after`` epochs."""
    set_random_seed(cfg.SEED)
    trainer = trainer_class(cfg)
    if stop_after is not None:
        stop_after_epoch(trainer, stop_after)
    try:
        trainer.train()
    except Stop:
        torch.rand(100)  # whatever happens before the run is resumed must not matter
    return trainer


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, torch.Tensor]:
    return everything(train(tiny_cfg(tmp_path_factory.mktemp("undisturbed"))))


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4])
def test_stopped_after_an_epoch(tmp_path, undisturbed, stop_after) -> None:
    train(tiny_cfg(tmp_path), stop_after)
    assert_same_bits(everything(train(tiny_cfg(tmp_path))), undisturbed)


def test_attributes_that_training_does_not_change_are_left_out(tmp_path, undisturbed) -> None:
    class Frozen(TinyTrainer):
        unchanging = ("scale", "scale_optim")

    Frozen.__name__ = "TinyTrainer"
    train(tiny_cfg(tmp_path), 2, Frozen)
    assert load_checkpoint(tmp_path / RESUME_FILE)["attributes"].keys() == {"step_counter", "average"}
    resumed = everything(train(tiny_cfg(tmp_path), trainer_class=Frozen))
    assert not torch.equal(resumed["scale.weight"], undisturbed["scale.weight"]), "it had changed after all"


def test_stopped_after_every_epoch(tmp_path, undisturbed) -> None:
    for stop_after in (1, 2, 3):
        train(tiny_cfg(tmp_path), stop_after)
        time.sleep(1 - time.time() % 1)  # TensorBoard orders files by their second, then by a number read as text
    trainer = train(tiny_cfg(tmp_path))
    assert_same_bits(everything(trainer), undisturbed)
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    assert read_results(tmp_path / "results.json")["epoch"] == 4
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [point.step for point in events.Scalars("train/loss")] == list(range(24))


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_number_of_steps_ends_in_the_middle_of_an_epoch(tmp_path, stop_after) -> None:
    """Three shots of five steps: two epochs of six batches and three batches of a third."""
    steps = ("OPTIM.STEPS_PER_SHOT", 5, "DATASET.NUM_SHOTS", 3)
    whole = train(tiny_cfg(tmp_path / "whole", *steps))
    expected = everything(whole)
    assert (whole.max_epoch, whole.step_counter) == (3, 15)
    train(tiny_cfg(tmp_path / "cut", *steps), stop_after)
    cut = train(tiny_cfg(tmp_path / "cut", *steps))
    assert_same_bits(everything(cut), expected)
    assert [row["steps"] for row in cut.history] == [6, 6, 3]
    results = read_results(tmp_path / "cut" / "results.json")
    assert (results["epoch"], results["steps"]) == (3, 15)
    events = EventAccumulator(str(tmp_path / "whole" / "tensorboard"))
    events.Reload()
    assert [point.step for point in events.Scalars("train/loss")] == list(range(15))


def test_resume_from_another_folder(tmp_path, undisturbed) -> None:
    train(tiny_cfg(tmp_path / "a"), 2)
    cfg = tiny_cfg(tmp_path / "b", "RESUME", str(tmp_path / "a"), "TRAIN.PRINT_FREQ", 3, "DATALOADER.NUM_WORKERS", 0)
    cfg.DEVICE = "cpu"
    trainer = train(cfg)
    assert trainer.start_epoch == 2
    assert_same_bits(everything(trainer), undisturbed)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(tiny_cfg(tmp_path / "c", "RESUME", str(tmp_path / "nowhere")))


def test_best_model_survives_a_stop(tmp_path) -> None:
    best = ("TEST.FINAL_MODEL", "best_val", "OPTIM.LR", 0.5)
    whole = train(tiny_cfg(tmp_path / "whole", *best))
    expected = everything(whole)
    train(tiny_cfg(tmp_path / "cut", *best), 3)
    cut = train(tiny_cfg(tmp_path / "moved", *best, "RESUME", str(tmp_path / "cut")))
    assert cut.best_result == whole.best_result
    assert_same_bits(everything(cut), expected)
    a, b = (read_results(tmp_path / name / "results.json") for name in ("whole", "moved"))
    assert (a["epoch"], a["accuracy"], a["correct"]) == (b["epoch"], b["accuracy"], b["correct"])
    assert a["accuracy"] == whole.best_result


def test_scheduler_state_is_plain_and_is_resumed(tmp_path) -> None:
    train(tiny_cfg(tmp_path), 2)
    state = torch.load(tmp_path / RESUME_FILE, weights_only=True)
    assert state["schedulers"]["net"]["successor"]["last_epoch"] == 1
    rates = [json.loads(line)["lr"] for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    resumed = train(tiny_cfg(tmp_path))
    rates = [row["lr"] for row in resumed.history]
    # constant warm-up, then base * (1 + cos(pi t / 4)) / 2
    expected = [1e-5, 0.05, 0.05 * (1 + 2**-0.5) / 2, 0.025]
    assert rates == pytest.approx(expected, abs=1e-12)


def test_another_configuration_is_refused(tmp_path) -> None:
    train(tiny_cfg(tmp_path), 1)
    with pytest.raises(
        ValueError, match=r"(?s)OPTIM.LR: 0.05 there, 0.1 now\n  SEED: 5 there, 6 now.*another OUTPUT_DIR"
    ):
        train(tiny_cfg(tmp_path, "OPTIM.LR", 0.1, "SEED", 6))


def test_a_run_of_an_earlier_version_is_resumed(tmp_path, undisturbed) -> None:
    """Its configuration lacks a key that was added since, which has its default there."""
    train(tiny_cfg(tmp_path), 2)
    state = load_checkpoint(tmp_path / RESUME_FILE)
    assert "  ACCUMULATE: 1\n" in state["config"]
    state["config"] = state["config"].replace("  ACCUMULATE: 1\n", "")
    torch_save(state, tmp_path / RESUME_FILE)
    with pytest.raises(ValueError, match=r"TRAIN.ACCUMULATE: 1 there, 2 now"):
        train(tiny_cfg(tmp_path, "TRAIN.ACCUMULATE", 2), trainer_class=PiecesTrainer)
    assert_same_bits(everything(train(tiny_cfg(tmp_path))), undisturbed)


def test_other_data_under_the_same_configuration_are_refused(tmp_path) -> None:
    train(tiny_cfg(tmp_path), 2)

    class OtherClasses(TinyTrainer):
        def build_data_loader(self) -> None:
            super().build_data_loader()
            self.lab2cname = {0: "ant", 1: "bee", 2: "dog"}

    with pytest.raises(ValueError, match=r"other data: 3 classes and 6 batches per epoch there, .*'cat' is 'dog' now"):
        train(tiny_cfg(tmp_path), trainer_class=OtherClasses)


def test_other_frozen_weights_are_refused(tmp_path) -> None:
    class OtherBackbone(TinyTrainer):
        def build_model(self) -> None:
            super().build_model()
            self._models.clear()
            self.model.backbone[0].weight.data += 1
            self.register_model("net", self.model, self.optim, self.sched)

    train(tiny_cfg(tmp_path), 1)
    with pytest.raises(ValueError, match=r"frozen weights are not those .*backbone\.0\.weight"):
        train(tiny_cfg(tmp_path), trainer_class=OtherBackbone)


def test_folder_of_model_files_alone_starts_from_scratch(tmp_path, capsys, undisturbed) -> None:
    train(tiny_cfg(tmp_path))
    (tmp_path / RESUME_FILE).unlink()
    assert_same_bits(everything(train(tiny_cfg(tmp_path))), undisturbed)
    assert re.search("cannot resume exactly. Training starts from scratch", capsys.readouterr().out)


def test_truncated_state_names_the_file(tmp_path) -> None:
    train(tiny_cfg(tmp_path), 1)
    path = tmp_path / RESUME_FILE
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=f"{RESUME_FILE} .*not a readable checkpoint"):
        train(tiny_cfg(tmp_path))


def test_results_of_a_former_run_do_not_count_while_training(tmp_path) -> None:
    train(tiny_cfg(tmp_path))
    (tmp_path / RESUME_FILE).unlink()
    train(tiny_cfg(tmp_path), 1)
    assert read_results(tmp_path / "results.json") is None


def test_what_cannot_be_restored_is_refused(tmp_path) -> None:
    class MakesLate(TinyTrainer):
        def before_epoch(self) -> None:
            self.late = torch.optim.SGD(self.scale.parameters(), lr=0.1)

    train(tiny_cfg(tmp_path), 1, MakesLate)
    with pytest.raises(ValueError, match="MakesLate makes its attribute 'late' only during training"):
        train(tiny_cfg(tmp_path), None, MakesLate)


def test_state_holds_what_changes_only(tmp_path) -> None:
    train(tiny_cfg(tmp_path), 1)
    state = load_checkpoint(tmp_path / RESUME_FILE)
    frozen = {"backbone.0.weight", "backbone.0.bias", "backbone.1.weight", "backbone.1.bias"}
    assert not frozen & state["models"]["net"].keys()
    assert {"teacher.weight", "backbone.1.running_mean", "prompt"} <= state["models"]["net"].keys()
    assert state["attributes"].keys() == {"step_counter", "average", "scale", "scale_optim"}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment(tmp_path) -> None:
    """SIGKILL inside epochs, between them, while files are written and in the final test."""
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-m", "tests.dassl.kill_points", str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr
    points = json.loads(run.stdout.splitlines()[-1])
    undisturbed = points.pop("undisturbed")
    assert len(points) == 8
    assert list(tmp_path.rglob("*tmp")) == [], "nothing is left of files that were being written"
    assert {name: outcome["killed"] for name, outcome in points.items()} == dict.fromkeys(points, True)
    assert {name: outcome["end"] for name, outcome in points.items()} == dict.fromkeys(points, undisturbed["end"])


class Follows(TinyTrainer):
    """Modules under two names, a learned buffer, a teacher that is not registered, and the model's own parameters."""

    def build_model(self) -> None:
        super().build_model()
        self.model.head_again = self.model.head
        self.model.backbone_again = self.model.backbone
        self.model.register_buffer("mean", torch.zeros(6))
        self.teacher = copy.deepcopy(self.model).requires_grad_(False)
        self.teacher_again = self.teacher
        self.prompt = self.model.prompt
        self.learned = [p for p in self.model.parameters() if p.requires_grad]

    def forward_backward(self, batch: dict) -> dict:
        losses = super().forward_backward(batch)
        with torch.no_grad():
            self.model.mean.lerp_(batch["img"].mean(0), 0.1)
            for slow, fast in zip(self.teacher.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
            for parameter in self.learned:
                parameter.mul_(0.99)
            self.prompt.add_(0.01)
        return losses


def test_aliases_buffers_and_teachers_resume_to_the_same_bits(tmp_path) -> None:
    def state(trainer: TinyTrainer) -> dict[str, torch.Tensor]:
        return everything(trainer) | {f"teacher {k}": v for k, v in trainer.teacher.state_dict().items()}

    expected = state(train(tiny_cfg(tmp_path / "whole"), trainer_class=Follows))
    for stop_after in (1, 3):
        train(tiny_cfg(tmp_path / "cut"), stop_after, Follows)
    resumed = train(tiny_cfg(tmp_path / "cut"), trainer_class=Follows)
    assert_same_bits(state(resumed), expected)
    assert resumed.prompt is resumed.model.prompt and resumed.learned[0] is resumed.model.prompt
    assert resumed.teacher_again is resumed.teacher and resumed.model.head_again is resumed.model.head


def test_tensors_with_two_names_are_in_the_state_once(tmp_path) -> None:
    train(tiny_cfg(tmp_path), 1, Follows)
    state = load_checkpoint(tmp_path / RESUME_FILE)
    assert not [name for name in state["models"]["net"] if "again" in name]
    attributes = state["attributes"]
    assert attributes.keys() == {
        *("step_counter", "average", "scale", "scale_optim"),
        *("teacher", "prompt", "learned"),
    }
    assert not [name for name in attributes["teacher"]["module"] if "again" in name]
    references = [attributes["prompt"]["value"], *attributes["learned"]["value"]["list"]]
    assert [entry["model"].split()[-1] for entry in references] == ["prompt", "prompt", "head.weight", "head.bias"]


def test_an_older_format_is_refused(tmp_path) -> None:
    train(tiny_cfg(tmp_path), 1)
    state = load_checkpoint(tmp_path / RESUME_FILE)
    torch.save({**state, "format": 2}, tmp_path / RESUME_FILE)
    with pytest.raises(ValueError, match="in a format that this version does not read: delete it"):
        train(tiny_cfg(tmp_path))


def test_every_attribute_of_the_engine_is_known_as_such(tmp_path) -> None:
    """A method's attributes are those that the engine did not set before the first hook; none may come later."""

    class Plain(TrainerX):
        build_data_loader = TinyTrainer.build_data_loader
        parse_batch_train = TinyTrainer.parse_batch_train

        def __init__(self, cfg) -> None:
            self.set_early = 1
            super().__init__(cfg)

        def build_model(self) -> None:
            self.model = torch.nn.Linear(6, 3)
            self.optim = build_optimizer(self.model, self.cfg.OPTIM)
            self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
            self.register_model("net", self.model, self.optim, self.sched)

        def forward_backward(self, batch):
            self.set_late = 2
            return {"loss": 0.0}

    trainer = train(tiny_cfg(tmp_path, "TEST.FINAL_MODEL", "best_val"), trainer_class=Plain)
    assert trainer._attributes.of(trainer) == {"set_early": 1, "set_late": 2}
    assert load_checkpoint(tmp_path / RESUME_FILE)["attributes"].keys() == {"set_late"}
