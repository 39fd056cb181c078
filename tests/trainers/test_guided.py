"""KgCoOp and TCP: contexts that are guided by hand-written prompts."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import clip
import datasets  # noqa: F401  (registers the datasets)
import train
from benchmarks.definitional import Definitional
from clip.model import CLIP
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, build_trainer
from dassl.utils import set_random_seed
from tests.dassl.tiny import Stop, stop_after_epoch
from tests.golden import trainer_options
from tests.paths import ROOT
from tests.trainers.test_methods import NAMES, build, small_clip
from trainers.base import ClipTrainer
from trainers.kgcoop import KgCoOp
from trainers.prompted_clip import unit
from trainers.prompts import fill
from trainers.tcp import TCP
from trainers.teacher import TextTeacher, text_distance

FP16_ADAM = {"TRAINER.TCP.PUBLISHED_ADAM": True}


def make(name: str, folder: Path | str, prec: str = "fp32", **options: object) -> ClipTrainer:
    """The trainer on one shot of the demonstration's base classes, for two epochs."""
    argv = ["--trainer", name, "--dataset-config-file", str(ROOT / "configs/datasets/emoji.yaml")]
    argv += ["--config-file", str(ROOT / f"configs/trainers/{name}/vit_micro.yaml"), "--output-dir", str(folder)]
    given = {"DATASET.NUM_SHOTS": 1, "DATASET.SUBSAMPLE_CLASSES": "base", "DATALOADER.TRAIN_X.BATCH_SIZE": 5}
    given |= {"SEED": 1, "VERBOSE": False, "OPTIM.MAX_EPOCH": 2, "OPTIM.WARMUP_EPOCH": 0}
    given |= {f"TRAINER.{name.upper()}.PREC": prec, **options}
    set_random_seed(1)
    return build_trainer(train.setup_cfg(train.parse_args([*argv, *(f"{k}={v}" for k, v in given.items())])))


def learned(trainer: ClipTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


@pytest.mark.slow
def test_the_published_adam_resumes_to_the_same_bits_and_is_in_the_results(tmp_path: Path):
    """Learned values are fp16 numbers; tests/trainers/test_every_method.py has what all methods must do."""
    untested = {**FP16_ADAM, "TEST.NO_TEST": True}
    whole = make("TCP", tmp_path / "whole", **untested)
    whole.train()
    stopped = make("TCP", tmp_path / "stopped", **untested)
    stop_after_epoch(stopped, 1)
    with pytest.raises(Stop):
        stopped.train()
    resumed = make("TCP", tmp_path / "stopped", **untested)
    resumed.train()
    expected = learned(whole)
    assert all(torch.equal(value, expected[key]) for key, value in learned(resumed).items())
    assert all(torch.equal(value, value.half().float()) for value in expected.values())
    make("TCP", tmp_path / "fp32").save_results()
    for name, flag in (("whole", "True: the optimizer keeps parameters and moments in fp16"), ("fp32", "False: ")):
        results = json.loads((tmp_path / name / "results.json").read_text())
        assert [note for note in results["notes"] if f"TRAINER.TCP.PUBLISHED_ADAM {flag}" in note]


@pytest.mark.parametrize("prec", ["bf16", "amp"])
def test_the_published_adam_in_other_precisions(prec: str):
    trainer = make("TCP", "", prec, **FP16_ADAM)
    before = learned(trainer)
    trainer.set_model_mode("train")
    trainer.epoch, trainer.batch_idx, trainer.num_batches = 0, 0, 2
    losses = {k: v.item() for k, v in trainer.forward_backward(next(iter(trainer.train_loader_x))).items()}
    assert losses["loss"] == pytest.approx(losses["ce"] + losses["score"], rel=1e-5)
    for key, value in learned(trainer).items():
        assert value.dtype == torch.float32 and not torch.equal(value, before[key])
        assert torch.equal(value, value.half().float())


def test_class_tokens_equal_the_definition():
    """Every class alone, at full length, its tokens in place of the context's before the second block."""
    clip_model = small_clip()
    model = build("TCP", NAMES, clip_model, INSERT_LAYER=1)
    learner = model.prompt_learner
    definition = Definitional(model, clip_model)
    hidden = learner.meta_net.linear1(model.teacher_features())
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    tokens = learner.meta_net.linear2(hidden).reshape(3, 4, 64)
    slow = definition.text_features(learner.sequences, learner.embeddings(), [tokens])
    fast = model.train().text_features()
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)
    weights = torch.randn(fast.shape)
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = [torch.autograd.grad((text * weights).sum(), parameters) for text in (fast, slow)]
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_the_distance_is_one_minus_the_mean_cosine():
    text, teacher = torch.randn(5, 8, requires_grad=True), torch.randn(5, 8)
    expected = 1 - F.cosine_similarity(text, teacher, eps=1e-7).mean()
    found = text_distance(unit(text), unit(teacher))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, text)[0] for value in (found, expected)))


