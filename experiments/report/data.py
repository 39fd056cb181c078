"""The runs of an output folder, and one row per finished run: the content of ``results.csv``."""

import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dassl.utils.files import read_json
from dassl.utils.results import read_results as read_results_file
from experiments.runs import Run
from experiments.states import JOB_FILE

__all__ = ["COLUMNS", "Found", "as_frame", "find_runs", "read_results", "run_of"]

RUN_FILES = {"results.json", "config.yaml", "log.txt", "resume.pth.tar", JOB_FILE}  # any of them marks a run folder
_MOST_BYTES = 2**20  # of a job.json
_LARGEST = 2**53  # number that every column can hold

# Column: its type. The first nine identify the run and come from its folder's name; `method` is Run.method.
COLUMNS = {
    **dict.fromkeys(("protocol", "stage", "trainer", "config", "variant", "method", "dataset", "source"), "object"),
    **{"shots": "Int64", "seed": "Int64", "reproduced": "bool"},
    **{"accuracy": "float64", "macro_f1": "float64", "top5_accuracy": "float64"},  # percent
    **{"correct": "Int64", "total": "Int64", "epoch": "Int64"},
    **{"learned_parameters": "Int64", "total_parameters": "Int64"},
    **{"train_seconds": "float64", "test_seconds": "float64", "peak_memory_bytes": "Int64"},
    **dict.fromkeys(("backbone", "split", "precision", "device", "torch", "numpy", "python", "platform"), "object"),
    **{"notes": "object"},  # sentences, with " | " between them
    **{"folder": "object"},  # relative to the output folder, with /
    **{"command": "object"},  # that a launcher started, "" where none has noted it
}


@dataclass(frozen=True)
class Found:
    """A run folder."""

    run: Run
    path: Path
    results: dict[str, Any] | None  # the content of results.json; None if the run is not finished
    broken: bool = False  # there is a results.json that is not that of a finished run

    @property
    def accuracy(self) -> float | None:
        return self.results["accuracy"] if self.results else None


def find_runs(output: str | Path) -> list[Found]:
    """Every run folder below ``output``, finished or not, in the order of their names.

    Raises:
        FileNotFoundError: there is no such folder, or no run in it.
    """
    output = Path(output)
    if not output.is_dir():
        raise FileNotFoundError(f"no folder {output}: name the OUTPUT folder of the runs")
    found = [_read(run, path) for run, path in sorted(_folders(output), key=lambda item: item[1])]
    if not found:
        raise FileNotFoundError(
            f"no runs in {output}: expected folders such as base2new/train_base/DATASET/shots_16/TRAINER/CONFIG/seed1. "
            "Name the OUTPUT folder of the runs, or make some: python -m experiments run demo"
        )
    return found


def _folders(output: Path) -> Iterator[tuple[Run, Path]]:
    for folder, below, files in os.walk(output, followlinks=True):
        below[:] = [name for name in below if not _leads_back(os.path.join(folder, name))]
        run = None if RUN_FILES.isdisjoint(files) else Run.parse(Path(folder).relative_to(output).as_posix())
        if run and max(abs(run.shots), run.seed or 0) < _LARGEST:
            below.clear()  # what a run keeps in folders of its own
            yield run, Path(folder)


def _leads_back(path: str) -> bool:
    """Whether a path is a link to a folder that holds it."""
    if not os.path.islink(path):
        return False
    here = Path(os.path.realpath(os.path.dirname(path)))
    return Path(os.path.realpath(path)) in (here, *here.parents)


def _read(run: Run, path: Path) -> Found:
    file = path / "results.json"
    results = read_results_file(file)
    return Found(run, path, results, broken=results is None and file.exists())


# ---- one row per finished run ----------------------------------------------------------------------------------


def read_results(output: str | Path) -> pd.DataFrame:
    """One row per finished run below ``output``, with the columns of :data:`COLUMNS`.

    Raises:
        FileNotFoundError: there is no such folder, or no run in it.
    """
    return as_frame(find_runs(output), output)


def as_frame(found: Iterable[Found], output: str | Path) -> pd.DataFrame:
    """The finished ones of ``found`` as :func:`read_results` returns them."""
    rows = [_row(item, item.results, Path(output)) for item in found if item.results is not None]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _row(found: Found, results: dict[str, Any], output: Path) -> dict[str, Any]:
    run, seconds, versions = found.run, _mapping(results.get("seconds")), _mapping(results.get("versions"))
    notes = results.get("notes")
    texts = ("backbone", "split", "precision", "device")
    floats = ("accuracy", "macro_f1", "top5_accuracy")
    counts = ("correct", "total", "epoch", "learned_parameters", "total_parameters", "peak_memory_bytes")
    return {
        **{name: getattr(run, name) for name in ("protocol", "stage", "trainer", "config", "variant", "method")},
        **{name: getattr(run, name) for name in ("dataset", "source", "shots", "seed", "reproduced")},
        **{name: _number(results.get(name)) for name in floats},
        **{name: _count(results.get(name)) for name in counts},
        **{f"{part}_seconds": _number(seconds.get(part)) for part in ("train", "test")},
        **{name: _text(results.get(name)) for name in texts},
        **{name: _text(versions.get(name)) for name in ("torch", "numpy", "python", "platform")},
        "notes": " | ".join(filter(None, map(_text, notes if isinstance(notes, list) else []))),
        "folder": found.path.relative_to(output).as_posix(),
        "command": _command(found.path / JOB_FILE),
    }


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1e300 < value < 1e300:  # nor NaN
        return None
    return float(value)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _command(file: Path) -> str:
    """The command that a launcher noted, with ``python`` for its interpreter; "" if there is none."""
    try:
        words = shlex.split(_text(_mapping(read_json(file, _MOST_BYTES)).get("command")))
    except (OSError, ValueError):
        return ""
    return shlex.join(["python", *words[1:]]) if words else ""


def run_of(row: Any) -> Run:
    """The run of a row: ``frame.itertuples()`` gives them."""
    seed = None if pd.isna(row.seed) else int(row.seed)
    return Run(
        *(row.stage, row.dataset, row.trainer, row.config, int(row.shots), seed),
        *(row.variant, row.source, bool(row.reproduced)),
    )
