"""The arguments and environment variables of the shell entries, turned into jobs: one function per entry."""

import itertools
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dassl.utils.names import check_availability
from experiments import protocols
from experiments.methods import METHODS
from experiments.options import split_options
from experiments.protocols import Job, Method, Request
from experiments.runs import DEMONSTRATION, ROOT

__all__ = ["ENTRIES", "Call", "UsageError", "listed", "numbers", "script_of", "training_command"]

SHOTS, SEEDS = "1 2 4 8 16", "1 2 3"  # of a few-shot curve
SETTINGS = ("DATA", "OUTPUT", "CFG", "SHOTS", "TRAINER")  # environment variables that a training depends on


class UsageError(ValueError):
    """Wrong arguments; the message says which ones the entry takes."""


@dataclass(frozen=True)
class Call:
    """How an entry was called."""

    script: str  # its path as it was typed, for messages
    entry: str  # its name in ENTRIES
    folder: str  # the caller's current folder, where relative folders start
    method: Method
    environment: Mapping[str, str]

    def get(self, name: str, default: str = "") -> str:
        """An environment variable; the default if it is absent or empty."""
        return self.environment.get(name) or default

    def path(self, path: str) -> str:
        """A path given by the caller, as seen from the repository's root; ``~`` is the home folder."""
        path = os.path.expanduser(path)
        if not os.path.isabs(path) and not os.path.samefile(self.folder, ROOT):
            path = f"{self.folder}/{path}"
        return path.rstrip("/") or "/"

    def number(self, name: str, smallest: int) -> int | None:
        """An environment variable that holds a whole number; None if it is absent.

        Raises:
            ValueError: it holds something else.
        """
        value = self.get(name)
        if value and (not re.fullmatch(r"-?[0-9]{1,9}", value) or int(value) < smallest):
            raise ValueError(f"{name} is '{value}', expected a whole number from {smallest} on")
        return int(value) if value else None

    @property
    def dry_run(self) -> bool:
        value = self.get("DRY_RUN", "0")
        if value not in ("0", "1"):
            raise ValueError(f"DRY_RUN is '{value}', expected 1 (print the commands only) or 0")
        return value == "1"

    def usage(self, arguments: str, problem: str = "") -> UsageError:
        return UsageError(
            f"{f'error: {problem}' + chr(10) if problem else ''}usage: bash {self.script} {arguments} [KEY VALUE ...]"
            "     (DRY_RUN=1 prints the commands; scripts/run.sh lists the settings)"
        )

    def command(self, method: str, entry: str, words: Sequence[str], **settings: str) -> str:
        """The shell command of an entry with these arguments and this call's settings, for messages."""
        given = {name: self.get(name) for name in SETTINGS if self.get(name)} | settings
        script = script_of(method, entry)
        if not os.path.samefile(self.folder, ROOT):
            script = f"{ROOT}/{script}"
        prefix = [f"{name}={shlex.quote(value)}" for name, value in given.items()]
        return " ".join([*prefix, "bash", *map(shlex.quote, [script, *words])])

    def request(self, dataset: str, words: Iterable[str], **given: Any) -> Request:
        """The request that these arguments, KEY VALUE pairs and the environment make."""
        shots = given.pop("shots") if "shots" in given else self.number("SHOTS", smallest=-1)
        if shots == 0:
            raise ValueError("SHOTS is '0', expected a number of images per class from 1 on, or -1 for all of them")
        pairs, switches = split_options([*words])
        settings: dict[str, Any] = {
            "shots": 16 if shots is None else shots,
            "config": self.get("CFG"),
            "classes": self.get("SUB", "new"),
            "source": self.get("SOURCE", "imagenet"),
            "epoch": self.number("LOADEP", smallest=0),
            "data": self.path(self.get("DATA")) if self.get("DATA") else "./data",
            "output": self.path(self.get("OUTPUT")) if self.get("OUTPUT") else "output",
        }
        return Request(self.method, dataset, options=pairs, switches=switches, **settings | given)

    def dataset_and_seed(self, words: Sequence[str]) -> Request:
        """The request for the arguments ``DATASET SEED [KEY VALUE ...]``; without any, the demonstration's."""
        if not words:
            print(f"No dataset given: the embedded demonstration, {self.script} {DEMONSTRATION} 1")
            words = (DEMONSTRATION, "1")
        if len(words) < 2:
            raise self.usage("DATASET SEED")
        self.check_seed(words[0], words[1], words[2:], "DATASET SEED")
        return self.request(words[0], words[2:], seed=int(words[1]))

    def check_seed(self, dataset: str, seed: str, others: Sequence[str], arguments: str) -> None:
        """Check that there is one dataset, and one seed that is a whole number.

        Raises:
            UsageError: it is not so; for several of them, the message has the command of the sweep.
        """
        more = [*itertools.takewhile(_is_number, others)]
        seeds = [*numbers(seed), *map(int, more)]
        if seeds and (len(seeds) > 1 or len(listed(dataset)) > 1):
            words = [self.method.name, self.entry, dataset, " ".join(map(str, seeds)), *others[len(more) :]]
            sweep = self.command("", "sweep", words)
            raise self.usage(arguments, f"one dataset and one seed at a time. For several: {sweep}")
        if not _is_number(seed):
            raise self.usage(arguments, f"SEED is '{seed}', expected a whole number")


