"""Writing a bundle (`inference.bundle`) with its model card.

Letters: K classes.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import torch
from yacs.config import CfgNode

import clip
from clip.search import load_model, load_state_dict
from dassl.config import setting
from dassl.engine.weights import find_weights
from dassl.utils import atomic_write, first_few, read_results, write_json
from dassl.utils.checkpoints import load_checkpoint, save_safetensors
from trainers.checkpoint import own_tensors

from .bundle import BUNDLE, CARD, FORMAT, VERSION, WEIGHTS, weights_checksum
from .classifier import Classifier
from .run_folder import CONFIG, RESULTS, Run

# Settings that are of no use elsewhere, or tell about the machine that the run was on
PRIVATE = {"DATASET.ROOT": "", "OUTPUT_DIR": "", "RESUME": "", "MODEL.INIT_WEIGHTS": ""}
FOR_THE_HUB = ".gitattributes"
LARGE = ("safetensors", "onnx", "pt2", "pt")  # kinds of files that the hub keeps in its large-file storage


def write_bundle(classifier: Classifier, folder: Path, hub: bool = False) -> list[Path]:
    """Write what the classifier is made of into a folder; files of other formats there are left alone.

    Args:
        hub: add what the hub needs besides the model card.

    Raises:
        ValueError: the trainer keeps its weights in several models, or the classifier has other classes than its run.
    """
    trainer, cfg = classifier.trainer, classifier.run.cfg.clone()
    names = trainer.get_model_names()
    if len(names) > 1:
        raise ValueError(f"{classifier.trainer_name} has several models ({', '.join(names)}), a bundle holds one")
    if classifier.run.classnames not in (None, classifier.classnames):
        raise ValueError(
            "a bundle has the classes of its run: give other ones where it is used (--classes, with_classes)"
        )
    cfg.defrost()
    for key, value in PRIVATE.items():
        cfg.merge_from_list([key, value])
    given = cfg.MODEL.BACKBONE.NAME
    cfg.MODEL.BACKBONE.NAME = public_name(given)
    if given != cfg.MODEL.BACKBONE.NAME and not cfg.MODEL.BACKBONE.ACTIVATION:
        cfg.MODEL.BACKBONE.ACTIVATION = load_model(given).activation  # as stated next to it
    tensors = own_tensors(trainer.checkpoint_root(), trainer.model.pretrained_tensors()) if names else {}
    saved = load_checkpoint(_weights_file(classifier.run, names)) if names else {}
    belongs_to = {**trainer.belongs_to(), **(saved.get("belongs_to") or {}), "trainer": classifier.trainer_name}
    belongs_to.pop("backbone", None)  # a file may have another name elsewhere: its checksum counts
    state = {
        "state_dict": tensors,
        "epoch": getattr(trainer, "loaded_epoch", None),
        "belongs_to": belongs_to,
    }
    described = {
        "format": FORMAT,
        "version": VERSION,
        "trainer": classifier.trainer_name,
        "classnames": classifier.classnames,
        "epoch": state["epoch"],
        "backbone": {"name": cfg.MODEL.BACKBONE.NAME, "sha256": weights_checksum(load_state_dict(given))},
        "transform": describe_transform(cfg),
        "learned_parameters": sum(tensor.numel() for tensor in tensors.values()),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    with atomic_write(folder / CONFIG, "w") as file:
        file.write(cfg.dump())
    save_safetensors(state, folder / WEIGHTS)
    with atomic_write(folder / CARD, "w") as file:
        file.write(model_card(described, cfg, classifier.run.folder))
    written = [folder / CONFIG, folder / WEIGHTS, folder / CARD]
    if hub:
        with atomic_write(folder / FOR_THE_HUB, "w") as file:
            file.writelines(f"*.{kind} filter=lfs diff=lfs merge=lfs -text\n" for kind in LARGE)
        written.append(folder / FOR_THE_HUB)
    write_json(described, folder / BUNDLE)  # last: a folder is a bundle from here on
    return [*written, folder / BUNDLE]


def _weights_file(run: Run, names: list[str]) -> Path:
    assert run.weights is not None
    return find_weights(run.weights, names, run.epoch)[names[0]]


def public_name(name: str) -> str:
    """The name of a backbone for others: of a file here, its name alone."""
    return name if name in clip.available_models() or not os.path.exists(name) else Path(name).name


def describe_transform(cfg: CfgNode) -> dict[str, Any]:
    """What becomes of a picture before the model sees it, for programs that are not this one."""
    mean, std = (setting(cfg, f"MODEL.BACKBONE.{key}") or cfg.INPUT[key] for key in ("PIXEL_MEAN", "PIXEL_STD"))
    normalized = "normalize" in cfg.INPUT.TRANSFORMS
    return {
        "resize_shorter_side": max(cfg.INPUT.SIZE),
        "interpolation": cfg.INPUT.INTERPOLATION,
        "center_crop": list(cfg.INPUT.SIZE),
        "scale": 1 / 255,
        "mean": list(mean) if normalized else [0.0] * 3,
        "std": list(std) if normalized else [1.0] * 3,
    }


def model_card(described: Mapping[str, Any], cfg: CfgNode, run: Path) -> str:
    """README.md as the hub expects it: a header in YAML, then the text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["yaml"] = _yaml_text
    template = environment.get_template("model_card.md.j2")
    names = described["classnames"]
    return template.render(
        **{key: described[key] for key in ("trainer", "epoch", "backbone", "transform", "learned_parameters")},
        classes=len(names),
        shown=first_few((_plain(name) for name in names), 20),
        dataset=cfg.DATASET.NAME,
        shots=cfg.DATASET.NUM_SHOTS,
        results=read_results(run / RESULTS) or {},
    )


def _plain(text: str) -> str:
    """A text that Markdown shows as it is."""
    return "".join(f"\\{character}" if character in "\\`*_{}[]()<>#|" else character for character in text)


def _yaml_text(text: Any) -> str:
    """A text as a YAML scalar: quoted as in JSON, which YAML contains."""
    return json.dumps(str(text), ensure_ascii=False)
