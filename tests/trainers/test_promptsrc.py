"""PromptSRC: against an independent implementation, its aggregate through checkpoints and resumed runs, its names."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from yacs.config import CfgNode

from dassl.engine.weights import PREFIX
from dassl.utils import load_checkpoint, set_random_seed
from tests import golden
from tests.dassl.tiny import Stop, stop_after_epoch
from tests.golden import assert_close
from tests.paths import needs_golden
from tests.trainers.test_base import make
from tests.trainers.test_methods import NAMES, learned, small_clip, vit_b16
from trainers.base import ClipTrainer
from trainers.checkpoint import learned_shapes, load_learned
from trainers.ivlp import IVLP
from trainers.promptsrc import PromptSRC, epoch_weights, unsuitable
from trainers.templates import TEMPLATES_60

EPOCHS = 3
SHORT = {"OPTIM__MAX_EPOCH": EPOCHS, "TRAINER__PROMPTSRC__GPA_MEAN": 2, "TRAINER__PROMPTSRC__GPA_STD": 1}


@pytest.fixture
def two_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainers.promptsrc.TEMPLATES_60", TEMPLATES_60[:2])


def seeded(folder: Path, **options: object) -> ClipTrainer:
    """The trainer on the demonstration, from the same state of the random generators each time."""
    set_random_seed(1)
    return make(folder, "PromptSRC", **options)


def golden_trainer(meta: dict) -> ClipTrainer:
    defaults = golden.trainer_options("PromptSRC")
    options = {f"TRAINER.PROMPTSRC.{key}": type(default)(meta.get(key, default)) for key, default in defaults.items()}
    epochs = {"OPTIM.MAX_EPOCH": meta["MAX_EPOCH"], "OUTPUT_DIR": ""}
    return golden.make_trainer(meta, settings={**options, **epochs})


@needs_golden
@pytest.mark.parametrize("file", ["promptsrc_v3_t3", "promptsrc_v2_t3_weights"])
def test_three_steps_equal_the_golden_ones(file: str) -> None:
    values, meta = golden.read(f"{file}.safetensors")
    assert meta["templates"] == list(TEMPLATES_60)
    golden.check_three_steps(golden_trainer(meta), values, meta)


@needs_golden
def test_the_aggregate_equals_the_golden_one() -> None:
    """Four epochs of one step each: every epoch goes on from the plain weights, the last ends with the aggregate."""
    values, meta = golden.read("promptsrc_gpa.safetensors")
    trainer = golden_trainer(meta)
    assert trainer.epoch_weights == pytest.approx(values["epoch_weights"].tolist(), rel=1e-6)
    golden.load_parameters(trainer.model, values, "param0.")
    for trainer.epoch in range(meta["MAX_EPOCH"]):
        trainer.set_model_mode("train")
        _, terms = trainer.losses(values["image"], values["label"])
        assert_close(trainer.update(terms).detach(), values["losses"][trainer.epoch], "loss")
        for name in trainer.aggregate:
            expected = values[f"param_epoch{trainer.epoch + 1}.{name}"]
            assert_close(trainer.model.get_parameter(name).detach(), expected, name)
        trainer.after_epoch()
    for name in trainer.aggregate:
        assert_close(trainer.model.get_parameter(name).detach(), values[f"gpa.{name}"], name)
    with torch.no_grad():
        assert_close(trainer.model.eval()(values["image"]), values["logits_gpa"], "logits")


def test_epoch_weights_are_a_gaussian() -> None:
    """exp(-1/2), 1, exp(-1/2) over their sum; a mean far outside leaves no 0 / 0."""
    side = 0.6065306597126334 / 2.213061319425267
    assert epoch_weights(2, 1, 3) == pytest.approx([side, 1 - 2 * side, side])
    assert epoch_weights(1e6, 1, 2) == pytest.approx([0, 1])


def test_learned_tensors_at_vit_b16() -> None:
    """4 (512 + 768) for each of 9 or of 3 layers."""
    for depth, count in ((9, 46_080), (3, 15_360)):
        depths = {"PROMPT_DEPTH_VISION": depth, "PROMPT_DEPTH_TEXT": depth}
        names = learned(golden.build("PromptSRC", NAMES, vit_b16(), **depths))
        assert sum(names.values()) == count == depth * 4 * (512 + 768)
        deep = (f"transformer.resblocks.{i}.VPT_shallow" for i in range(1, depth))
        towers = {f"{tower}.{name}" for name in deep for tower in ("text_encoder", "image_encoder")}
        assert set(names) == {"prompt_learner.ctx", "image_encoder.VPT", *towers}
    language = golden.build("PromptSRC", NAMES, vit_b16(), PROMPT_DEPTH_VISION=0)
    assert sum(learned(language).values()) == 9 * 4 * 512


def tensors(folder: Path, epoch: int) -> dict[str, Tensor]:
    return load_checkpoint(folder / "VLPromptLearner" / f"{PREFIX}{epoch}")["state_dict"]


def record_epochs(trainer: ClipTrainer) -> list[dict[str, Tensor]]:
    """The learned tensors at the end of each epoch's steps, once the trainer has trained."""
    epochs, after_epoch = [], trainer.after_epoch

    def recorded() -> None:
        epochs.append({name: trainer.model.get_parameter(name).detach().clone() for name in trainer.aggregate})
        after_epoch()

    trainer.after_epoch = recorded
    return epochs


