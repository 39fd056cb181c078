"""Exact resume: one file, written atomically after every epoch, from which a run ends with the same bits.

It holds the models (as :func:`changed_tensors` keeps them), optimizers, schedulers, all generators, the attributes a
trainer keeps on itself (a gradient scaler, counters, averaged weights, modules and optimizers it did not register),
the best validation result, the history and the configuration.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from dassl.config.merge import flatten
from dassl.engine.state import (
    changed_tensors,
    fingerprint,
    frozen_fingerprints,
    load_tensors,
    pack,
    rng_state,
    set_rng_state,
    signature,
    unpack,
)
from dassl.utils.torchtools import load_checkpoint, load_object_state, torch_save

__all__ = ["RESUME_FILE", "Extras", "copy_models", "find_resume", "restore", "save_resume"]

RESUME_FILE = "resume.pth.tar"
_FORMAT = 2

#: Keys that may differ between a run and its continuation: they do not change what is computed
_FREE_KEYS = {
    "OUTPUT_DIR",
    "RESUME",
    "DATASET.ROOT",
    "USE_CUDA",
    "VERBOSE",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.CACHE_MB",
    "TRAIN.PRINT_FREQ",
    "TRAIN.CHECKPOINT_FREQ",
}

#: Attributes of the engine itself, restored by name or made anew
_ENGINE = {
    "batch_idx",
    "best_result",
    "cfg",
    "device",
    "dm",
    "epoch",
    "evaluator",
    "history",
    "lab2cname",
    "loaded_epoch",
    "max_epoch",
    "num_batches",
    "num_classes",
    "num_source_domains",
    "output_dir",
    "start_epoch",
    "test_loader",
    "time_start",
    "train_loader_u",
    "train_loader_x",
    "val_loader",
    "_anomalies",
    "_epoch_losses",
    "_epoch_lr",
    "_epoch_images",
    "_epoch_start",
    "_extras",
    "_frozen",
    "_in_epochs",
    "_last_result",
    "_last_split",
    "_output_lock",
    "_models",
    "_optims",
    "_results_written",
    "_scheds",
    "_test_seconds",
    "_writer",
}


def _is_stateful(value: Any) -> bool:
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


def _address(value: Any) -> int:
    """The same for two names of one tensor."""
    return value.data_ptr() if isinstance(value, torch.Tensor) else id(value)


class Extras:
    """The attributes that a trainer keeps on itself beside what it registers, as they were before training.

    Plain values and modules are saved when they differ from that; other objects with a state dict always.
    """

    def __init__(self, trainer: Any) -> None:
        self._signatures: dict[str, Any] = {}
        self._frozen: dict[str, dict] = {}
        for name, value in self._own(trainer).items():
            if isinstance(value, nn.Module):
                self._frozen[name] = frozen_fingerprints(value)
            elif not _is_stateful(value):
                self._signatures[name] = self._signature(value)

    @staticmethod
    def _own(trainer: Any) -> dict[str, Any]:
        registered = {
            id(value) for group in (trainer._models, trainer._optims, trainer._scheds) for value in group.values()
        }
        return {
            name: value for name, value in vars(trainer).items() if name not in _ENGINE and id(value) not in registered
        }

    @staticmethod
    def _signature(value: Any) -> Any:
        try:
            return signature(value)
        except TypeError:
            return TypeError  # not a plain value: its own business

    def save(self, trainer: Any) -> dict[str, Any]:
        registered = {_address(t) for model in trainer._models.values() for t in model.state_dict().values()}
        saved: dict[str, Any] = {}
        for name, value in self._own(trainer).items():
            if isinstance(value, nn.Module):
                tensors = changed_tensors(value, self._frozen.get(name, {}))
                unregistered = {key: t for key, t in tensors.items() if _address(t) not in registered}
                if unregistered:
                    saved[name] = {"module": unregistered}
            elif _is_stateful(value):
                saved[name] = {"state": value.state_dict()}
            else:
                now = self._signature(value)
                if now is not TypeError and now != self._signatures.get(name, TypeError):
                    saved[name] = {"value": pack(value)}
        return saved

    @staticmethod
    def restore(trainer: Any, saved: Mapping[str, Any]) -> None:
        for name, entry in saved.items():
            if "value" in entry:
                setattr(trainer, name, unpack(entry["value"], trainer.device))
            elif not hasattr(trainer, name):
                raise ValueError(
                    f"{type(trainer).__name__} makes its attribute '{name}' only during training, so that its state"
                    f" cannot be restored: make it in build_model, or delete {RESUME_FILE} to start from scratch"
                )
            elif "state" in entry:
                load_object_state(getattr(trainer, name), entry["state"])
            else:
                getattr(trainer, name).load_state_dict(entry["module"], strict=False)


def save_resume(trainer: Any, path: Path) -> None:
    """Write the state of ``trainer`` at the end of an epoch."""
    state = {
        "format": _FORMAT,
        "epoch": trainer.epoch + 1,
        "config": trainer.cfg.dump(),
        "data": _data_of(trainer),
        "models": {name: changed_tensors(model, trainer._frozen[name]) for name, model in trainer._models.items()},
        "frozen": {name: {key: list(mark) for key, mark in marks.items()} for name, marks in trainer._frozen.items()},
        "optimizers": {name: optim and optim.state_dict() for name, optim in trainer._optims.items()},
        "schedulers": {name: sched and sched.state_dict() for name, sched in trainer._scheds.items()},
        "extras": trainer._extras.save(trainer),
        "best_result": trainer.best_result,
        "history": trainer.history,
        "rng": rng_state(),
    }
    torch_save(state, path)


def find_resume(directory: str | Path) -> Path | None:
    """The resume file in ``directory``. Model files of the older layout alone are named as not resumable."""
    directory = Path(directory)
    path = directory / RESUME_FILE
    if path.is_file():
        return path
    if any(directory.glob("*/checkpoint")):
        print(
            f"{directory} holds model files but no {RESUME_FILE}: they are weights without the optimizer's state,"
            " from which training cannot go on exactly. Training starts from scratch"
        )
    return None


def restore(trainer: Any, path: Path) -> int:
    """Put ``trainer`` into the state of ``path``; returns the epoch to go on with.

    Raises:
        ValueError: the file belongs to another configuration, to other data or frozen weights, or to another program
            version.
    """
    try:
        state = load_checkpoint(path)
    except ValueError as error:
        raise ValueError(f"{error}. Delete it to start from scratch") from error
    if state.get("format") != _FORMAT:
        raise ValueError(f"{path} is in a format that this version does not read: delete it to start from scratch")
    _check_config(state["config"], trainer.cfg, path)
    _check_data(state["data"], _data_of(trainer), path)
    if state["models"].keys() != trainer._models.keys():
        raise ValueError(
            f"{path} holds the models {', '.join(state['models'])}, the trainer has {', '.join(trainer._models)}:"
            " it is from another trainer; use another OUTPUT_DIR or delete it"
        )
    for name, model in trainer._models.items():
        _check_frozen(model, state["models"][name], state["frozen"][name], path)
        load_tensors(model, state["models"][name], state["frozen"][name], str(path))
        for group, target in (("optimizers", trainer._optims[name]), ("schedulers", trainer._scheds[name])):
            if target is not None:
                load_object_state(target, state[group][name])
    trainer._extras.restore(trainer, state["extras"])
    trainer.best_result = state["best_result"]
    trainer.history = state["history"]
    trainer.epoch = state["epoch"] - 1
    set_rng_state(state["rng"])
    return state["epoch"]


def copy_models(trainer: Any, source: Path, target: Path) -> None:
    """Bring model files along when a run goes on in another folder: its best model may be among them."""
    for name in trainer.get_model_names():
        if (source / name).is_dir() and source.resolve() != target.resolve():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)


def _check_frozen(model: nn.Module, saved: Mapping[str, Any], marks: Mapping[str, list[int]], path: Path) -> None:
    """Frozen weights are not in the file: they must be those that the run started with."""
    own = dict(model.named_parameters())
    other = [
        key for key, mark in marks.items() if key not in saved and key in own and list(fingerprint(own[key])) != mark
    ]
    if other:
        raise ValueError(
            f"The frozen weights are not those of the run in {path} ({len(other)} differ, first {other[0]}): was the"
            " backbone's file replaced, or did a GPU hold them in another precision? Go on as the run began, or delete"
            " the file to start from scratch"
        )


def _check_config(saved: str, cfg: Any, path: Path) -> None:
    """Raise a ValueError if the configurations differ in what is computed."""
    old = dict(flatten(yaml.safe_load(saved)))
    new = dict(flatten(yaml.safe_load(cfg.dump())))
    keys = [key for key in sorted(old.keys() | new.keys()) if key not in _FREE_KEYS]
    absent = "(not set)"
    lines = [
        f"{key}: {old.get(key, absent)!r} there, {new.get(key, absent)!r} now"
        for key in keys
        if key not in old or key not in new or old[key] != new[key]
    ]
    if lines:
        raise ValueError(
            f"{path} is the state of a run with another configuration:\n  " + "\n  ".join(lines) + "\nGive the same"
            " values to go on with it, another OUTPUT_DIR for a new run, or delete it to start from scratch"
        )


def _data_of(trainer: Any) -> dict[str, Any]:
    """What tells one training set from another that has the same configuration, wherever its folder lies."""
    return {"classes": [str(name) for name in trainer.lab2cname.values()], "batches": len(trainer.train_loader_x)}


def _check_data(saved: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raise a ValueError if the run had other classes or another number of batches."""
    if saved != now:
        there, here = (f"{len(d['classes'])} classes and {d['batches']} batches an epoch" for d in (saved, now))
        pairs = zip(saved["classes"], now["classes"], strict=False)
        other = [f"{old!r} is {new!r} now" for old, new in pairs if old != new]
        raise ValueError(
            f"{path} is the state of a run on other data: {there} there, {here} now"
            + (f", class {other[0]}" if other else "")
            + ". Was DATASET.ROOT changed? Use another OUTPUT_DIR, or delete it to start from scratch"
        )
