"""Exact resume: one file, written atomically after every epoch, from which a run ends with the same bits.

It holds the registered models (as :func:`changed_tensors` keeps them), their optimizers and schedulers, the method's
own attributes (:class:`MethodAttributes`), the run's record, the state of all random generators and the configuration.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from dassl.config.merge import flatten
from dassl.engine.attributes import MethodAttributes
from dassl.engine.state import changed_tensors, fingerprint, load_tensors, rng_state, set_rng_state
from dassl.utils.torchtools import load_checkpoint, load_object_state, torch_save

__all__ = ["RESUME_FILE", "copy_models", "find_resume", "restore", "save_resume"]

RESUME_FILE = "resume.pth.tar"
_FORMAT = 3

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


def save_resume(trainer: Any, attributes: MethodAttributes, path: Path) -> None:
    """Write the state of ``trainer`` at the end of an epoch."""
    models = trainer.registered_models()
    state = {
        "format": _FORMAT,
        "epoch": trainer.epoch + 1,
        "config": trainer.cfg.dump(),
        "data": _data_of(trainer),
        "models": {entry.name: changed_tensors(entry.model, entry.frozen) for entry in models},
        "frozen": {entry.name: {key: list(mark) for key, mark in entry.frozen.items()} for entry in models},
        "optimizers": {entry.name: entry.optim and entry.optim.state_dict() for entry in models},
        "schedulers": {entry.name: entry.sched and entry.sched.state_dict() for entry in models},
        "attributes": attributes.save(trainer),
        "record": trainer.run_record.state_dict(),
        "rng": rng_state(),
    }
    torch_save(state, path)


def find_resume(directory: str | Path) -> Path | None:
    """The resume file in ``directory``, None if there is none. Says so if there are model files without one."""
    directory = Path(directory)
    path = directory / RESUME_FILE
    if path.is_file():
        return path
    if any(directory.glob("*/checkpoint")):
        print(
            f"{directory} holds model files but no {RESUME_FILE}: they are weights without the optimizer's state,"
            " from which training cannot resume exactly. Training starts from scratch"
        )
    return None


def restore(trainer: Any, attributes: MethodAttributes, path: Path) -> int:
    """Put ``trainer`` into the state of ``path``; returns the number of epochs that are done.

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
    models = trainer.registered_models()
    names = [entry.name for entry in models]
    if state["models"].keys() != set(names):
        raise ValueError(
            f"{path} holds the models {', '.join(state['models'])}, the trainer has {', '.join(names)}:"
            " it is from another trainer; use another OUTPUT_DIR or delete it"
        )
    for name, model, optim, sched, _ in models:
        _check_frozen(model, state["models"][name], state["frozen"][name], path)
        load_tensors(model, state["models"][name], state["frozen"][name], str(path))
        for group, target in (("optimizers", optim), ("schedulers", sched)):
            if target is not None:
                load_object_state(target, state[group][name])
    attributes.restore(trainer, state["attributes"], str(path))
    trainer.run_record.load_state_dict(state["record"])
    trainer.epoch = state["epoch"] - 1
    set_rng_state(state["rng"])
    return state["epoch"]


def copy_models(trainer: Any, source: Path, target: Path) -> None:
    """Copy model files when a run is resumed in another folder: its best model may be among them."""
    for name in trainer.get_model_names():
        if (source / name).is_dir() and source.resolve() != target.resolve():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)


def _check_frozen(model: nn.Module, saved: Mapping[str, Any], marks: Mapping[str, list[int]], path: Path) -> None:
    """Raise a ValueError unless the frozen weights, which are not in the file, are those that the run started with."""
    own = model.state_dict(keep_vars=True)
    other = [
        key for key, mark in marks.items() if key not in saved and key in own and list(fingerprint(own[key])) != mark
    ]
    if other:
        raise ValueError(
            f"The frozen weights are not those of the run in {path} ({len(other)} differ, first {other[0]}): was the"
            " backbone's file replaced, or did a GPU store them in another precision? Resume on the same device with"
            " the same backbone, or delete the file to start from scratch"
        )


def _check_config(saved: str, cfg: Any, path: Path) -> None:
    """Raise a ValueError if the configurations differ in what is computed."""
    old = dict(flatten(yaml.safe_load(saved)))
    new = dict(flatten(yaml.safe_load(cfg.dump())))
    free = _FREE_KEYS
    if new.get("TRAIN.RANDOMNESS") == "published":
        free = free - {"DATALOADER.NUM_WORKERS"}  # workers draw the crops
    keys = [key for key in sorted(old.keys() | new.keys()) if key not in free]
    absent = "(not set)"
    lines = [
        f"{key}: {old.get(key, absent)!r} there, {new.get(key, absent)!r} now"
        for key in keys
        if key not in old or key not in new or old[key] != new[key]
    ]
    if lines:
        raise ValueError(
            f"{path} is the state of a run with another configuration:\n  " + "\n  ".join(lines) + "\nUse the same"
            " values to resume it, another OUTPUT_DIR for a new run, or delete it to start from scratch"
        )


def _data_of(trainer: Any) -> dict[str, Any]:
    """What distinguishes training sets under one configuration, independently of their folder."""
    return {"classes": [str(name) for name in trainer.lab2cname.values()], "batches": len(trainer.train_loader_x)}


def _check_data(saved: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raise a ValueError if the run had other classes or another number of batches."""
    if saved != now:
        there, here = (f"{len(d['classes'])} classes and {d['batches']} batches per epoch" for d in (saved, now))
        pairs = zip(saved["classes"], now["classes"], strict=False)
        other = [f"{old!r} is {new!r} now" for old, new in pairs if old != new]
        raise ValueError(
            f"{path} is the state of a run on other data: {there} there, {here} now"
            + (f", class {other[0]}" if other else "")
            + ". Was DATASET.ROOT changed? Use another OUTPUT_DIR, or delete it to start from scratch"
        )
