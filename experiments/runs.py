"""Run folders: the parts that a folder's name is made of, and the state of the run in it."""

import os
import re
import time
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from dassl.config.saved import IRRELEVANT, saved_settings
from dassl.config.yaml_file import MOST_BYTES
from dassl.utils.results import read_results

__all__ = [
    "DEMONSTRATION",
    "IMAGENET_VARIANTS",
    "ROOT",
    "Run",
    "Status",
    "read_settings",
    "run_settings",
    "run_status",
    "same",
    "transfer_protocol",
    "unless_changed",
]

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]  # commands run here; relative folders start here
DEMONSTRATION = "emoji"  # the dataset that is part of the repository
IMAGENET_VARIANTS = ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")

BASE2NEW_STAGES = ("train_base", "test_base", "test_new", "test_all")
STAGES = (*BASE2NEW_STAGES, "all_classes", "evaluation", "zero_shot")
ZERO_SHOT_PREFIX = "Zeroshot"  # of the trainers whose runs on all classes have neither shots nor seed
PATHS = ("DATASET.ROOT", "MODEL.BACKBONE.NAME")  # may hold a path: relative ones start at the repository's root
_RECENT = 2.0  # seconds after a write in which a file may change again without a change of its time
STARTED = ("config.yaml", "resume.pth.tar")  # written once data and model are built, right before the first step


def transfer_protocol(dataset: str) -> str:
    """What testing weights from ImageNet on ``dataset`` is called."""
    return "domain_generalization" if dataset in IMAGENET_VARIANTS else "cross_dataset"


# ---- folders ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What identifies a run, and with it the run's folder: ``Run.parse(run.folder) == run``.

    Stages: ``train_base`` and ``test_*`` belong to base-to-new; ``all_classes`` trains on all classes (few-shot
    curves, and the source of a transfer); ``evaluation`` tests those weights on another dataset; ``zero_shot`` tests
    on all classes without training.

    Raises:
        ValueError: an unknown stage.
    """

    stage: str
    dataset: str  # name of its YAML file
    trainer: str
    config: str
    shots: int  # training images per class, -1 for all of them; 0 for zero_shot
    seed: int | None = None
    variant: str = ""  # folder between config and seed: settings that are not the config's, such as CoOp's main.sh has
    source: str = ""  # of an evaluation: the dataset that the weights were trained on
    reproduced: bool = False  # a test of downloaded weights

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"no stage '{self.stage}' of a protocol. There are: {', '.join(STAGES)}")

    @property
    def folder(self) -> str:
        """Where the run is, below the output folder."""
        if self.stage in BASE2NEW_STAGES:
            parts = ["base2new", self.stage, self.dataset, f"shots_{self.shots}"]
            parts += [self.trainer, self.config, self.variant]
        elif self.stage == "all_classes":
            parts = [self.dataset, self.trainer, f"{self.config}_{self.shots}shots", self.variant]
        elif self.stage == "evaluation":
            tree = "evaluation" if self.source == "imagenet" else f"evaluation_{self.source}"
            parts = [tree, self.trainer, f"{self.config}_{self.shots}shots", self.variant, self.dataset]
        else:
            parts = [self.trainer, self.config, self.variant, self.dataset]
        seed = "" if self.seed is None else f"seed{self.seed}"
        return "/".join(part for part in ["reproduce" if self.reproduced else "", *parts, seed] if part)

    @classmethod
    def parse(cls, folder: str) -> "Run | None":
        """The run whose folder this is, relative to the output folder; None if it is not the folder of a run."""
        parts = folder.split("/")
        reproduced = parts[0] == "reproduce"
        if reproduced:
            del parts[0]
        seed = int(parts.pop()[4:]) if parts and re.fullmatch(r"seed\d+", parts[-1]) else None
        match parts:
            case ["base2new", stage, dataset, shots, trainer, config, *variant] if stage in BASE2NEW_STAGES:
                number = re.fullmatch(r"shots_(-?\d+)", shots)
                if not number:
                    return None
                run = cls(stage, dataset, trainer, config, int(number[1]))
            case [tree, trainer, config, *variant, dataset] if re.match(r"evaluation(_|$)", tree):
                if not (named := _config_and_shots(config)):
                    return None
                run = cls("evaluation", dataset, trainer, *named, source=tree.partition("_")[2] or "imagenet")
            case [dataset, trainer, config, *variant] if named := _config_and_shots(config):
                run = cls("all_classes", dataset, trainer, *named)
            case [trainer, config, *variant, dataset] if trainer.startswith(ZERO_SHOT_PREFIX):
                run = cls("zero_shot", dataset, trainer, config, 0)
            case _:
                return None
        return replace(run, seed=seed, variant="/".join(variant), reproduced=reproduced)

    @property
    def protocol(self) -> str:
        """The table that the run belongs to."""
        if self.stage in BASE2NEW_STAGES:
            return "base2new"
        if self.stage == "evaluation":
            return transfer_protocol(self.dataset)
        return "few_shot" if self.stage == "all_classes" else "zero_shot"

    @property
    def method(self) -> str:
        """The name of its row in a table: Trainer/config, and the variant."""
        name = "/".join(part for part in (self.trainer, self.config, self.variant) if part)
        return f"reproduced {name}" if self.reproduced else name


def _config_and_shots(name: str) -> tuple[str, int] | None:
    match = re.fullmatch(r"(.+)_(-?\d+)shots", name)
    return (match[1], int(match[2])) if match else None


# ---- state -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Status:
    """The state of a run folder."""

    state: Literal["new", "unfinished", "finished"]
    accuracy: float | None = None  # of a finished run, in percent; None if it was not tested
    differences: tuple[str, ...] = ()  # a line for each setting in which a finished run differs from the one asked for


def run_status(
    folder: Path, config_files: Sequence[Path] = (), options: Sequence[str] = (), epoch: int | None = None
) -> Status:
    """The state of the run in ``folder``, and how it differs from a run with these settings.

    Args:
        folder: the run folder.
        config_files: YAML files of the run asked for; later ones win.
        options: its KEY VALUE pairs, which win over the files.
        epoch: the epoch whose weights it tests.
    """
    results = _read_finished(folder / "results.json")
    if results is None:
        return Status("unfinished" if any((folder / name).exists() for name in STARTED) else "new")
    wanted = {key: value for file in config_files for key, value in read_settings(file).items()}
    wanted.update(zip(options[0::2], options[1::2], strict=True))
    differences = list(_differences(folder, results, wanted)) if wanted else []
    if epoch is not None and results.epoch not in (None, epoch):
        differences.append(f"epoch: the run tested {results.epoch}, now {epoch} is asked for")
    return Status("finished", results.accuracy, tuple(differences))


def run_settings(folder: Path) -> Mapping[str, Any] | None:
    """The leaves of a run's merged settings, as {"OPTIM.LR": value}; None if it has not started.

    They are in results.json once it has finished, and in config.yaml from its start on. The latter takes a hundred
    times longer to read, and is read for runs that are not finished, or whose results.json has no settings.

    Raises:
        OSError, ValueError: see :func:`read_settings`.
    """
    return _settings(folder, _read_finished(folder / "results.json"))


def _settings(folder: Path, results: "_Finished | None") -> Mapping[str, Any] | None:
    if results and results.settings is not None:
        return results.settings
    file = folder / "config.yaml"
    return read_settings(file) if file.is_file() else None


def unless_changed(read: Callable[[Path], T]) -> Callable[[Path], T]:
    """``read``, called again for a file or folder only once that has changed: its number, size or time has.

    What it returns is shared by all callers.
    """
    remembered = lru_cache(maxsize=256)(lambda path, *stamp: read(path))

    @wraps(read)
    def reading(path: Path) -> T:
        try:
            found = os.stat(path)
        except OSError:
            return read(path)
        if time.time() - found.st_mtime < _RECENT:
            return read(path)
        return remembered(path, found.st_ino, found.st_size, found.st_mtime_ns)

    return reading


@unless_changed
def read_settings(path: Path) -> Mapping[str, Any]:
    """The leaves of a YAML file as {"OPTIM.LR": value}; empty if the file is.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not valid YAML, or not a configuration.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file")
    with open(path, "rb") as file:
        return saved_settings(file.read(MOST_BYTES + 1), str(path))


