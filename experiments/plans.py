"""Plans: protocols × methods × datasets × seeds × shots × settings, in a YAML file, and the jobs that they consist of.

``configs/experiments/`` has one for each published table::

    protocols: [base2new]                    # base2new, cross_dataset, domain_generalization, few_shot, zero_shot
    methods: [zsclip, coop, maple]           # names of experiments/methods.py
    datasets: [caltech101, eurosat]          # names of files in configs/datasets/
    seeds: [1, 2, 3]
    shots: [16]
    options:                                 # optional: settings of train.py
      OPTIM.MAX_EPOCH: 5                     # one value: for every run
      TRAINER.MAPLE.PROMPT_DEPTH: [1, 3, 9]  # a list: every combination gets a folder and a row of its own
"""

import itertools
import re
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from voluptuous import Invalid

from dassl.config.ranges import RANGES
from dassl.config.yaml_file import read_yaml
from dassl.utils.names import closest_hint
from experiments import protocols
from experiments.methods import METHODS, Method
from experiments.protocols import Job, Request
from experiments.runs import IMAGENET_VARIANTS, ROOT

__all__ = ["FOLDER", "PROTOCOLS", "Plan", "jobs", "read_plan"]

FOLDER = ROOT / "configs/experiments"
PROTOCOLS = ("base2new", "cross_dataset", "domain_generalization", "few_shot", "zero_shot")
SOURCE = "imagenet"  # what a transfer is trained on


@dataclass(frozen=True)
class Plan:
    """The content of a plan's file."""

    name: str
    protocols: tuple[str, ...]
    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    seeds: tuple[int, ...] = (1, 2, 3)
    shots: tuple[int, ...] = (16,)
    options: tuple[tuple[str, tuple[str, ...]], ...] = ()  # keys with their values, as words of a command line
    swept: frozenset[str] = frozenset()  # the keys whose values get folders of their own

    def settings(self, method: Method) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Every combination of values for a method: the folder that it gets ("" for the only one), KEY VALUE words.

        Settings of another trainer are left out, other than the one that the method is built on.
        """
        own = "|".join(re.escape(trainer.upper()) for trainer in (method.trainer, method.base) if trainer)
        of_others = re.compile(rf"TRAINER\.(?!(?:{own})\.)")
        options = [(key, values) for key, values in self.options if not of_others.match(key)]
        for values in itertools.product(*(values for _, values in options)):
            pairs = [(key, value) for (key, _), value in zip(options, values, strict=True)]
            folder = "_".join(f"{_short(key, self.swept)}_{_word(value)}" for key, value in pairs if key in self.swept)
            yield folder, tuple(word for pair in pairs for word in pair)


def _short(key: str, keys: Sequence[str] | frozenset[str]) -> str:
    """The last part of a key, or all of it where another key ends in the same."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def _word(value: str) -> str:
    """A value as part of a folder's name."""
    return "".join(c if c.isalnum() or c in "-+." else "-" for c in value).strip("-") or "empty"


# ---- reading ---------------------------------------------------------------------------------------------------