def _is_number(word: str) -> bool:
    return re.fullmatch("[0-9]{1,9}", word) is not None


def listed(words: str) -> list[str]:
    """The words of a list such as "dtd eurosat" or "dtd,eurosat"."""
    return re.findall(r"[^\s,]+", words)


def numbers(words: str) -> list[int]:
    """The numbers of a list such as "1 2 3" or "1,2,3"; empty if it is something else."""
    return [int(word) for word in listed(words)] if all(map(_is_number, listed(words))) else []


def script_of(method: str, entry: str) -> str:
    """The path of an entry's script below the repository's root: scripts/vpt/base2new_train_vpt.sh."""
    suffix = METHODS[method].script_suffix if method in METHODS else ""
    names = [entry, f"{entry}_{suffix}"]
    paths = [f"scripts/{method}/{name}.sh" if method else f"scripts/{name}.sh" for name in names]
    return next((path for path in paths if (ROOT / path).is_file()), paths[0])


# ---- entries ---------------------------------------------------------------------------------------------------


def _one_run(make: Callable[[Request], Job]) -> Callable[[Call, Sequence[str]], list[Job]]:
    """An entry with the arguments DATASET SEED that makes one run."""
    return lambda call, words: [make(call.dataset_and_seed(words))]


def xd_train(call: Call, words: Sequence[str]) -> list[Job]:
    """[DATASET] SEED: ImageNet unless another dataset is given."""
    if words and numbers(words[0]):
        words = ("imagenet", *words)
    return [protocols.xd_train(call.dataset_and_seed(words))]


def few_shot(call: Call, words: Sequence[str]) -> list[Job]:
    """DATASET ["SHOTS ..."] ["SEED ..."]"""
    if not words:
        raise call.usage('DATASET ["SHOTS ..."] ["SEED ..."]')
    dataset, *options = words
    lists = []
    for name, default in (("SHOTS", call.get("SHOTS", SHOTS)), ("SEEDS", call.get("SEEDS", SEEDS))):
        lists.append(_list_of(name, options.pop(0) if options and numbers(options[0]) else default))
    return [
        protocols.few_shot(call.request(dataset, options, shots=shots, seed=seed))
        for shots in lists[0]
        for seed in lists[1]
    ]


def zero_shot(call: Call, words: Sequence[str]) -> list[Job]:
    """DATASET [CONFIG]"""
    if not words:
        raise call.usage("DATASET [CONFIG]")
    dataset, *options = words
    is_config = options and not re.search("^-|[.=]", options[0]) and not (options[0].isupper() and options[1:])
    config = {"config": options.pop(0)} if is_config else {}
    return [protocols.zero_shot(call.request(dataset, options, **config))]