class _Finished(NamedTuple):
    """What is compared of a finished run."""

    accuracy: float | None
    epoch: int | None
    settings: Mapping[str, Any] | None


@unless_changed
def _read_finished(path: Path) -> _Finished | None:
    results = read_results(path)
    if results is None:
        return None
    settings = results.get("settings")
    return _Finished(results["accuracy"], results.get("epoch"), settings if isinstance(settings, dict) else None)


def _differences(folder: Path, results: _Finished, wanted: Mapping[str, Any]) -> Iterator[str]:
    try:
        found = _settings(folder, results)
    except (OSError, ValueError):
        return
    if found is None:
        return
    irrelevant = set(IRRELEVANT)
    if found.get("TRAIN.RANDOMNESS") == "published":
        irrelevant.remove("DATALOADER.NUM_WORKERS")  # the worker processes draw the crops
    for key, value in wanted.items():
        if key not in irrelevant and not same(key, found.get(key), value):
            yield f"{key}: the run has {found.get(key)}, now {value} is asked for"


def same(key: str, a: Any, b: Any) -> bool:
    """Whether two values of a key mean the same: "(1, 2)" and [1, 2], "1e-5" and 0.00001, two paths of one folder."""
    return a == b or _comparable(key, a) == _comparable(key, b)


def _comparable(key: str, value: Any) -> Any:
    if isinstance(value, str) and key in PATHS:
        return os.path.realpath(ROOT / os.path.expanduser(value))
    value = _literal(value) if isinstance(value, str) else value
    return list(value) if isinstance(value, tuple) else value


@lru_cache(maxsize=4096)
def _literal(text: str) -> Any:
    """What a Python literal means, the text itself if it is none."""
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
