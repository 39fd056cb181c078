"""Checkpoints: plain values and tensors with checksums, read without executing anything and checked at the door."""

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dassl.utils.files import atomic_write
from dassl.utils.names import first_few
from dassl.utils.object_state import load_object_state
from dassl.utils.safe_load import Placeholder, load_plain
from dassl.utils.schema import check, describe, whole
from dassl.utils.tensors import CHECKSUMS, check_checksums, misfit, tensor_checksums

SAFETENSORS = ".safetensors"

__all__ = [
    "check_matching",
    "last_checkpoint",
    "load_checkpoint",
    "plain_state",
    "resume_from_checkpoint",
    "save_checkpoint",
    "save_safetensors",
    "tensors_by_name",
    "torch_save",
    "without_module_prefix",
]


def plain_state(value: Any) -> Any:
    """Return ``value`` made of tensors, numbers, strings and plain containers only, which ``weights_only`` can load.

    An object with a ``state_dict`` is replaced by it. An object without a plain form becomes None.
    """
    if value is None or isinstance(value, (bool, int, float, str, bytes, complex)):
        return value
    if isinstance(value, torch.Tensor):
        return _compact(value.detach())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Mapping):
        return {key: plain_state(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(plain_state(item) for item in value)
    if isinstance(value, (list, set, frozenset)):
        return [plain_state(item) for item in value]
    if isinstance(value, (torch.device, torch.dtype, Path)):
        return str(value)
    if callable(getattr(value, "state_dict", None)):
        return plain_state(value.state_dict())
    return None


def _compact(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor, or a copy if it is a view of a larger one, all of which ``torch.save`` would write."""
    if tensor.layout == torch.strided and tensor.untyped_storage().nbytes() > tensor.nbytes:
        return tensor.clone()
    return tensor


def torch_save(state: Any, fpath: str | Path, checksums: bool = False) -> None:
    """``torch.save`` of :func:`plain_state`, atomically.

    Args:
        checksums: add those of the tensors to the state, a dict; :func:`load_checkpoint` compares and removes them.
    """
    state = plain_state(state)
    if checksums:
        state[CHECKSUMS] = tensor_checksums(state)
    with atomic_write(fpath) as file:
        torch.save(state, file)


def save_checkpoint(
    state: Mapping[str, Any],
    save_dir: str | Path,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> None:
    """Write ``<save_dir>/model.pth.tar-<state["epoch"]>`` (or ``model_name``), and its name into ``checkpoint``.

    Args:
        state: must hold ``state_dict`` and ``epoch``; anything but tensors and plain values is dropped.
        is_best: also write ``model-best.pth.tar``.
        remove_module_from_keys: strip the prefix ``module.`` that nn.DataParallel adds to names.
    """
    state = dict(state)
    if remove_module_from_keys:
        state["state_dict"] = without_module_prefix(state["state_dict"])
    name = model_name or f"model.pth.tar-{state['epoch']}"
    fpath = Path(save_dir) / name
    torch_save(state, fpath, checksums=True)
    print(f"Checkpoint saved to {fpath}")
    with atomic_write(Path(save_dir) / "checkpoint", "w") as file:
        file.write(f"{name}\n")
    if is_best:
        best = Path(save_dir) / "model-best.pth.tar"
        torch_save(state, best, checksums=True)
        print(f'Best checkpoint saved to "{best}"')


def without_module_prefix(state_dict: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """Return the state dict without the prefix ``module.`` in its names.

    Raises:
        ValueError: it holds a name both with the prefix and without.
    """
    stripped = OrderedDict((name.removeprefix("module."), value) for name, value in state_dict.items())
    if len(stripped) < len(state_dict):
        twice = next(name for name in state_dict if f"module.{name}" in state_dict)
        raise ValueError(f"The state dict holds both '{twice}' and 'module.{twice}': remove one of them")
    return stripped


def load_checkpoint(fpath: str | Path, need: Iterable[str] = ()) -> dict[str, Any]:
    """Return a checkpoint, with its tensors on the CPU. Nothing in the file is executed.

    A file ``*.safetensors`` is one of :func:`save_safetensors`, or holds the tensors of ``state_dict`` alone. Objects
    that were pickled into other files (the published checkpoints hold a scheduler) become inert placeholders.

    Args:
        need: entries that must be there; ``state_dict``, ``epoch`` and ``belongs_to`` are checked where they are.

    Raises:
        FileNotFoundError: there is no such file; the message lists the files in its folder.
        ValueError: the file is not a checkpoint, is truncated or otherwise damaged, or lacks an entry.
    """
    if fpath is None:
        raise ValueError("No checkpoint path was given (None)")
    path = Path(fpath)
    if not path.is_file():
        raise FileNotFoundError(f"No checkpoint at {path}. {_list_folder(path.parent)}")
    loaded = _load_safetensors(path) if path.suffix == SAFETENSORS else load_plain(path)
    if not isinstance(loaded, Mapping):
        raise ValueError(
            f"{path} holds {type(loaded).__name__}, expected a checkpoint: a dict with 'state_dict' and 'epoch'"
        )
    checkpoint = dict(loaded)
    checksums = checkpoint.pop(CHECKSUMS, None)
    check(checkpoint, _checkpoint_schema(need), str(path), "A checkpoint is a dict with 'state_dict' and 'epoch'")
    if checksums is not None:  # files of others have none
        try:
            check_checksums(checkpoint, checksums, path)
        except RecursionError:
            raise ValueError(f"{path} is not a checkpoint: its entries are nested too deeply") from None
    return checkpoint


def save_safetensors(state: Mapping[str, Any], fpath: str | Path) -> None:
    """Write a checkpoint as safetensors: ``state_dict`` as its tensors, the other entries as JSON in its metadata."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state["state_dict"].items()}
    others = {name: value for name, value in state.items() if name != "state_dict"}
    others[CHECKSUMS] = tensor_checksums({"state_dict": tensors})
    content = save({name: tensor.clone() for name, tensor in tensors.items()}, {"checkpoint": json.dumps(others)})
    with atomic_write(fpath) as file:
        file.write(content)


def _load_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            others = json.loads((file.metadata() or {}).get("checkpoint", "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} cannot be read as safetensors: it is cut, damaged or another file ({reason})"
        ) from error
    if not isinstance(others, dict):
        raise ValueError(f"{path}: the metadata 'checkpoint' hold {describe(others)}, expected a JSON object")
    return {**others, "state_dict": tensors}


def _checkpoint_schema(need: Iterable[str]) -> Any:
    """What this project reads of a checkpoint. Others' files have more entries, or fewer."""
    from voluptuous import ALLOW_EXTRA, Optional, Required, Schema
    from voluptuous import Any as OneOf

    known = {
        "state_dict": tensors_by_name,
        "epoch": OneOf(None, whole(0), msg="expected a whole number from 0 on"),
        "belongs_to": OneOf(None, {str: object}, msg="expected a dict"),
    }
    needed = set(need)
    entries = {(Required if name in needed else Optional)(name): known.get(name, object) for name in needed | {*known}}
    return Schema(entries, extra=ALLOW_EXTRA)


def tensors_by_name(value: Any) -> Any:
    """Validator of a state dict: a dict whose keys are strings."""
    from voluptuous import Invalid

    if not isinstance(value, Mapping):
        raise Invalid("expected a dict of tensors")
    if other := [key for key in value if not isinstance(key, str)]:
        raise Invalid(f"expected strings as names of tensors, not {describe(other[0])}")
    return value


def _list_folder(folder: Path) -> str:
    if not folder.is_dir():
        return f"The folder {folder} does not exist either"
    names = sorted(path.name for path in folder.iterdir())
    return f"In that folder: {', '.join(names) or 'nothing'}"


def last_checkpoint(folder: str | Path) -> Path:
    """The file that was saved last in ``folder``, which its file ``checkpoint`` names.

    Raises:
        FileNotFoundError: there is no file ``checkpoint``, or not the one that it names.
        ValueError: ``checkpoint`` does not hold the name of a file in the folder.
    """
    folder = Path(folder)
    pointer = folder / "checkpoint"
    if not pointer.is_file():
        raise FileNotFoundError(f"No file 'checkpoint' in {folder}. {_list_folder(folder)}")
    with open(pointer, "rb") as file:
        content = file.read(1000)
    try:
        name = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        name = ""
    if not name.isprintable() or len(name) > 200 or name in ("", ".", "..") or set(name) & set("/\\"):
        raise ValueError(
            f"{pointer} holds {describe(content)}, expected the name of a file in its folder, such as model.pth.tar-5:"
            f" write the name of the one to load into it. {_list_folder(folder)}"
        )
    if not (folder / name).is_file():
        raise FileNotFoundError(f"No checkpoint at {folder / name}, which {pointer} names. {_list_folder(folder)}")
    return folder / name


def resume_from_checkpoint(fdir: str | Path, model: nn.Module, optimizer: Any = None, scheduler: Any = None) -> int:
    """Load the checkpoint named in ``<fdir>/checkpoint``, and return the epoch to resume from.

    The states of the optimizer and the scheduler are restored; if the file does not hold one, a line is printed.
    """
    fpath = last_checkpoint(fdir)
    print(f'Loading checkpoint from "{fpath}"')
    checkpoint = load_checkpoint(fpath, need=("state_dict", "epoch"))
    state_dict = checkpoint["state_dict"]
    check_matching(state_dict, model.state_dict(keep_vars=True), fpath)
    try:
        model.load_state_dict(state_dict)
    except RuntimeError as error:
        raise ValueError(f"{fpath} does not fit the model: {error}") from error
    print("Loaded model weights")
    for name, target in (("optimizer", optimizer), ("scheduler", scheduler)):
        if target is None:
            continue
        state = checkpoint.get(name)
        if state is None or isinstance(state, Placeholder):
            print(f"The checkpoint holds no state of the {name}, which starts from its initial state")
        else:
            load_object_state(target, state, f"{fpath}, entry '{name}',")
            print(f"Loaded {name}")
    start_epoch = checkpoint["epoch"]
    if start_epoch is None:
        raise ValueError(f"{fpath} does not say how many epochs are done: its entry 'epoch' is None")
    print(f"Previous epoch: {start_epoch}")
    return start_epoch


def check_matching(state: Mapping[str, Any], own: Mapping[str, Any], path: Path) -> None:
    """Raise a ValueError unless each tensor of a file can be copied into the model's tensor of its name, if any."""
    pairs = [(name, value, own[name]) for name, value in state.items() if isinstance(own.get(name), torch.Tensor)]
    problems = [f"{name} {problem}" for name, value, tensor in pairs if (problem := misfit(value, tensor))]
    if problems:
        raise ValueError(f"{path} does not fit the model: {first_few(problems)}")
