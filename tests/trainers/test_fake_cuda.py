"""Every method × precision on a GPU that is not there: devices, types, and steps that do not wait for it."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from yacs.config import CfgNode

import datasets  # noqa: F401  (registers the datasets)
import train
import trainers.linear_probe
import trainers.promptsrc
from clip.model import CLIP
from dassl.config import merge_file
from dassl.data.datasets import Datum
from dassl.engine.state import changed_tensors
from experiments.methods import METHODS
from inference.classifier import Classifier
from inference.run_folder import Run
from tests.paths import ROOT
from tests.trainers.fake_cuda import GPU, FakeCuda, fake_cuda
from tests.trainers.test_methods import small_clip
from trainers.base import ClipTrainer
from trainers.coop import CoOp
from trainers.features import compute
from trainers.on_features import FeatureTrainer, ViewTrainer
from trainers.precision import CHOICES
from trainers.prompted_clip import PromptedCLIP, scores_features
from trainers.without_data import dataset_without_images, trainer_without_data

NAMES = ["cat", "polar bear", "sea lion"]
SHOTS = 2
LABELS = torch.tensor([0, 2])  # of a batch
TOWERS = {"fp16": torch.float16, "bf16": torch.bfloat16}
ON_CPU = {"C"}  # of LinearProbe, in double precision
# Settings that fit towers of two blocks
TWO_BLOCKS = {"ADAPTER_START": 1, "ADAPTER_END": 2, "REP_LAYERS": [2], "INSERT_LAYER": 1}

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    monkeypatch.setattr(compute, "_loader", Images)
    monkeypatch.setattr(trainers.linear_probe, "_arrays", arrays)
    monkeypatch.setattr(
        trainers.linear_probe, "regress", lambda *args: (np.zeros((len(NAMES), 32)), np.zeros(len(NAMES)))
    )
    monkeypatch.setattr(trainers.promptsrc, "TEMPLATES_60", trainers.promptsrc.TEMPLATES_60[:2])
    with fake_cuda() as machine:
        yield machine


@cache
def backbone() -> CLIP:
    return small_clip()


class Images(list[dict[str, Tensor]]):
    """A loader of random images."""

    def __init__(self, cfg: CfgNode, items: list[Datum], is_train: bool):
        super().__init__(images([item.label for item in part]) for part in (items[:4], items[4:]))
        self.items = SimpleNamespace(dataset=None, data_source=items)


def images(labels: Any) -> dict[str, Tensor]:
    """A batch as loaders give it."""
    return {"img": torch.randn(len(labels), 3, 32, 32), "label": torch.as_tensor(labels)}


def arrays(features: Any) -> tuple[np.ndarray, np.ndarray]:
    """What scikit-learn gets of features on the GPU."""
    at(features.features, GPU, features.features.dtype)
    return np.zeros(features.features.shape), np.zeros(features.labels.shape)


def settings(name: str, prec: str) -> CfgNode:
    method, cfg = METHODS[name], train.default_cfg()
    cfg.TRAINER.NAME, cfg.DEVICE = method.trainer, str(GPU)
    for path in ("datasets/emoji.yaml", f"trainers/{method.trainer}/{method.demonstration}.yaml"):
        merge_file(cfg, ROOT / "configs" / path)
    cfg.OUTPUT_DIR, cfg.OPTIM.MAX_EPOCH, cfg.OPTIM.STEPS_PER_SHOT, cfg.OPTIM.WARMUP_EPOCH = "", 1, 0, 0
    known = {"PREC": prec, "VIEWS": 2, "SEARCH_STEP": [2, 2], **TWO_BLOCKS}
    for node in cfg.TRAINER.values():
        if isinstance(node, CfgNode):
            node.update({key: value for key, value in known.items() if key in node})
            node.update({key: min(value, 2) for key, value in node.items() if "DEPTH" in key})
    return cfg


def make(name: str, prec: str) -> ClipTrainer:
    """The trainer of a row with its config of the demonstration, in towers of two blocks."""
    dataset = dataset_without_images("Emoji", NAMES)
    items = [Datum(impath=f"{i}.png", label=i % len(NAMES)) for i in range(SHOTS * len(NAMES))]
    dataset.train_x = dataset.val = dataset.test = items
    trainer = trainer_without_data(settings(name, prec), dataset, copy.deepcopy(backbone()))
    trainer.num_batches = 1
    return trainer


@contextmanager
def naming(trainer: ClipTrainer, what: str) -> Iterator[None]:
    """Errors of the block say which trainer they are of."""
    try:
        yield
    except Exception as error:
        kind = f"{type(trainer).__name__} in {trainer.precision.name}, {what}"
        raise AssertionError(f"{kind}: {type(error).__name__}: {error}") from error


def at(tensor: Tensor, device: torch.device, dtype: torch.dtype = torch.float32, shape: Any = None) -> None:
    """Assert where a tensor is and what it is; the type is that of floating-point tensors alone."""
    dtype, shape = dtype if tensor.is_floating_point() else tensor.dtype, tensor.shape if shape is None else shape
    found, expected = (tensor.device, tensor.dtype, tuple(tensor.shape)), (device, dtype, tuple(shape))
    if found != expected:
        raise AssertionError(f"found {found}, expected {expected}")


def check_model(trainer: ClipTrainer) -> None:
    """All of it is on the GPU. The towers have their precision, and what is learned is in fp32."""
    model, tensors = trainer.model, dict(trainer.model.named_parameters()) | dict(trainer.model.named_buffers())
    elsewhere = [name for name, tensor in tensors.items() if tensor.device != GPU]
    assert {name.rpartition(".")[2] for name in elsewhere} <= ON_CPU, f"not on the GPU: {', '.join(elsewhere)}"
    at(model.image_encoder.conv1.weight, GPU, TOWERS.get(trainer.precision.name, torch.float32))
    learned = {name: tensor.dtype for name, tensor in tensors.items() if tensor.requires_grad}
    assert set(learned.values()) <= {torch.float32}
    if trainer.optim:
        optimized = {id(p) for group in trainer.optim.param_groups for p in group["params"]}
        assert optimized <= {id(tensors[name]) for name in learned}


def training_batch(trainer: ClipTrainer) -> dict[str, Any]:
    if isinstance(trainer, ViewTrainer):  # with VIEWS 0, it trains on images
        features, labels = trainer.parse_batch_train(images(LABELS))
        at(features, GPU, TOWERS.get(trainer.precision.name, features.dtype))
        at(labels, GPU)
    if isinstance(trainer, FeatureTrainer):
        batch = next(iter(trainer.feature_batches()))
        return {"features": batch.features, "label": batch.labels}
    views = trainer.cfg.DATALOADER.K_TRANSFORMS
    return images(LABELS) | ({"img": [images(LABELS)["img"]] * views} if views > 1 else {})


def check_step(trainer: ClipTrainer, machine: FakeCuda) -> None:
    """One step: with autocast, but without gradients, where it is amp; and with gradients, but without autocast."""
    trainer.before_epoch()
    batch = training_batch(trainer)
    trainer.set_model_mode("train")
    trainer.losses_checked_later = True  # as in the engine's loop
    machine.waits.clear()
    seen: list[tuple[Tensor, dict[str, Tensor]]] = []
    losses = trainer.losses
    trainer.losses = lambda *args: seen.append(losses(*args)) or seen[-1]  # type: ignore[method-assign, func-returns-value]
    if trainer.precision.name == "amp":
        with torch.no_grad(), trainer.precision.autocast():
            trainer.losses(*trainer.parse_batch_train(batch))
    trainer.forward_backward(batch)
    for logits, terms in seen:
        at(logits, GPU, shape=(len(batch["label"]), len(NAMES)))
        for term in terms.values():
            at(term, GPU, shape=())
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad and name != "probe.alpha_vec":  # LP++ has its gradients elsewhere
            assert parameter.grad is not None, f"{name} has no gradient"
            at(parameter.grad, GPU, shape=parameter.shape)
    assert not machine.waits, f"waits for the GPU at {', '.join(machine.waits)}"
    trainer.after_epoch()


@torch.no_grad()
def check_evaluation(trainer: ClipTrainer, machine: FakeCuda) -> None:
    """Of images, and of stored features where the method takes those."""
    trainer.set_model_mode("eval")
    machine.waits.clear()
    batches, model = [images(LABELS)], trainer.model
    if scores_features(model) and model.frozen_images():
        with trainer.precision.autocast():
            features = model.encode_image(batches[0]["img"].to(GPU, non_blocking=True))
        on_cpu = torch.randn(features.shape).to(features.dtype)
        batches.append({"features": on_cpu, "label": LABELS})
    for batch in batches:
        logits, labels = trainer.scores(batch)
        at(logits, GPU, shape=(len(LABELS), len(NAMES)))
        at(labels, GPU, shape=LABELS.shape)
        trainer.evaluator.process(logits, labels)
    assert not machine.waits, f"waits for the GPU at {', '.join(machine.waits)}"


def check_checkpoint(trainer: ClipTrainer) -> None:
    """What is learned is saved, in fp32."""
    for _, module, _, _, frozen in trainer.registered_models():
        saved = changed_tensors(module, frozen)
        assert {key for key, p in module.named_parameters() if p.requires_grad} <= saved.keys()
        for key, tensor in saved.items():
            if key not in ON_CPU:
                at(tensor, GPU)


@pytest.mark.parametrize("prec", CHOICES)
@pytest.mark.parametrize("name", METHODS)
def test_on_a_gpu(name: str, prec: str, machine: FakeCuda) -> None:
    """The step of fp32 is left out: that of amp, with gradients, is the same, and has the gradient scaler besides."""
    trainer = make(name, prec)
    with naming(trainer, "model"):
        check_model(trainer)
    with naming(trainer, "fit"):
        trainer.fit()
    if trainer.max_epoch and prec != "fp32":
        with naming(trainer, "step"):
            check_step(trainer, machine)
    with naming(trainer, "evaluation"):
        check_evaluation(trainer, machine)
    with naming(trainer, "checkpoint"):
        check_checkpoint(trainer)


def test_a_classifier_of_a_trained_run(machine: FakeCuda, tmp_path: Path) -> None:
    cfg = settings("maple", "fp16")
    cfg.DATASET.NAME = "Emoji"
    classifier = Classifier(Run(tmp_path, None, cfg, NAMES), NAMES)
    pictures = torch.randn(2, 3, 48, 48)
    check_model(classifier.trainer)
    at(classifier.logits(pictures), GPU, shape=(2, len(NAMES)))
    at(classifier.text_features(), torch.device("cpu"))


# ---- that these tests can fail ---------------------------------------------------------------------------------

SCALES = torch.ones(32)  # as many as the joint width


def scaled(model: PromptedCLIP, features: Tensor) -> Tensor:
    return F.normalize(features.float(), dim=-1) * SCALES


def projected(model: PromptedCLIP, features: Tensor) -> Tensor:
    return F.normalize(features.float() @ torch.eye(32, dtype=torch.float16, device=features.device), dim=-1)


def picked(model: PromptedCLIP, features: Tensor) -> Tensor:
    return F.normalize(features.float(), dim=-1)[torch.arange(len(features))]


def counted(model: PromptedCLIP, features: Tensor) -> Tensor:
    return F.normalize(features.float(), dim=-1) * torch.tensor([1.0], device=features.device)


def measured(model: PromptedCLIP, features: Tensor) -> Tensor:
    return features.float() / features.float().norm().item()


def masked(trainer: CoOp, image: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    logits = trainer.model(image)
    logits = logits.masked_fill(torch.zeros(logits.shape, dtype=torch.bool), 0)
    return logits, {"ce": trainer.cross_entropy(logits, label)}


def binary(trainer: CoOp, image: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    logits = trainer.model(image)
    return logits, {"bce": F.binary_cross_entropy(logits.sigmoid(), F.one_hot(label, len(NAMES)).float())}


def rounded(trainer: CoOp, image: Tensor, label: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    logits = trainer.model(image).half()
    return logits, {"ce": trainer.cross_entropy(logits, label)}


MISTAKES = [
    (PromptedCLIP, "adapt_image", scaled, "fp16", r"Tensor.* (devices|device).*c(uda|pu)"),
    (PromptedCLIP, "adapt_image", projected, "fp16", "different types: torch.float16, torch.float32"),
    (PromptedCLIP, "adapt_image", measured, "fp16", r"waits for the GPU at .*\(measured\)"),
    (PromptedCLIP, "adapt_image", picked, "fp16", r"waits for the GPU at .*\(picked\)"),
    (PromptedCLIP, "adapt_image", counted, "fp16", r"waits for the GPU at .*\(counted\)"),
    (CoOp, "losses", masked, "fp16", r"Tensor.* (devices|device).*c(uda|pu)"),
    (CoOp, "losses", binary, "amp", "unsafe to autocast"),
    (CoOp, "losses", rounded, "fp16", "torch.float16"),
]


@pytest.mark.parametrize(("owner", "name", "mistake", "prec", "message"), MISTAKES)
def test_mistakes_are_found(
    owner: type,
    name: str,
    mistake: Callable[..., Any],
    prec: str,
    message: str,
    machine: FakeCuda,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(owner, name, mistake, raising=False)
    trainer = make("coop", prec)
    with pytest.raises(AssertionError, match=f"CoOp in {prec}, step: .*{message}"), naming(trainer, "step"):
        check_step(trainer, machine)


def test_a_buffer_that_does_not_move_is_found(machine: FakeCuda) -> None:
    trainer = make("coop", "fp16")
    trainer.model.register_buffer("scales", SCALES)
    with pytest.raises(AssertionError, match="not on the GPU: scales"):
        check_model(trainer)


def test_the_gpu_is_gone_after_the_test() -> None:
    def found() -> tuple[Any, ...]:
        return torch.cuda.is_available(), torch.cuda.device_count(), torch.autocast.__enter__, torch.autocast.__exit__

    before = found()
    with fake_cuda() as machine:
        assert torch.cuda.is_available() and torch.ones(1, device=GPU).device == GPU
        with torch.autocast("cuda", torch.float16), torch.no_grad():
            assert (torch.ones(2, 2, device=GPU) @ torch.ones(2, 2, device=GPU)).dtype == torch.float16
            assert machine.autocasts == [True]
    assert found() == before
    assert type(torch.ones(1) + 1) is Tensor and not torch.__future__.get_swap_module_params_on_conversion()