def _downloaded(make: Callable[[Request, str], list[Job]]) -> Callable[[Call, Sequence[str]], list[Job]]:
    """An entry with the arguments DATASET SEED WEIGHTS_FOLDER that tests downloaded weights."""

    def jobs(call: Call, words: Sequence[str]) -> list[Job]:
        arguments = "DATASET SEED WEIGHTS_FOLDER"
        if len(words) < 3:
            raise call.usage(arguments)
        dataset, seed, folder, *options = words
        call.check_seed(dataset, seed, [], arguments)
        request = call.request(dataset, options, seed=int(seed))
        folder = call.path(folder)
        try:
            weights = protocols.find_weights(folder, dataset, int(seed))
        except ValueError:
            if not call.dry_run:
                raise
            weights = protocols.weight_folders(folder, dataset, int(seed))[0]  # not downloaded yet
        return make(request, weights)

    return jobs


# CoOp's main.sh and eval.sh take settings as arguments; a folder between config and seed is named after them


def coop_main(call: Call, words: Sequence[str]) -> list[Job]:
    """DATASET CFG CTP NCTX SHOTS CSC"""
    if len(words) < 6 or not (_is_number(words[3]) and _is_number(words[4])):
        raise call.usage("DATASET CFG CTP NCTX SHOTS CSC")
    dataset, config, position, n_ctx, shots, csc, *options = words
    check_availability(position, ("end", "middle", "front"), "CTP")
    check_availability(csc, ("True", "False"), "CSC")
    return [
        protocols.few_shot(_coop(call, dataset, config, n_ctx, csc, position, options, shots=int(shots), seed=seed))
        for seed in _list_of("SEEDS", call.get("SEEDS", SEEDS))
    ]


def coop_eval(call: Call, words: Sequence[str]) -> list[Job]:
    """DATASET CFG"""
    if len(words) < 2:
        raise call.usage("DATASET CFG")
    dataset, config, *options = words
    return [
        protocols.xd_test(_coop(call, dataset, config, _n_ctx(call), "False", "end", options, seed=seed))
        for seed in _list_of("SEEDS", call.get("SEEDS", SEEDS))
    ]


def _coop(
    call: Call, dataset: str, config: str, n_ctx: str, csc: str, position: str, options: list[str], **given: Any
) -> Request:
    own = ["TRAINER.COOP.N_CTX", n_ctx, "TRAINER.COOP.CSC", csc, "TRAINER.COOP.CLASS_TOKEN_POSITION", position]
    variant = f"nctx{n_ctx}_csc{csc}_ctp{position}"
    return call.request(dataset, own + options, config=config, variant=variant, **given)


def _n_ctx(call: Call) -> str:
    return str(call.number("NCTX", smallest=1) or 16)


def _list_of(name: str, words: str) -> list[int]:
    if not (found := numbers(words)):
        raise ValueError(f"{name} is '{words}', expected whole numbers such as \"1 2 3\"")
    return found


ENTRIES: dict[str, Callable[[Call, Sequence[str]], list[Job]]] = {
    "base2new_train": _one_run(protocols.base2new_train),
    "base2new_test": _one_run(protocols.base2new_test),
    "xd_train": xd_train,
    "xd_test": _one_run(protocols.xd_test),
    "few_shot": few_shot,
    "zeroshot": zero_shot,
    "reproduce": _downloaded(protocols.reproduce),
    "reproduce_xd": _downloaded(protocols.reproduce_xd),
    "main": coop_main,
    "eval": coop_eval,
}


def training_command(call: Call, words: Sequence[str], seed: int | None) -> str:
    """The shell command of the training that a test entry with the arguments ``words`` needs."""
    dataset, second, *options = words or (DEMONSTRATION, "1")
    if call.entry == "base2new_test":
        return call.command(call.method.name, "base2new_train", [dataset, second, *options])
    source = call.get("SOURCE", "imagenet")
    if call.entry == "xd_test":
        return call.command(call.method.name, "xd_train", [source, second, *options])
    shots = call.get("SHOTS", "16")
    arguments = [source, second, "end", _n_ctx(call), shots, "False", *options]
    return call.command(call.method.name, "main", arguments, SEEDS=str(seed))