# Of the published code; "{}" is the class name.
TEXTS = {
    "OxfordPets": ("a photo of a {}, a type of pet.", "a photo of a {}, a type of pet.", "X X X X {}, a type of pet."),
    "FGVCAircraft": (
        "a photo of a {}, a type of aircraft.",
        "a photo of an aircraft {}.",
        "X X X X {}, a type of aircraft.",
    ),
    "DescribableTextures": (
        "a photo of a {}, a type of texture.",
        "a photo of a {}, a type of texture.",
        "X X X X {} texture.",
    ),
    "EuroSAT": ("a centered satellite photo of {}.", "a centered satellite photo of {}.", "X X X X {}."),
    "StanfordCars": ("a photo of a {}.", "a photo of a {}.", "X X X X {}, a type of car"),
    "Food101": ("a photo of {}, a type of food.", "a photo of a {}, a type of food.", "X X X X {}, a type of food."),
    "UCF101": (
        "a photo of a person doing {}.",
        "a photo of a person doing {}.",
        "X X X X person doing {}.",
    ),
    "ImageNetSketch": ("a photo of a {}.", "a photo of a {}.", "X X X X {}."),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_the_published_ones(name: str):
    """Of KgCoOp's teacher, TCP's teacher, and TCP's prompts, whose context is here that of four times X."""
    knowledge, teacher, prompt = TEXTS[name]
    clip_model = small_clip()
    template = DATASET_REGISTRY.get(name).template
    dataset = type(name, (), {"classnames": NAMES, "template": template})()
    for trainer, text in ((KgCoOp, knowledge), (TCP, teacher)):
        options = trainer_options(trainer.__name__, **({"INSERT_LAYER": 1} if trainer is TCP else {}))
        model = trainer.build(options, dataset, clip_model)
        assert_same_texts(model.teacher_features(), clip_model, text)
    learner = model.prompt_learner
    with torch.no_grad():
        learner.ctx.copy_(clip_model.token_embedding(clip.tokenize("X X X X")[0, 1:5]))
        found = unit(model.text_encoder(learner.embeddings(), learner.layout, None))
    assert_same_texts(found, clip_model, prompt)


def assert_same_texts(features: torch.Tensor, clip_model: CLIP, template: str) -> None:
    expected = unit(clip_model.encode_text(clip.tokenize(fill(template, NAMES))))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-6)


def test_a_template_of_the_users_is_the_teachers():
    dataset = type("Food101", (), {"classnames": NAMES, "template": "food: {}."})()
    dataset.template = "a dish: {}."
    for trainer in (KgCoOp, TCP):
        options = trainer_options(trainer.__name__, **({"INSERT_LAYER": 1} if trainer is TCP else {}))
        clip_model = small_clip()
        assert_same_texts(trainer.build(options, dataset, clip_model).teacher_features(), clip_model, "a dish: {}.")


def test_an_evaluation_of_kgcoop_computes_no_teacher(monkeypatch: pytest.MonkeyPatch):
    """TCP needs it: the class tokens come from it."""
    calls: list[int] = []
    encode = TextTeacher.encode
    monkeypatch.setattr(TextTeacher, "encode", lambda *args: calls.append(1) or encode(*args))
    for name, settings, passes in (("KgCoOp", {}, 0), ("TCP", {"INSERT_LAYER": 1}, 1)):
        calls.clear()
        model = build(name, NAMES, small_clip(), **settings).eval()
        with torch.no_grad():
            for _ in range(2):
                model(torch.randn(2, 3, 32, 32))
        assert len(calls) == passes


def test_published_adam_needs_adam():
    with pytest.raises(ValueError, match=r"PUBLISHED_ADAM is True, but OPTIM.NAME is sgd: set OPTIM.NAME adam"):
        make("TCP", "", **FP16_ADAM, **{"OPTIM.NAME": "sgd"})


@pytest.mark.parametrize("name", ["KgCoOp", "TCP"])
def test_published_draws_are_not_known(name: str):
    with pytest.raises(ValueError, match=rf"what the published code of {name} draws for prompt_learner.ctx.* is not"):
        make(name, "", **{"TRAIN.RANDOMNESS": "published"})


def test_weights_trained_with_another_insert_layer_are_refused(tmp_path: Path):
    make("TCP", "").save_model(0, str(tmp_path))
    with pytest.raises(ValueError, match="insert_layer: 2 in the file, 1 here"):
        make("TCP", "", **{"TRAINER.TCP.INSERT_LAYER": 1}).load_model(str(tmp_path), epoch=1)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("CoCoOp", {"meta_net.linear1.weight": (32, 512), "meta_net.linear2.weight": (512, 32)}),
        ("TCP", {"meta_net.linear1.weight": (128, 512), "meta_net.linear2.weight": (2048, 128)}),
        ("KgCoOp", {"bias_vectors": (1, 512), "meta_net.linear1.weight": (512, 512), "meta_net.linear1.bias": (512,)}),
    ],
)
def test_published_weights_are_told_apart_by_their_shapes(name: str, others: dict[str, tuple[int, ...]]):
    shapes = {"ctx": (4, 512), **others}
    found = [
        trainer
        for trainer in ("CoOp", "CoCoOp", "TCP", "KgCoOp")
        if TRAINER_REGISTRY.get(trainer).options_for(shapes, trainer_options(trainer)) is not None
    ]
    assert found == [name]
