"""An output folder with something for every section of the report's page, and texts that must be escaped."""

import json
from itertools import product
from pathlib import Path

from tests.experiments.run_folders import base2new, put

HOSTILE = "<script>alert('class')</script>"  # the name of a class
NOTE = "</script><script>alert('note')</script> of \x1b[31m a run"
MAPLE = "MaPLe/vit_b16_c2_ep5_batch4_2ctx"
COOP = "CoOp/vit_b16_ep100_ctxv1"
BASE = {1: 78.0, 2: 79.0, 3: 80.0}  # MaPLe on DTD: mean 79, deviation 1; published are 80.36 and 59.18
NEW = {1: 69.9, 2: 70.0, 3: 70.1}


def make_runs(root: Path) -> Path:
    """Base-to-new on two datasets, few-shot curves, an ablation, losses, predictions, an unfinished run."""
    for dataset in ("dtd", "eurosat"):
        for seed in (1, 2, 3):
            for half, values in (("base", BASE), ("new", NEW)):
                _run(root, base2new(dataset, half, seed, MAPLE), values[seed], f"{MAPLE} {seed}")
                _run(root, base2new(dataset, half, seed, COOP), values[seed] - 1, f"{COOP} {seed}")
        for half in ("base", "new"):
            _run(root, base2new(dataset, half, 1, "ZeroshotCLIP/vit_b16"), 60.0, learned_parameters=0)
    for seed, shots in product((1, 2), (1, 2, 16)):
        for config in (f"{MAPLE}_{shots}shots", f"VPT/c_{shots}shots/a$b$<i>"):
            _run(root, f"dtd/{config}/seed{seed}", 50.0 + shots + seed)
    _run(root, "ZeroshotCLIP/vit_b16/dtd", 44.0, learned_parameters=0)
    for dataset, half, depth, seed in product(("dtd", "eurosat"), ("base", "new"), (1, 3, 9), (1, 2)):
        _run(root, base2new(dataset, half, seed, f"IVLP/vit_b16/PROMPT_DEPTH_{depth}"), 70.0 + depth + seed)
    predictions(root / base2new("dtd", "new", 1, "ZeroshotCLIP/vit_b16"), "aaab", "abbb")
    predictions(root / base2new("dtd", "new", 1, MAPLE), "aaab", "aabb")
    predictions(root / base2new("dtd", "new", 2, MAPLE), "aaab", "aaaa")
    put(root, base2new("dtd", "new", 4, MAPLE), None)
    return root


def _run(root: Path, folder: str, accuracy: float, command: str = "", learned_parameters: int = 4096) -> None:
    path = put(
        *(root, folder, accuracy),
        backbone="ViT-B/16",
        learned_parameters=learned_parameters,
        total_parameters=10**6,
        seconds={"train": 12.0 if learned_parameters else 0.0, "test": 3.0},
        peak_memory_bytes=2**30,
        notes=[NOTE],
    )
    if command:
        (path / "job.json").write_text(json.dumps({"command": f"/usr/bin/python train.py --run '{command}'"}))
    if learned_parameters:
        losses = ({"epoch": epoch, "losses": {"loss": 1.0 / epoch}} for epoch in (1, 2, 3))
        (path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in losses))


def predictions(folder: Path, true: str, predicted: str) -> None:
    """predictions.csv for images of the classes a and b; b is called :data:`HOSTILE`."""
    names = {"a": "nan", "b": HOSTILE}
    rows = (f'{i}.jpg,{names[t]},"{names[p]}",0.5' for i, (t, p) in enumerate(zip(true, predicted, strict=True)))
    text = "\n".join(["image,true_class,predicted_class,score", *rows])
    (folder / "predictions.csv").write_text(text + "\n", encoding="utf-8")
