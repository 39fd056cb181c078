"""The folder of a run read back: its settings, the names of its classes, where its weights are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

import train
from dassl.config import merge_file, merge_options
from dassl.config.merge import shown
from dassl.engine.weights import existing
from dassl.utils import device_named, first_few, read_results

CONFIG, RESULTS = "config.yaml", "results.json"
# What concerns a training, or the place where it ran
NEUTRAL: dict[str, Any] = {"OUTPUT_DIR": "", "RESUME": "", "VERBOSE": False, "TEST.NO_TEST": True}
NEUTRAL |= {"MODEL.INIT_WEIGHTS": "", "TRAIN.RANDOMNESS": "portable"}


@dataclass(frozen=True)
class Run:
    """A run as `inference.load` was given it.

    Attributes:
        weights: what `load_model` of its trainer takes: the folder, or a file in it; None for untrained prompts.
        cfg: its settings, without those that concern the training alone.
        classnames: in the order of the labels; None if the run does not say.
        epoch: to be loaded; None for the best, or else the last saved.
    """

    folder: Path
    weights: Path | None
    cfg: CfgNode
    classnames: list[str] | None
    epoch: int | None = None


def read_run(
    path: str | Path, epoch: int | None = None, backbone: str | Path | None = None, device: str | None = None
) -> Run:
    """Read a run's folder; a file of weights in it, or their folder, is understood, too.

    Args:
        backbone: replaces MODEL.BACKBONE.NAME.
        device: as DEVICE has it; by default the GPU if there is one and the run's USE_CUDA allows it.

    Raises:
        FileNotFoundError: no such path, or no run there.
        ValueError: there is no such device, or the settings, or the class names, are damaged or of another version.
    """
    given = existing(path)
    folder = next((place for place in (given, *given.absolute().parents[:2]) if (place / CONFIG).is_file()), None)
    if folder is None:
        there = sorted(item.name for item in given.iterdir()) if given.is_dir() else []
        holds = f" It holds {first_few(there, 20) or 'nothing'}" if given.is_dir() else ""
        raise FileNotFoundError(
            f"{given} is not the folder of a run: it has no {CONFIG}. Give the folder that train.py wrote "
            f"(--output-dir), with its {CONFIG} and weights.{holds}"
        )
    cfg = read_settings(folder / CONFIG)
    if backbone:
        cfg.MODEL.BACKBONE.NAME = str(backbone)
    return Run(folder, given, for_inference(cfg, device), recorded_names(folder / RESULTS), epoch)


def untrained(
    config: str, trainer: str = "", dataset: str = "imagenet", options: Sequence[str] = (), device: str | None = None
) -> Run:
    """What a file of settings gives before training.

    Args:
        config: a YAML file in configs/trainers/.
        trainer: the method; by default the name of the file's folder.
        dataset: name of a file in configs/datasets/.
        options: further settings, as train.py takes them.

    Raises:
        FileNotFoundError, ValueError: as train.py.
    """
    of_dataset = Path(train.__file__).parent / "configs" / "datasets" / f"{dataset}.yaml"
    words = ["--config-file", config, "--dataset-config-file", str(of_dataset)]
    words += ["--trainer", trainer or Path(config).absolute().parent.name]
    cfg = train.setup_cfg(train.parse_args([*words, *options])).clone()
    cfg.defrost()
    return Run(Path(config), None, for_inference(cfg, device), None)


def for_inference(cfg: CfgNode, device: str | None) -> CfgNode:
    """The settings on that device, wherever the run was, without those that concern a training.

    Raises:
        ValueError: there is no such device.
    """
    device_named(device or "auto")
    merge_options(cfg, [word for pair in (NEUTRAL | {"DEVICE": device or "auto"}).items() for word in pair])
    cfg.freeze()
    return cfg


def read_settings(path: Path) -> CfgNode:
    """The settings of a config.yaml; keys that it does not have keep their defaults.

    Raises:
        ValueError: no YAML, keys that are not known, or values that are not possible.
    """
    cfg = train.default_cfg()
    try:
        merge_file(cfg, path)
        if wrong := train.wrong_values(cfg):
            raise ValueError(f"Settings of {path} that cannot be used:\n  " + "\n  ".join(wrong))
    except ValueError as error:
        raise ValueError(f"{error}\nA run of another version of this project is used with that version") from error
    if not cfg.TRAINER.NAME:
        raise ValueError(f"{path} has no TRAINER.NAME: it is not the configuration of a run")
    return cfg


def recorded_names(path: Path) -> list[str] | None:
    """The class names in a results.json; None if it has none, as those of earlier versions, or is not there.

    Raises:
        ValueError: what is there are no names.
    """
    names = (read_results(path) or {}).get("classnames")
    return None if names is None else check_names(names, f"{path}: classnames")


def check_names(names: Any, source: str) -> list[str]:
    """Class names as a list.

    Raises:
        ValueError: there are none, or one is empty or no string.
    """
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise ValueError(f"{source}: expected a list of class names, not {shown(names)}")
    wrong = [name for name in names if not (isinstance(name, str) and name.strip())]
    if wrong:
        raise ValueError(f"{source}: expected class names, not {shown(wrong[0])}")
    return list(names)
