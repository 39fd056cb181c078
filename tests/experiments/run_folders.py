"""Run folders as the protocols write them, for tests of reports."""

import json
from pathlib import Path


def put(root: Path, folder: str, accuracy: float | None, **results: object) -> Path:
    """A run folder; without an accuracy, that of an interrupted run."""
    path = root / folder
    path.mkdir(parents=True)
    (path / "config.yaml").touch()
    if accuracy is not None:
        content = {"accuracy": accuracy, "complete": True} | results
        (path / "results.json").write_text(json.dumps(content), encoding="utf-8")
    return path


def base2new(dataset: str, half: str, seed: int, config: str = "MaPLe/vit_b16") -> str:
    stage = {"base": "train_base", "new": "test_new"}[half]
    return f"base2new/{stage}/{dataset}/shots_16/{config}/seed{seed}"


def put_both(root: Path, dataset: str, seed: int, base: float, new: float, config: str = "MaPLe/vit_b16") -> None:
    put(root, base2new(dataset, "base", seed, config), base)
    put(root, base2new(dataset, "new", seed, config), new)