def mean_of(epochs: list[dict[str, Tensor]], name: str) -> Tensor:
    """In fp64, of the epochs' tensors of one name."""
    weights = epoch_weights(2, 1, EPOCHS)
    return sum(weight * epoch[name].double() for weight, epoch in zip(weights, epochs, strict=True))


@pytest.mark.slow
@pytest.mark.usefixtures("two_templates")
@pytest.mark.parametrize("prec", ["fp32", "bf16", "amp"])
def test_the_last_checkpoint_alone_holds_the_aggregate(prec: str, tmp_path: Path) -> None:
    trainer = seeded(tmp_path, TRAIN__CHECKPOINT_FREQ=1, TRAINER__PROMPTSRC__PREC=prec, **SHORT)
    epochs = record_epochs(trainer)
    trainer.train()
    for name in trainer.aggregate:
        for epoch in range(1, EPOCHS):
            assert torch.equal(tensors(tmp_path, epoch)[name], epochs[epoch - 1][name])
        assert not torch.equal(epochs[1][name], epochs[0][name]), "not trained"
        last, learned_tensor = tensors(tmp_path, EPOCHS)[name], trainer.model.get_parameter(name)
        assert last.dtype == torch.float32 and torch.equal(last, learned_tensor)
        torch.testing.assert_close(last.double(), mean_of(epochs, name), rtol=1e-6, atol=1e-8)
        assert not torch.equal(last, epochs[-1][name])
    assert tensors(tmp_path, EPOCHS).keys() == set(trainer.aggregate), "the running sum is not in a checkpoint"


@pytest.mark.slow
@pytest.mark.usefixtures("two_templates")
def test_a_run_that_is_stopped_after_every_epoch_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = seeded(tmp_path / "whole", **SHORT)
    whole.train()
    for epoch in range(1, EPOCHS + 1):
        stopped = seeded(tmp_path / "stopped", **SHORT)
        stop_after_epoch(stopped, epoch)
        with pytest.raises(Stop):
            stopped.train()
        assert stopped.start_epoch == epoch - 1
    resumed = seeded(tmp_path / "stopped", **SHORT)
    resumed.train()
    assert resumed.start_epoch == EPOCHS
    for name, total in whole.aggregate.items():
        assert torch.equal(resumed.aggregate[name], total), name
        assert torch.equal(resumed.model.get_parameter(name), whole.model.get_parameter(name)), name
        assert torch.equal(tensors(tmp_path / "stopped", EPOCHS)[name], tensors(tmp_path / "whole", EPOCHS)[name])
    histories = [(tmp_path / run / "history.jsonl").read_text().splitlines() for run in ("whole", "stopped")]
    whole_losses, losses = ([json.loads(line)["losses"] for line in history] for history in histories)
    assert losses == whole_losses
    assert losses[0].keys() == {"loss", "ce", "scl_text", "scl_image", "scl_logits", "acc"}


