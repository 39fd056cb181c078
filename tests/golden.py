"""Reading the golden values and building methods on the golden CLIP."""

import json
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from yacs.config import CfgNode

import datasets  # noqa: F401  (registers the datasets)
from clip.model import CLIP, from_state_dict
from dassl.config import get_cfg_default
from dassl.engine import TRAINER_REGISTRY
from tests.paths import GOLDEN
from trainers import extend_cfg
from trainers.base import ClipTrainer
from trainers.prompted_clip import FrozenTowersCLIP
from trainers.without_data import dataset_without_images, trainer_without_data

NODES = {
    "MaPLe": "MAPLE",
    "CoOp": "COOP",
    "CoCoOp": "COCOOP",
    "VPT": "VPT",
    "IVLP": "IVLP",
    "KgCoOp": "KGCOOP",
    "TCP": "TCP",
    "PromptSRC": "PROMPTSRC",
    "ProGrad": "PROGRAD",
}


def read(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of one golden file."""
    with safe_open(GOLDEN / name, "pt") as file:
        meta = json.loads((file.metadata() or {}).get("meta", "{}"))
        return {key: file.get_tensor(key) for key in file.keys()}, meta  # noqa: SIM118


def golden_clip() -> CLIP:
    weights, _ = read("clip.safetensors")
    return from_state_dict({k: v.float() for k, v in weights.items()}).requires_grad_(False)


def trainer_options(trainer: str, **values: Any) -> CfgNode:
    """The trainer's config node with its defaults, fp32 and the given values."""
    cfg = get_cfg_default()
    extend_cfg(cfg)
    method = TRAINER_REGISTRY.get(trainer)
    if "BASE" in values:  # decides which further options there are
        cfg.TRAINER[method.config_node].BASE = values["BASE"]
    options = method.options_of(cfg)
    options.PREC = "fp32"
    for key, value in values.items():
        assert key in options, key
        options[key] = value
    return options


def build(trainer: str, classnames: list[str], clip_model: CLIP, **values: Any) -> FrozenTowersCLIP:
    """The trainer's model, without the trainer."""
    dataset = SimpleNamespace(classnames=classnames)
    return TRAINER_REGISTRY.get(trainer).build(trainer_options(trainer, **values), dataset, clip_model)


def make_trainer(meta: dict[str, Any], dataset: str = "Dataset", settings: dict[str, Any] | None = None) -> ClipTrainer:
    """The trainer of a golden file on the golden CLIP, with its optimizer, but without data.

    Args:
        meta: of the file; names its trainer, classes and optimizer.
        dataset: registered name of the data set whose template it has; another name: the default template.
        settings: further settings, such as {"TRAINER.COOP.N_CTX": 4}.
    """
    cfg = get_cfg_default()
    extend_cfg(cfg)
    given_optim = {{"eps": "ADAM_EPS"}.get(key, key.upper()): value for key, value in meta["optim"].items()}
    optim = {f"OPTIM.{key}": value for key, value in given_optim.items() if key in cfg.OPTIM}
    precisions = {f"TRAINER.{node}.PREC": "fp32" for node, keys in cfg.TRAINER.items() if "PREC" in keys}
    given = {"TRAINER.NAME": meta["trainer"], **precisions, "USE_CUDA": False, **optim, **(settings or {})}
    cfg.merge_from_list([word for pair in given.items() for word in pair])
    trainer = trainer_without_data(cfg, dataset_without_images(dataset, meta["classnames"]), golden_clip())
    trainer.set_model_mode("train")
    return trainer


def load_parameters(model: torch.nn.Module, values: dict[str, Tensor], prefix: str) -> None:
    """Copy `<prefix><name>` into the learned parameters, whose names must be exactly these."""
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    given = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
    assert set(learned) == set(given)
    with torch.no_grad():
        for name, parameter in learned.items():
            parameter.copy_(given[name])


def assert_close(found: Tensor, expected: Tensor, what: str = "") -> None:
    """Equal to 1e-4 of the largest value, the sum order's share after three steps of training."""
    scale = expected.abs().max().clamp_min(1e-8)
    difference = ((found - expected).abs().max() / scale).item()
    assert difference < 1e-4, f"{what} differs by {difference:.1e} of its largest value"


def check_three_steps(
    trainer: ClipTrainer,
    values: dict[str, Tensor],
    meta: dict[str, Any],
    weights: dict[str, float] | None = None,
) -> None:
    """Compare a trainer's steps on a file's batch with its logits, loss terms, gradients and learned parameters.

    Args:
        weights: of the loss terms that the file holds without their weight; 1 for the others.
    """
    model, image, label = trainer.model, values["image"], values["label"]
    load_parameters(model, values, "param0.")
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        assert_close(model.eval()(image), values["logits0"], "logits0")
    losses, history = [], []
    for step in range(meta["steps"]):
        trainer.set_model_mode("train")
        _, terms = trainer.losses(image, label)
        losses.append(trainer.update(terms).detach())
        history.append({name: term.detach() for name, term in terms.items()})
        for name, parameter in learned.items():
            assert parameter.grad is not None, name
            if step == 0:
                assert_close(parameter.grad, values[f"grad0.{name}"], f"gradient of {name}")
    assert_close(torch.stack(losses), values["losses"], "losses")
    expected_terms = {key.removeprefix("loss_terms.") for key in values if key.startswith("loss_terms.")}
    assert expected_terms in (set(history[0]), set())
    for name in expected_terms:
        weight = (weights or {}).get(name, 1.0)
        found = torch.stack([terms[name] for terms in history])
        assert_close(found, weight * values[f"loss_terms.{name}"], f"loss term {name}")
    for name, parameter in learned.items():
        assert_close(parameter.detach(), values[f"param3.{name}"], name)
    with torch.no_grad():
        assert_close(model.eval()(image), values["logits3"], "logits3")
