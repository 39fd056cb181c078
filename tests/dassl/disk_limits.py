"""Runs the tiny trainer with files of a limited size, then without the limit; prints the outcomes as JSON."""

import hashlib
import json
import os
import resource
import sys
from pathlib import Path

import torch
import torch.utils.tensorboard

from dassl.utils import command, set_random_seed, setup_logger
from tests.dassl.tiny import TinyTrainer, everything, tiny_cfg


def train(output: Path) -> int:
    try:
        set_random_seed(5)
        setup_logger(output)
        print("a line of the log", flush=True)
        trainer = TinyTrainer(tiny_cfg(output, "TRAIN.CHECKPOINT_FREQ", 1))
        trainer.train()
    except Exception as error:
        return command.fail(error, "the same command resumes")
    digest = hashlib.sha256()
    for name, value in sorted(everything(trainer).items()):
        digest.update(name.encode() + value.numpy().tobytes())
    (output / "digest").write_text(digest.hexdigest())
    return 0


def run(output: Path, limit: int | None) -> tuple[int, str]:
    """Status and output of a run in a separate process, none of whose files becomes larger than ``limit`` bytes."""
    said = output.with_suffix(".txt")
    child = os.fork()
    if child == 0:
        reader, writer = os.pipe()  # its output is not limited
        if (copier := os.fork()) == 0:
            os.close(writer)
            with open(reader, "rb") as source, open(said, "wb") as target:
                target.write(source.read())
            os._exit(0)
        for stream in (1, 2):
            os.dup2(writer, stream)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        status = 1
        try:
            command.run(lambda: train(output))
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            for stream in (1, 2, writer):
                os.close(stream)
            os.waitpid(copier, 0)
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.read_text()


def main(folder: Path, limits: list[int]) -> None:
    torch.set_num_threads(1)
    run(folder / "whole", None)
    outcomes = {}
    for limit in limits:
        output = folder / str(limit)
        status, said = run(output, limit)
        left = [path.name for path in output.rglob("*.dassl-tmp")]
        again, _ = run(output, None)
        same = (output / "digest").read_bytes() == (folder / "whole" / "digest").read_bytes()
        outcomes[limit] = {"status": status, "said": said, "left": left, "again": again, "same": same}
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(limit) for limit in sys.argv[2:]])
