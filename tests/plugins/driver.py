"""Run a list of `train.py` commands in one process, in the project folder that this file is copied to.

One process per command would spend most of its time importing torch.
Usage: python driver.py runs.json; writes the exit status or the error of each run to outcomes.json.
"""

import json
import sys
import traceback
from pathlib import Path
from unittest.mock import patch

import torch

import train
from dassl.engine import simple
from dassl.engine.build import TRAINER_REGISTRY


def interrupted(save_resume):
    """A `save_resume` that raises KeyboardInterrupt, as from Ctrl-C, after the first epoch."""

    def wrapper(trainer, *args):
        save_resume(trainer, *args)
        if trainer.epoch == 0:
            raise KeyboardInterrupt

    return wrapper


def seeing_two_gpus(build_model):
    """A `build_model` that sees two GPUs, so that it wraps its model in nn.DataParallel."""

    def wrapper(trainer):
        with patch.object(torch.cuda, "device_count", return_value=2):
            build_model(trainer)

    return wrapper


def run(argv, interrupt, two_gpus):
    """Exit status of `train.py argv`, or "interrupted"."""
    trainer = TRAINER_REGISTRY.get(argv[argv.index("--trainer") + 1])
    save, build = simple.save_resume, trainer.build_model
    with (
        patch.object(simple, "save_resume", interrupted(save) if interrupt else save),
        patch.object(trainer, "build_model", seeing_two_gpus(build) if two_gpus else build),
    ):
        try:
            return train.main(argv)
        except KeyboardInterrupt:
            return "interrupted"


def main():
    import trainers  # noqa: F401  (finds the plug-ins)

    outcomes = {}
    for name, options in json.loads(Path(sys.argv[1]).read_text()).items():
        print(f"### {name}", flush=True)
        stdout = sys.stdout
        try:
            outcomes[name] = run(options["argv"], options["interrupt"], options["two_gpus"])
        except Exception:
            outcomes[name] = traceback.format_exc()
            print(outcomes[name])
        sys.stdout = stdout
    Path("outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main()
