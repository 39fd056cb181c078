"""A bundle: all that a trained classifier is made of but its backbone, in a folder to be shared.

`config.yaml` has the settings, `bundle.json` the classes and the backbone with its checksum, `model.safetensors` what
was learned, and README.md is the model card. Nothing in it can be executed, and no path in it is followed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import clip
from clip.origins import WEIGHT_SUFFIXES
from clip.search import load_state_dict
from dassl.utils import first_few, read_json
from dassl.utils.schema import check, like

from .run_folder import CONFIG, Run, check_names, for_inference, read_settings

BUNDLE, WEIGHTS, CARD = "bundle.json", "model.safetensors", "README.md"
FORMAT, VERSION = "prompt-learning bundle", 1
MOST_CLASSES, MOST_CHARACTERS = 100_000, 1_000  # of a name
MOST_PIXELS = 2_048  # of an image's side
MOST_BYTES = 2**25  # of bundle.json


def is_bundle(path: str | Path) -> bool:
    """Whether a path is a bundle's folder."""
    return (Path(path).expanduser() / BUNDLE).is_file()


def weights_checksum(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of the weights in fp32, in the order of their names: the same for every format they are stored in."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().to(torch.float32).contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def read_bundle(path: str | Path, backbone: str | Path | None = None, device: str | None = None) -> Run:
    """The bundle as `Classifier` takes a run.

    Args:
        backbone: name or file of the backbone, where the bundle's is a file or has another name here.
        device: as for `inference.run_folder.read_run`.

    Raises:
        FileNotFoundError: a part is missing, or the backbone is not here.
        ValueError: the bundle is damaged or of another version, or the backbone has other weights.
    """
    folder = Path(path).expanduser()
    described = _read_description(folder)
    if missing := [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]:
        there = sorted(item.name for item in folder.iterdir())
        raise FileNotFoundError(f"the bundle {folder} lacks {' and '.join(missing)}. It holds {first_few(there, 20)}")
    cfg = read_settings(folder / CONFIG)
    if described["trainer"] != cfg.TRAINER.NAME:
        raise ValueError(
            f"{folder}: {BUNDLE} says that the trainer is {described['trainer']!r}, {CONFIG} {cfg.TRAINER.NAME!r}: "
            "they are of two bundles"
        )
    if max(cfg.INPUT.SIZE) > MOST_PIXELS:
        raise ValueError(
            f"{folder / CONFIG}: INPUT.SIZE is {cfg.INPUT.SIZE}, expected at most {MOST_PIXELS} pixels a side"
        )
    cfg.MODEL.BACKBONE.NAME = _backbone(folder, described["backbone"], None if backbone is None else str(backbone))
    return Run(folder, folder / WEIGHTS, for_inference(cfg, device), described["classnames"])


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / BUNDLE
    described = read_json(path, MOST_BYTES)
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise ValueError(f'{path} is not the description of a bundle: it has no "format": "{FORMAT}"')
    if described.get("version") != VERSION:
        raise ValueError(
            f"{path}: the bundle has version {described.get('version')!r}, this project reads version {VERSION}: use "
            "the version of the project that wrote it, or export the run again"
        )
    example = {"trainer": "", "classnames": None, "backbone": {"name": "", "sha256": ""}}
    check(described, like(example), str(path), "Copy the bundle again")
    described["classnames"] = _names(described["classnames"], path)
    return described


def _names(names: Sequence[Any], path: Path) -> list[str]:
    found = check_names(names, f"{path}: classnames")
    longest = max(map(len, found))
    if len(found) > MOST_CLASSES or longest > MOST_CHARACTERS:
        raise ValueError(
            f"{path}: {len(found):,} class names of up to {longest:,} characters, expected at most {MOST_CLASSES:,} of "
            f"{MOST_CHARACTERS:,}"
        )
    return found


def _backbone(folder: Path, stated: Mapping[str, str], given: str | None) -> str:
    """The name of the backbone, whose weights are those that the bundle was made with."""
    name = given or stated["name"]
    looks_like_file = name.lower().endswith(WEIGHT_SUFFIXES) or os.path.isabs(name) or os.path.exists(name)
    if given is None and name not in clip.available_models() and looks_like_file:
        raise FileNotFoundError(
            f"the bundle {folder} was made with the weights file {Path(name).name!r}, which it does not contain: pass "
            f"the path of that file as the backbone (--backbone); its weights have the checksum {stated['sha256']!r}"
        )
    try:
        weights = load_state_dict(name)
    except (ValueError, FileNotFoundError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"the bundle {folder} needs the backbone {name!r}: {error}") from error
    found = weights_checksum(weights)
    if found != stated["sha256"]:
        raise ValueError(
            f"the bundle {folder} was made with another backbone: the weights of {name!r} have the checksum {found}, "
            f"those of its {stated['name']!r} {stated['sha256']!r}. Pass the right one as the backbone (--backbone)"
        )
    return name
