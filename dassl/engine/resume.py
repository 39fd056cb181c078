"""Exact resume: one file, written atomically after every epoch, from which a run ends with the same bits.

It holds the registered models (as :func:`changed_tensors` keeps them), their optimizers and schedulers, the method's
own attributes (:class:`MethodAttributes`), the run's record, the state of all random generators and the configuration.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from dassl.config.defaults import default_tree
from dassl.config.saved import IRRELEVANT, saved_settings
from dassl.data.identity import identify
from dassl.engine.attributes import MethodAttributes
from dassl.engine.base import RegisteredModel
from dassl.engine.record import record_schema
from dassl.engine.rng import rng_schema, rng_state, set_rng_state
from dassl.engine.state import changed_tensors, fingerprint, load_tensors
from dassl.utils.checkpoints import load_checkpoint, tensors_by_name, torch_save
from dassl.utils.object_state import load_object_state
from dassl.utils.schema import check, whole

__all__ = ["RESUME_FILE", "copy_models", "find_resume", "restore", "save_resume"]

RESUME_FILE = "resume.pth.tar"
_FORMAT = 4

#: Keys that may differ between a run and its continuation
_FREE_KEYS = {"OUTPUT_DIR", "RESUME", "DATASET.ROOT", *IRRELEVANT}


def save_resume(trainer: Any, attributes: MethodAttributes, path: Path) -> None:
    """Write the state of ``trainer`` at the end of an epoch."""
    models = trainer.registered_models()
    state = {
        "format": _FORMAT,
        "epoch": trainer.epoch + 1,
        "config": trainer.run_record.config or trainer.cfg.dump(),
        "data": data_of(trainer),
        "models": {entry.name: changed_tensors(entry.model, entry.frozen) for entry in models},
        "frozen": {entry.name: {key: list(mark) for key, mark in entry.frozen.items()} for entry in models},
        "optimizers": {entry.name: entry.optim and entry.optim.state_dict() for entry in models},
        "schedulers": {entry.name: entry.sched and entry.sched.state_dict() for entry in models},
        "attributes": attributes.save(trainer),
        "record": trainer.run_record.state_dict(),
        "rng": rng_state(trainer.device),
    }
    torch_save(state, path, checksums=True)


def find_resume(directory: str | Path) -> Path | None:
    """The resume file in ``directory``, None if there is none. Says so if there are model files without one.

    Raises:
        ValueError: something other than a file has its name.
    """
    directory = Path(directory)
    path = directory / RESUME_FILE
    if path.is_file():
        return path
    if path.exists():
        raise ValueError(f"{path} is not a file: delete it to start from scratch")
    if any(directory.glob("*/checkpoint")):
        print(
            f"{directory} holds model files but no {RESUME_FILE}: they are weights without the optimizer's state,"
            " from which training cannot resume exactly. Training starts from scratch"
        )
    return None


def restore(trainer: Any, attributes: MethodAttributes, path: Path) -> int:
    """Put ``trainer`` into the state of ``path``; returns the number of epochs that are done.

    The file is checked against a schema before anything of it is used.

    Raises:
        ValueError: the file is damaged, or belongs to another configuration, to other data or frozen weights, or to
            another program version.
    """
    advice = "Delete it to start from scratch"
    try:
        state = load_checkpoint(path)
    except ValueError as error:
        raise ValueError(f"{error}. {advice}") from error
    if state.get("format") != _FORMAT:
        raise ValueError(f"{path} is in a format that this version does not read: delete it to start from scratch")
    check(state, _schema(), str(path), advice)
    _check_config(state["config"], trainer.cfg, path)
    _check_data(state["data"], data_of(trainer), trainer.cfg.SEED, path)
    models = trainer.registered_models()
    names = [entry.name for entry in models]
    if state["models"].keys() != set(names):
        raise ValueError(
            f"{path} holds the models {', '.join(state['models'])}, the trainer has {', '.join(names)}:"
            " it is from another trainer; use another OUTPUT_DIR or delete it"
        )
    check(state, _schema(models, trainer.max_epoch), str(path), advice)
    for name, model, optim, sched, frozen in models:
        _check_frozen(model, state["models"][name], state["frozen"][name], path)
        load_tensors(model, state["models"][name], frozen, str(path))
        for group, target in (("optimizers", optim), ("schedulers", sched)):
            if target is not None:
                load_object_state(target, state[group][name], f"{path}, entry '{group}.{name}',")
    attributes.restore(trainer, state["attributes"], str(path))
    trainer.run_record.load_state_dict(state["record"])
    trainer.epoch = state["epoch"] - 1
    set_rng_state(state["rng"], f"{path}, entry 'rng',")
    return state["epoch"]


def _schema(models: Sequence[RegisteredModel] = (), max_epoch: float = math.inf) -> Any:
    """What a state looks like, apart from what models, optimizers, schedulers and attributes take.

    Args:
        models: of the trainer that is resumed, once it is known that the state has the same.
        max_epoch: of that trainer.
    """
    from voluptuous import All, Invalid, Required
    from voluptuous import Any as OneOf

    names: list[Any] = [Required(entry.name) for entry in models] or [str]
    frozen: dict[Any, Any] = {Required(m.name): {Required(key): [int] for key in m.frozen} for m in models}

    def history_of_the_epochs(state: dict[str, Any]) -> dict[str, Any]:
        rows = [row["epoch"] for row in state["record"]["history"]]
        if not rows or rows != list(range(state["epoch"] - len(rows) + 1, state["epoch"] + 1)):
            raise Invalid(f"expected a row for each epoch up to {state['epoch']}", ["record", "history"])
        return state

    entries = {
        "format": _FORMAT,
        "epoch": whole(1, max_epoch),
        "config": str,
        "data": {
            Required("classes"): [str],
            Required("batches"): whole(0),
            Required("images"): {str: {Required("images"): whole(0), Required("digest"): str}},
        },
        "models": dict.fromkeys(names, tensors_by_name),
        "frozen": frozen or {str: {str: [int]}},
        "optimizers": dict.fromkeys(names, object),
        "schedulers": dict.fromkeys(names, object),
        "attributes": {
            str: OneOf(
                {Required("value"): object},
                {Required("state"): dict},
                {Required("module"): tensors_by_name},
                msg="expected an attribute",
            )
        },
        "record": record_schema(),
        "rng": rng_schema(),
    }
    of_entries = {Required(name): schema for name, schema in entries.items()}
    return All(of_entries, history_of_the_epochs) if max_epoch < math.inf else of_entries


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
    """Raise a ValueError if the configurations differ in what is computed.

    A key that the engine did not have yet when the run began has its default there.
    """
    now = cfg.dump()
    if saved == now:
        return
    new = saved_settings(now, "The configuration")
    usual = saved_settings(default_tree().dump(), "The defaults")
    old = {key: value for key, value in usual.items() if key in new}
    old |= saved_settings(saved, f"{path}, entry 'config',")
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


def data_of(trainer: Any) -> dict[str, Any]:
    """What distinguishes training sets under one configuration, independently of their folder; looked up once a run.

    The images are those of a data manager's dataset: the labelled and the unlabelled training images, and the
    validation images where they select the best model.
    """
    record = trainer.run_record
    if record.data is None:
        lists = ["train_x", "train_u", *(["val"] if trainer.cfg.TEST.FINAL_MODEL == "best_val" else [])]
        dataset = getattr(trainer.dm, "dataset", None)
        found = {name: getattr(dataset, name, None) for name in lists}
        record.data = {
            "classes": [str(name) for name in trainer.lab2cname.values()],
            "batches": len(trainer.train_loader_x),
            "images": {name: identify(items) for name, items in found.items() if items},
        }
    return record.data


def _check_data(saved: Mapping[str, Any], now: Mapping[str, Any], seed: int, path: Path) -> None:
    """Raise a ValueError if the run had other classes or images, or another number of batches."""
    if saved == now:
        return
    there, here = (f"{len(d['classes'])} classes and {d['batches']} batches per epoch" for d in (saved, now))
    pairs = zip(saved["classes"], now["classes"], strict=False)
    details = [f"class {old!r} is {new!r} now" for old, new in pairs if old != new][:1]
    if details or there != here:
        details.insert(0, f"{there} there, {here} now")
    for name in sorted(saved["images"].keys() | now["images"].keys()):
        old, new = (d["images"].get(name, {"images": 0}) for d in (saved, now))
        if old["images"] != new["images"]:
            details.append(f"{old['images']} images in {name} there, {new['images']} now")
        elif old != new:
            details.append(f"other images in {name}: their names, labels, order or file sizes differ")
    cause = (
        "SEED is negative, so that every start draws other shots: give a SEED from 0 on for a run that can be resumed"
        if seed < 0
        else "Was DATASET.ROOT changed, or were images added, removed or replaced?"
    )
    raise ValueError(
        f"{path} is the state of a run on other data: {', '.join(details)}."
        f" {cause} Use another OUTPUT_DIR, or delete it to start from scratch"
    )
