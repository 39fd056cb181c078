"""Finding the files of trained weights in the folder, or at the file, that a user gives."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from dassl.utils.checkpoints import last_checkpoint
from dassl.utils.names import first_few

__all__ = ["existing", "find_weights", "weights_below"]

BEST, PREFIX = "model-best.pth.tar", "model.pth.tar-"


def find_weights(given: str | Path, names: Sequence[str], epoch: int | None = None) -> dict[str, Path]:
    """The file of each registered model, which may be absent if ``epoch`` is given.

    Args:
        given: a run's folder, the folder of a registered model in it, or a file in that.
        names: of the registered models.
        epoch: which one; by default the best, or else the last saved.

    Raises:
        FileNotFoundError: no such folder, or no weights of these models in it; the message says what is there.
        ValueError: a file of another epoch, or a file ``checkpoint`` (the name of the last saved) that is damaged.
    """
    path = run = existing(given)
    if path.is_file():
        return _from_file(path, names, epoch)
    if not any((path / name).is_dir() for name in names):
        if path.absolute().name not in names or not _saved(path):
            raise FileNotFoundError(_no_weights(path, names))
        run = path.absolute().parent
    return {name: _in_folder(run / name, epoch) for name in names}


def existing(given: str | Path) -> Path:
    """The path, ``~`` expanded.

    Raises:
        FileNotFoundError: no such folder or file; the message has what is there instead.
    """
    path = Path(given).expanduser()
    if not path.exists():
        raise FileNotFoundError(_no_folder(path))
    return path


def weights_below(folder: str | Path) -> list[Path]:
    """Files of trained weights of any model of the run in ``folder``, or in ``folder`` itself."""
    path = Path(folder).expanduser()
    return sorted(file for place in [path, *path.glob("*/")] for file in _saved(place)) if path.is_dir() else []


def _saved(folder: Path) -> list[Path]:
    return [path for path in folder.glob("model*.pth.tar*") if path.is_file()]


def _from_file(path: Path, names: Sequence[str], epoch: int | None) -> dict[str, Path]:
    if epoch is not None and path.name != f"{PREFIX}{epoch}":
        raise ValueError(f"{path} is a file, so its epoch cannot be chosen: give its folder, or no epoch")
    if len(names) == 1:
        return {names[0]: path}
    run = path.absolute().parent.parent
    return {name: run / name / path.name for name in names}


def _in_folder(folder: Path, epoch: int | None) -> Path:
    if epoch is not None:
        return folder / f"{PREFIX}{epoch}"
    best = folder / BEST
    return best if best.is_file() or not (folder / "checkpoint").exists() else last_checkpoint(folder)


def _no_folder(path: Path) -> str:
    parent = next(folder for folder in path.absolute().parents if folder.is_dir())
    names = sorted(item.name for item in parent.iterdir() if not item.name.startswith("."))
    missing = path.absolute().relative_to(parent).parts[0]
    close = get_close_matches(missing, names, n=3, cutoff=0.6)
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    return f"No folder or file {path}: {parent} has no '{missing}'{hint}. It holds {first_few(names, 20) or 'nothing'}"


def _no_weights(path: Path, names: Sequence[str]) -> str:
    wanted = " or ".join(f"{name}/{PREFIX}<epoch>" for name in names)
    runs = sorted({str(found.parent) for name in names for found in path.glob(f"*/{name}/") if _saved(found)})
    if runs:
        return f"{path} has no {wanted}, but these runs in it have: {first_few(runs, 10)}. Give one of them"
    there = sorted(item.name for item in path.iterdir() if not item.name.startswith("."))
    return f"{path} has no {wanted}. It holds {first_few(there, 20) or 'nothing'}"
