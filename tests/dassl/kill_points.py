"""Runs the tiny trainer, kills it at many moments, starts it again; prints the end state's digest for each as JSON."""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dassl.engine import record
from dassl.utils import files, read_results, set_random_seed, torchtools
from tests.dassl.tiny import TinyTrainer, everything, tiny_cfg


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KilledAtStep(TinyTrainer):
    def forward_backward(self, batch: dict) -> dict:
        losses = super().forward_backward(batch)
        if self.step_counter == 9:
            kill()
        return losses


class KilledBetweenEpochs(TinyTrainer):
    def before_epoch(self) -> None:
        if self.epoch == 3:
            kill()


class KilledInFinalTest(TinyTrainer):
    def model_inference(self, image: torch.Tensor) -> torch.Tensor:
        if not self.run_record.training:
            kill()
        return super().model_inference(image)


def kill_at_call(module: object, name: str, number: int, half_written: bool = False) -> Callable[[], None]:
    """Kill in the ``number``-th call of a function; ``half_written`` first writes half of what it would save."""

    def arm() -> None:
        original = getattr(module, name)
        calls = []

        def killing(*args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            if len(calls) == number:
                if half_written:
                    args[1].write(b"x" * 1000)
                    args[1].flush()
                kill()
            return original(*args, **kwargs)

        setattr(module, name, killing)

    return arm


def run(output: Path, trainer_class: type[TinyTrainer] = TinyTrainer, arm: Callable[[], None] | None = None) -> bool:
    """Run a trainer in a separate process; returns whether it was killed."""
    child = os.fork()
    if child == 0:
        if arm is not None:
            arm()
        set_random_seed(5)
        trainer = trainer_class(tiny_cfg(output, "TRAIN.CHECKPOINT_FREQ", 1))
        trainer.train()
        digest = hashlib.sha256()
        for name, value in sorted(everything(trainer).items()):
            digest.update(name.encode() + value.numpy().tobytes())
        results = read_results(output / "results.json")
        digest.update(repr((results["accuracy"], results["macro_f1"], results["epoch"])).encode())
        (output / "digest").write_text(digest.hexdigest())
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"the run in {output} failed")
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    saves = torchtools.torch
    points: dict[str, tuple[type[TinyTrainer], Callable[[], None] | None]] = {
        "inside an epoch": (KilledAtStep, None),
        "between epochs": (KilledBetweenEpochs, None),
        "in the final test": (KilledInFinalTest, None),
        "half a first model file": (TinyTrainer, kill_at_call(saves, "save", 1, half_written=True)),
        "half a first state": (TinyTrainer, kill_at_call(saves, "save", 2, half_written=True)),
        "half a later state": (TinyTrainer, kill_at_call(saves, "save", 6, half_written=True)),
        "before a rename": (TinyTrainer, kill_at_call(files.os, "replace", 9)),
        "before the results": (TinyTrainer, kill_at_call(record, "write_results", 1)),
    }
    outcomes = {}
    for number, (name, (trainer_class, arm)) in enumerate([("undisturbed", (TinyTrainer, None)), *points.items()]):
        output = folder / str(number)
        killed = run(output, trainer_class, arm)
        if killed:
            run(output)
        outcomes[name] = {"killed": killed, "end": (output / "digest").read_text()}
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
