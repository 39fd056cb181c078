"""The arguments and environment variables of the shell entries, turned into jobs: one function per entry."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments import protocols
from experiments.protocols import Job, Method, Request
from experiments.runs import DEMONSTRATION, ROOT

__all__ = ["ENTRIES", "Call", "UsageError"]

SHOTS, SEEDS = "1 2 4 8 16", "1 2 3"  # of a few-shot curve


class UsageError(ValueError):
    """Wrong arguments; the message says which ones the entry takes."""


@dataclass(frozen=True)
class Call:
    """How an entry was called."""

    entry: str  # path of the script as it was typed, for messages
    folder: str  # the caller's current folder, where relative folders start
    method: Method
    environment: Mapping[str, str]

    def get(self, name: str, default: str = "") -> str:
        """An environment variable; the default if it is absent or empty."""
        return self.environment.get(name) or default

    def path(self, path: str) -> str:
        """A path given by the caller, as seen from the repository's root."""
        if os.path.isabs(path) or os.path.samefile(self.folder, ROOT):
            return path
        return f"{self.folder}/{path}"

    def number(self, name: str) -> int | None:
        """An environment variable that holds a whole number; None if it is absent.

        Raises:
            ValueError: it holds something else.
        """
        value = self.get(name)
        if value and not re.fullmatch(r"-?[0-9]+", value):
            raise ValueError(f"{name} is '{value}', expected a whole number")
        return int(value) if value else None

    def usage(self, arguments: str) -> UsageError:
        return UsageError(
            f"usage: bash {self.entry} {arguments} [KEY VALUE ...]     "
            "(DRY_RUN=1 prints the commands; scripts/run.sh lists the settings)"
        )

    def request(self, dataset: str, options: Iterable[str], **given: Any) -> Request:
        """The request that these arguments and the environment make."""
        shots = self.number("SHOTS")
        settings: dict[str, Any] = {
            "shots": 16 if shots is None else shots,
            "config": self.get("CFG"),
            "classes": self.get("SUB", "new"),
            "source": self.get("SOURCE", "imagenet"),
            "epoch": self.number("LOADEP"),
            "data": self.path(self.get("DATA")) if self.get("DATA") else "./data",
            "output": self.path(self.get("OUTPUT")) if self.get("OUTPUT") else "output",
        }
        return Request(self.method, dataset, options=tuple(options), **settings | given)

    def dataset_and_seed(self, words: Sequence[str]) -> Request:
        """The request for the arguments ``DATASET SEED [KEY VALUE ...]``; without any, the demonstration's."""
        if not words:
            print(f"No dataset given: the embedded demonstration, {self.entry} {DEMONSTRATION} 1")
            words = (DEMONSTRATION, "1")
        if len(words) < 2 or not _is_number(words[1]):
            raise self.usage("DATASET SEED")
        return self.request(words[0], words[2:], seed=int(words[1]))


def _is_number(word: str) -> bool:
    return re.fullmatch("[0-9]+", word) is not None


def _numbers(words: str) -> list[int]:
    """A list such as "1 2 3" or "1,2,3"; empty if it is something else."""
    return [int(word) for word in re.split("[ ,]+", words)] if re.fullmatch("[0-9]+([ ,]+[0-9]+)*", words) else []


# ---- entries ---------------------------------------------------------------------------------------------------


def _one_run(make: Callable[[Request], Job]) -> Callable[[Call, Sequence[str]], list[Job]]:
    """An entry with the arguments DATASET SEED that makes one run."""
    return lambda call, words: [make(call.dataset_and_seed(words))]


def xd_train(call: Call, words: Sequence[str]) -> list[Job]:
    """[DATASET] SEED: ImageNet unless another dataset is given."""
    if words and _is_number(words[0]):
        words = ("imagenet", *words)
    return [protocols.xd_train(call.dataset_and_seed(words))]


def few_shot(call: Call, words: Sequence[str]) -> list[Job]:
    """DATASET ["SHOTS ..."] ["SEED ..."]"""
    if not words:
        raise call.usage('DATASET ["SHOTS ..."] ["SEED ..."]')
    dataset, *options = words
    shots = _numbers(options.pop(0)) if options and _numbers(options[0]) else _numbers(SHOTS)
    seeds = _numbers(options.pop(0)) if options and _numbers(options[0]) else _numbers(SEEDS)
    request = call.request(dataset, options)
    return [protocols.few_shot(replace(request, shots=k, seed=seed)) for k in shots for seed in seeds]


def zero_shot(call: Call, words: Sequence[str]) -> list[Job]:
    """DATASET [CONFIG]"""
    if not words:
        raise call.usage("DATASET [CONFIG]")
    dataset, *options = words
    config = {"config": options.pop(0)} if len(options) % 2 else {}
    return [protocols.zero_shot(call.request(dataset, options, **config))]


def _downloaded(make: Callable[[Request, str], list[Job]]) -> Callable[[Call, Sequence[str]], list[Job]]:
    """An entry with the arguments DATASET SEED WEIGHTS_FOLDER that tests downloaded weights."""

    def jobs(call: Call, words: Sequence[str]) -> list[Job]:
        if len(words) < 3 or not _is_number(words[1]):
            raise call.usage("DATASET SEED WEIGHTS_FOLDER")
        dataset, seed, folder, *options = words
        folder = call.path(folder)
        try:
            weights = protocols.find_weights(folder, dataset, int(seed))
        except ValueError:
            if call.get("DRY_RUN") != "1":
                raise
            weights = protocols.weight_folders(folder, dataset, int(seed))[0]  # not downloaded yet
        return make(call.request(dataset, options, seed=int(seed)), weights)

    return jobs


# CoOp's main.sh and eval.sh take settings as arguments; a folder between config and seed is named after them


def coop_main(call: Call, words: Sequence[str]) -> list[Job]:
    """DATASET CFG CTP NCTX SHOTS CSC"""
    if len(words) < 6 or not (_is_number(words[3]) and _is_number(words[4])):
        raise call.usage("DATASET CFG CTP NCTX SHOTS CSC")
    dataset, config, position, n_ctx, shots, csc, *options = words
    request = _coop(call, dataset, config, n_ctx, csc, position, options, shots=int(shots))
    return [protocols.few_shot(replace(request, seed=seed)) for seed in _coop_seeds(call)]


def coop_eval(call: Call, words: Sequence[str]) -> list[Job]:
    """DATASET CFG"""
    if len(words) < 2:
        raise call.usage("DATASET CFG")
    dataset, config, *options = words
    request = _coop(call, dataset, config, call.get("NCTX", "16"), "False", "end", options)
    return [protocols.xd_test(replace(request, seed=seed)) for seed in _coop_seeds(call)]


def _coop(
    call: Call, dataset: str, config: str, n_ctx: str, csc: str, position: str, options: list[str], **given: Any
) -> Request:
    own = ["TRAINER.COOP.N_CTX", n_ctx, "TRAINER.COOP.CSC", csc, "TRAINER.COOP.CLASS_TOKEN_POSITION", position]
    variant = f"nctx{n_ctx}_csc{csc}_ctp{position}"
    return call.request(dataset, own + options, config=config, variant=variant, **given)


def _coop_seeds(call: Call) -> list[int]:
    seeds = call.get("SEEDS", SEEDS)
    if not (numbers := _numbers(seeds.strip())):
        raise ValueError(f"SEEDS is '{seeds}', expected whole numbers such as \"{SEEDS}\"")
    return numbers


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