def read_plan(name: str) -> Plan:
    """The plan of a YAML file, given by its path or by its name in ``configs/experiments/``.

    Raises:
        FileNotFoundError: there is none; the message names the closest ones.
        ValueError: not YAML (see :func:`read_yaml`), or wrong entries, all of which are listed.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
        raise FileNotFoundError(f"no plan {path}{closest_hint(path.stem, known)} There are: {', '.join(known)}")
    content = read_yaml(path)
    problems: list[str] = []
    values = {key: _entry(key, content, problems) for key in _ENTRIES}
    problems += [f"{key}: no such entry{closest_hint(str(key), _ENTRIES)}" for key in content if key not in _ENTRIES]
    if problems:
        raise ValueError(f"{path}:\n  " + "\n  ".join(problems))
    options, swept = values.pop("options")
    return Plan(path.stem, **values, options=options, swept=swept)


def _entry(key: str, content: Mapping[Any, Any], problems: list[str]) -> Any:
    check, default = _ENTRIES[key]
    if key not in content:
        if default is None:
            problems.append(f"{key}: missing")
        return default
    return check(key, content[key], problems)


def _names(known: Callable[[], Sequence[str]]) -> Callable[[str, Any, list[str]], tuple[str, ...]]:
    """A check of a list of names."""

    def check(key: str, value: Any, problems: list[str]) -> tuple[str, ...]:
        names = tuple(value) if isinstance(value, list) else (value,)
        available = known()
        for name in names:
            if not isinstance(name, str) or name not in available:
                hint = closest_hint(str(name), available)
                problems.append(f"{key}: no '{name}'{hint} There are: {', '.join(available)}")
        return _once(key, names, problems)

    return check


def _whole_numbers(lowest: int) -> Callable[[str, Any, list[str]], tuple[int, ...]]:
    """A check of a list of whole numbers."""

    def check(key: str, value: Any, problems: list[str]) -> tuple[int, ...]:
        numbers = tuple(value) if isinstance(value, list) else (value,)
        if wrong := [n for n in numbers if type(n) is not int or n < lowest]:
            problems.append(f"{key}: {', '.join(map(repr, wrong))}; expected whole numbers from {lowest} on")
        return _once(key, numbers, problems)

    return check


def _once(key: str, values: tuple[Any, ...], problems: list[str]) -> tuple[Any, ...]:
    if not values:
        problems.append(f"{key}: an empty list")
    if len(set(map(str, values))) < len(values):
        problems.append(f"{key}: a value stands twice in {list(values)}")
    return values


def _options(key: str, value: Any, problems: list[str]) -> tuple[Any, frozenset[str]]:
    """Settings of train.py: {key: value, or a list of values}."""
    if not isinstance(value, Mapping):
        problems.append(f"{key}: {value!r:.80}; expected settings such as 'OPTIM.LR: [0.002, 0.0035]'")
        return (), frozenset()
    found, swept = [], set()
    for name, given in value.items():
        values = given if isinstance(given, list) else [given]
        if not isinstance(name, str) or "." not in name or any(isinstance(v, (Mapping, list)) for v in values):
            problems.append(
                f"{key}: {name}: {given!r:.80}; expected a setting of train.py with its value or a list of them"
            )
            continue
        problems += [f"{key}: {problem}" for value in values if (problem := _wrong_setting(name, value))]
        _once(f"{key}: {name}", tuple(values), problems)
        found.append((name, tuple(str(v) for v in values)))
        if isinstance(given, list):
            swept.add(name)
    return tuple(found), frozenset(swept)


def _wrong_setting(name: str, value: Any) -> str:
    """What is wrong with a setting; "" also for those of trainers, which only train.py knows."""
    if name.startswith("TRAINER."):
        return ""
    if name not in RANGES:
        return f"no setting '{name}'{closest_hint(name, RANGES)} docs/CONFIG.md lists them"
    if isinstance(value, str):
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = literal_eval(value)  # as train.py reads a word
    try:
        RANGES[name](value)
    except Invalid as error:
        return f"{name}: {value!r:.80}, expected {error.msg}"
    return ""


def _datasets() -> list[str]:
    return sorted(path.stem for path in (ROOT / "configs/datasets").glob("*.yaml"))


# Each entry's check, and its default (None: it must be there)
_ENTRIES: dict[str, tuple[Callable[[str, Any, list[str]], Any], Any]] = {
    "protocols": (_names(lambda: PROTOCOLS), None),
    "methods": (_names(lambda: list(METHODS)), None),
    "datasets": (_names(_datasets), None),
    "seeds": (_whole_numbers(0), (1, 2, 3)),
    "shots": (_whole_numbers(1), (16,)),
    "options": (_options, ((), frozenset())),
}


# ---- jobs ------------------------------------------------------------------------------------------------------


def jobs(plan: Plan, data: str = "./data", output: str = "output", options: Sequence[str] = ()) -> list[Job]:
    """The jobs of a plan, each once; a test comes after the training that it needs.

    Args:
        data, output: folders of the datasets and of all runs.
        options: further KEY VALUE words for every job.
    """
    found: dict[str, Job] = {}
    methods = [(METHODS[name], *settings) for name in plan.methods for settings in plan.settings(METHODS[name])]
    for protocol, dataset, (method, folder, settings), shots, seed in itertools.product(
        plan.protocols, plan.datasets, methods, plan.shots, plan.seeds
    ):
        words = (*settings, *options)
        request = Request(method, dataset, seed, shots, variant=folder, options=words, data=data, output=output)
        for job in _of_protocol(protocol, request):
            found.setdefault(job.folder, job)
    return list(found.values())


def _of_protocol(protocol: str, request: Request) -> Iterator[Job]:
    """The jobs of one protocol for one method, dataset, seed and number of shots."""
    if not request.method.trained and protocol != "base2new":
        protocol = "zero_shot"
    if protocol == "base2new":
        if not request.method.trained:
            request = replace(request, seed=1)  # nothing is drawn, so that one seed is all of them
        yield protocols.base2new_train(request)
        yield protocols.base2new_test(request)
    elif protocol == "few_shot":
        yield protocols.few_shot(request)
    elif protocol == "zero_shot":
        if not request.method.trained:
            yield protocols.zero_shot(request)
    elif request.dataset == SOURCE or (request.dataset in IMAGENET_VARIANTS) == (protocol == "domain_generalization"):
        source = protocols.xd_train(replace(request, dataset=SOURCE))
        yield source
        if request.dataset != SOURCE:
            yield protocols.xd_test(request)
