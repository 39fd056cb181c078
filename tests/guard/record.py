"""A record of what must not change while the code is rearranged: loss bits and the commands of the shell entries.

`python -m tests.guard.record` writes `record.json` beside this file from the code as it is. The bits are those of one
machine: on another processor the kernels sum in another order.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

import datasets  # noqa: F401  (registers the datasets)
import train
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from tests.paths import ROOT

RECORD = Path(__file__).with_name("record.json")
STEPS = 3
CASES = {  # name: trainer, config, options
    "MaPLe": ("MaPLe", "vit_micro", ()),
    "MaPLe, depth 1, random": ("MaPLe", "vit_micro", ("TRAINER.MAPLE.PROMPT_DEPTH", "1", "TRAINER.MAPLE.N_CTX", "5")),
    "CoOp": ("CoOp", "vit_micro", ()),
    "CoOp, class-specific, middle": (
        "CoOp",
        "vit_micro",
        ("TRAINER.COOP.CSC", "True", "TRAINER.COOP.CLASS_TOKEN_POSITION", "middle"),
    ),
    "CoOp, front": ("CoOp", "vit_micro", ("TRAINER.COOP.CLASS_TOKEN_POSITION", "front")),
    "CoCoOp": ("CoCoOp", "vit_micro", ()),
    "VPT": ("VPT", "vit_micro", ()),
    "IVLP": ("IVLP", "vit_micro", ()),
    "IVLP, language only": ("IVLP", "vit_micro_language_only", ()),
}
ARGUMENTS = {  # of the entries that take others than DATASET SEED
    "main.sh": ("caltech101", "vit_b16", "end", "16", "1", "False"),
    "eval.sh": ("caltech101", "vit_b16"),
    "zeroshot.sh": ("caltech101",),
}
DATASETS = ("caltech101", "imagenet", "imagenet_a", "emoji")


def losses(trainer: str, config: str, options: tuple[str, ...]) -> list[str]:
    """The loss of each step as a hexadecimal float."""
    configs = ROOT / "configs"
    argv = ["--trainer", trainer, "--dataset-config-file", str(configs / "datasets" / "emoji.yaml")]
    argv += ["--config-file", str(configs / "trainers" / trainer / f"{config}.yaml"), "--seed", "1"]
    argv += ["OUTPUT_DIR", "", "DATASET.NUM_SHOTS", "1", "DATASET.SUBSAMPLE_CLASSES", "base", "VERBOSE", "False"]
    argv += ["DATALOADER.TRAIN_X.BATCH_SIZE", "4", "DATALOADER.NUM_WORKERS", "0", "OPTIM.WARMUP_EPOCH", "0"]
    set_random_seed(1)
    made = build_trainer(train.setup_cfg(train.parse_args([*argv, *options])))
    made.set_model_mode("train")
    made.epoch, made.num_batches = 0, STEPS
    found = []
    for i, batch in zip(range(STEPS), made.train_loader_x, strict=False):
        made.batch_idx = i
        found.append(float(made.forward_backward(batch)["loss"]).hex())
    return found


def commands(entry: Path) -> dict[str, list[str]]:
    """What the entry prints with DRY_RUN=1, by its arguments."""
    name = entry.name
    found = {}
    for dataset in DATASETS:
        arguments = ARGUMENTS.get(name, ("caltech101", "1"))
        arguments = (dataset, *arguments[1:])
        if name.startswith("few_shot"):
            arguments = (dataset, "1 2 16", "1 3")
        if name.startswith("reproduce"):
            arguments = (dataset, "1", "/weights", "OPTIM.LR", "0.1")
        keep = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        variables = keep | {"PYTHON": sys.executable, "OUTPUT": "/nowhere/output", "DRY_RUN": "1"}
        done = subprocess.run(
            ["bash", str(entry), *arguments], env=variables, cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        printed = (done.stdout + done.stderr).replace(sys.executable, "python")
        found[" ".join(arguments)] = printed.splitlines()
    return found


def entries() -> list[Path]:
    return sorted(path for path in (ROOT / "scripts").glob("*/*.sh"))


def main() -> None:
    torch.set_num_threads(1)
    record = {
        "losses": {name: losses(*case) for name, case in CASES.items()},
        "commands": {path.relative_to(ROOT).as_posix(): commands(path) for path in entries()},
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
