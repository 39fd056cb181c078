"""ProGrad: against an independent implementation, with a gradient scaler, its initial context, a resumed run."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import clip
from dassl.utils import set_random_seed
from tests import golden
from tests.dassl.tiny import Stop, stop_after_epoch
from tests.golden import assert_close
from tests.paths import needs_golden
from tests.trainers.test_base import make
from tests.trainers.test_methods import NAMES, learned, small_clip, vit_b16
from trainers.base import ClipTrainer
from trainers.prograd import ProGrad

CTX = "prompt_learner.ctx"
PETS = "a type of pet, a photo of a"


def seeded(folder: Path, **options: object) -> ClipTrainer:
    """The trainer on the demonstration, from the same state of the random generators each time."""
    set_random_seed(1)
    return make(folder, "ProGrad", **options)


def golden_trainer(meta: dict) -> ClipTrainer:
    keys = golden.trainer_options("ProGrad").keys() & meta.keys()
    options = {f"TRAINER.PROGRAD.{key}": meta[key] for key in keys}
    return golden.make_trainer(meta, meta["dataset"], options)


@needs_golden
@pytest.mark.parametrize("file", ["prograd_aligned", "prograd_conflict", "prograd_mixed"])
def test_three_steps_equal_the_golden_ones(file: str) -> None:
    """The gradient is compared after the projection; the printed loss is the cross entropy."""
    values, meta = golden.read(f"{file}.safetensors")
    trainer = golden_trainer(meta)
    teacher = trainer.model.teacher_features()
    assert_close(teacher, torch.nn.functional.normalize(values["aux.teacher_text"], dim=-1), "teacher's texts")
    golden.check_three_steps(trainer, values, meta)


@needs_golden
def test_a_scaler_changes_no_step() -> None:
    """A power of two is exact in fp32, and only the direction of the divergence's gradient counts."""
    values, meta = golden.read("prograd_mixed.safetensors")
    ends = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0**10)):
        trainer = golden_trainer(meta)
        trainer.scaler = scaler
        golden.load_parameters(trainer.model, values, "param0.")
        for _ in range(meta["steps"]):
            _, terms = trainer.losses(values["image"], values["label"])
            trainer.update(terms)
        ends.append(trainer.model.prompt_learner.ctx.detach())
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-6, atol=0)


def test_a_step_that_overflows_is_skipped() -> None:
    trainer = golden.make_trainer({"trainer": "ProGrad", "classnames": NAMES, "optim": {"name": "sgd", "lr": 0.1}})
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    ctx = trainer.model.prompt_learner.ctx
    before = ctx.detach().clone()
    # d/dx of sqrt at 0 is infinite, its value is not
    trainer.update(
        {
            "ce": ctx.sum(),
            "kl": (ctx - ctx.detach()).square().sum().sqrt() + (ctx[0] - ctx[0].detach()).abs().sqrt().sum(),
        }
    )
    assert torch.equal(ctx, before)
    assert trainer.scaler.get_scale() == 2.0**9


def context(dataset: str, **options: object) -> torch.nn.Module:
    of_data = type(dataset, (), {"classnames": NAMES, "template": "a photo of a {}."})()
    return ProGrad.build(golden.trainer_options("ProGrad", **options), of_data, small_clip()).prompt_learner


@pytest.mark.parametrize("csc", [False, True])
def test_the_context_starts_with_zeros_and_ends_with_the_first_tokens_of_the_words(csc: bool) -> None:
    """Eight words, nine tokens: the last one, "a", stays fixed between the context and the name."""
    learner = context("OxfordPets", N_CTX=16, CSC=csc)
    tokens = clip.tokenize([PETS])[0, 1:10]
    expected = torch.cat([torch.zeros(8, 64), small_clip().token_embedding(tokens[:8])])
    assert torch.equal(learner.ctx, expected.expand(3, 16, -1) if csc else expected)
    sequence = learner.sequences[1]  # SOS, 16 learned, "a", "golden", "retriever", ".", EOT
    text = learner.embeddings()[torch.tensor(sequence)]
    fixed = small_clip().token_embedding(clip.tokenize(["a golden retriever."])[0, 1:6])
    assert len(sequence) == 1 + 16 + 5 and torch.equal(text[17:], fixed)


def test_settings_that_do_not_fit_the_words() -> None:
    with pytest.raises(
        ValueError, match=r"CTX_INIT starts 7 context tokens.*'a type of pet, a photo of a \{\}.' has 8"
    ):
        context("OxfordPets", N_CTX=7)
    with pytest.raises(ValueError, match=r"CLASS_TOKEN_POSITION is front.*use end, or CTX_INIT False"):
        context("OxfordPets", CLASS_TOKEN_POSITION="front")
    assert context("Caltech101", N_CTX=4, CLASS_TOKEN_POSITION="front").ctx.shape == (4, 64)
    of_data = SimpleNamespace(classnames=NAMES, template="{} texture.")
    with pytest.raises(ValueError, match=r"'\{\} texture.' has 0: .*CTX_INIT to False"):
        ProGrad.build(golden.trainer_options("ProGrad"), of_data, small_clip())


def test_learned_tensors() -> None:
    """16 × 512 with RN50 and ViT-B/16 alike, whose text towers are as wide."""
    assert learned(golden.build("ProGrad", NAMES, vit_b16())) == {CTX: 8_192}
    assert learned(golden.build("ProGrad", NAMES, vit_b16(), CTX_INIT=False, CSC=True)) == {CTX: 3 * 8_192}
    model = golden.build("ProGrad", NAMES, small_clip(vision=16, layers=(1, 1, 1, 1)))
    assert learned(model) == {CTX: 16 * 64}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"PREC": "fp32"}, {"PREC": "bf16"}, {"PREC": "amp", "CSC": True, "CTX_INIT": False}]
)
def test_a_resumed_run_ends_with_the_same_bits(options: dict, tmp_path: Path) -> None:
    settings = {"OPTIM__MAX_EPOCH": 2, **{f"TRAINER__PROGRAD__{key}": value for key, value in options.items()}}
    whole = seeded(tmp_path / "whole", **settings)
    before = whole.model.prompt_learner.ctx.detach().clone()
    whole.train()
    stopped = seeded(tmp_path / "stopped", **settings)
    stop_after_epoch(stopped, 1)
    with pytest.raises(Stop):
        stopped.train()
    resumed = seeded(tmp_path / "stopped", **settings)
    resumed.train()
    assert resumed.start_epoch == 1
    after = whole.model.prompt_learner.ctx
    assert torch.equal(resumed.model.prompt_learner.ctx, after)
    assert after.dtype == torch.float32 and not torch.equal(before, after)


def test_the_printed_loss_is_what_is_descended(tmp_path: Path) -> None:
    trainer = seeded(tmp_path, OPTIM__MAX_EPOCH=1)
    trainer.train()
    found = trainer.run_record.losses
    assert found.keys() == {"loss", "ce", "kl", "acc"} and found["loss"] == found["ce"]


def test_class_specific_contexts_are_refused_for_other_classes(tmp_path: Path) -> None:
    seeded(tmp_path / "run", OPTIM__MAX_EPOCH=1, TRAINER__PROGRAD__CSC=True).train()
    new = seeded(tmp_path / "new", TRAINER__PROGRAD__CSC=True, DATASET__SUBSAMPLE_CLASSES="new")
    with pytest.raises(ValueError, match=r"classes: \['arrow', .* in the file"):
        new.load_model(str(tmp_path / "run"))