@pytest.mark.slow
@pytest.mark.usefixtures("two_templates")
def test_validation_sees_what_a_checkpoint_of_that_epoch_holds(tmp_path: Path) -> None:
    """The epoch's own prompts, and the aggregate after the last epoch."""
    validated: list[dict[str, Tensor]] = []
    options = {"TEST__FINAL_MODEL": "best_val", "TEST__NO_TEST": False, **SHORT}
    trainer = seeded(tmp_path, DATASET__NUM_SHOTS=2, **options)
    epochs = record_epochs(trainer)

    def validate(split: str = "") -> float:
        validated.append({name: trainer.model.get_parameter(name).detach().clone() for name in trainer.aggregate})
        return float(len(validated))

    trainer.test = validate
    trainer.train()
    for name in trainer.aggregate:
        assert all(torch.equal(validated[i][name], epochs[i][name]) for i in range(EPOCHS - 1))
        torch.testing.assert_close(validated[-1][name].double(), mean_of(epochs, name), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("mean", "std", "epochs", "said"),
    [
        (15, 1, 5, "epoch 5 of 5 has 100% of the weight"),
        (15, 1, 50, "the second half of 50 epochs has 0% of the weight"),
        *((mean, std, epochs, "") for mean, std, epochs in [(15, 1, 20), (6, 10, 20), (30, 30, 50), (45, 5, 50)]),
        (15, 1, 1, ""),
    ],
)
def test_published_weights_suit_their_epochs_alone(mean: int, std: int, epochs: int, said: str) -> None:
    assert unsuitable(epoch_weights(mean, std, epochs)) == said


def test_weights_that_do_not_suit_the_epochs_are_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = seeded(tmp_path, OPTIM__MAX_EPOCH=2, TRAINER__PROMPTSRC__GPA_MEAN=15)
    assert "GPA_MEAN" not in capsys.readouterr().out, "a test needs no weights"
    trainer.run_epoch = trainer.after_epoch = trainer.after_train = lambda: None
    trainer.train()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "GPA_MEAN" in line]
    assert "GPA_MEAN 15 and GPA_STD 0.5, epoch 2 of 2 has 100% of the weight" in line and "use 1.5 and 1" in line


def test_a_published_checkpoint_loads(tmp_path: Path) -> None:
    """The whole model with the teacher's image tower and the buffers of other class names, partly in half precision."""
    model = golden.build("PromptSRC", NAMES, small_clip(), PROMPT_DEPTH_VISION=2, PROMPT_DEPTH_TEXT=2)
    state = {name: torch.full_like(p, 0.5) if p.requires_grad else p.half() for name, p in model.named_parameters()}
    teacher = {
        f"prompt_learner.ZS_image_encoder.{name}": p.half() for name, p in small_clip().visual.named_parameters()
    }
    buffers = {
        "prompt_learner.token_prefix": torch.zeros(50, 1, 64),
        "prompt_learner.token_suffix": torch.zeros(50, 72, 64),
    }
    published = {**state, **teacher, **buffers}
    load_learned(model, published, "file", model.pretrained_tensors(), PromptSRC.not_loaded)
    assert all((p == 0.5).all() for _, p in model.named_parameters() if p.requires_grad)
    shapes = learned_shapes(published, PromptSRC.not_loaded)
    found = {"N_CTX_TEXT": 4, "N_CTX_VISION": 4, "PROMPT_DEPTH_TEXT": 2, "PROMPT_DEPTH_VISION": 2}
    assert PromptSRC.options_for(shapes, CfgNode()) == found
    assert IVLP.options_for(learned_shapes(published), CfgNode()) is None
    with pytest.raises(ValueError, match=r"unexpected prompt_learner\.ZS_image_encoder"):
        load_learned(model, published, "file", model.pretrained_tensors(), ClipTrainer.not_loaded)


def test_draws_that_are_not_recorded_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"TRAIN\.RANDOMNESS published: what the published code of PromptSRC draws"):
        seeded(tmp_path, TRAIN__RANDOMNESS="published")
