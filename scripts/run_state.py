"""Tell the shell scripts where a run stands: prints ``new``, ``unfinished`` or ``finished <accuracy>``.

A finished run whose settings contradict the options given now is an error: skipping it would pass another run's
number off as this one's.

Usage: python scripts/run_state.py RUN_FOLDER [KEY VALUE ...]
"""

import json
import sys
from ast import literal_eval
from pathlib import Path
from typing import Any

import yaml

# Keys that change how fast a run goes or what it prints, never what it measures
IRRELEVANT = ("USE_CUDA", "VERBOSE", "DATALOADER.NUM_WORKERS", "DATALOADER.CACHE_MB", "TRAIN.PRINT_FREQ")


def accuracy(folder: Path) -> float | None:
    """The accuracy (percent) in a complete results.json, None if there is none."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        return float(results["accuracy"]) if results.get("complete") is True else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def differing(folder: Path, options: list[str]) -> list[str]:
    """One line for each of the options whose value in the run's config.yaml is another."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return []
    wanted = dict(zip(options[0::2], options[1::2], strict=True))  # the last of a repeated key counts
    lines = []
    for key, value in wanted.items():
        found = _lookup(config, key)
        if key not in IRRELEVANT and _plain(found) != _plain(value):
            lines.append(f"  {key}: the run has {found}, now {value} is asked for")
    return lines


def _lookup(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _plain(value: Any) -> Any:
    """A value as a comparable literal: "(1, 2)" and [1, 2] are alike, as are "1e-5" and 0.00001."""
    if isinstance(value, str):
        try:
            value = literal_eval(value)
        except (ValueError, SyntaxError):
            return value
    return list(value) if isinstance(value, tuple) else value


def main(folder: Path, options: list[str]) -> int:
    found = accuracy(folder)
    if found is None:
        started = folder.is_dir() and any(folder.iterdir())
        print("unfinished" if started else "new")
        return 0
    lines = differing(folder, options)
    if lines:
        print(
            f"error: {folder} holds a finished run with other settings:\n"
            + "\n".join(lines)
            + "\nSet OUTPUT to another folder for this run, or delete that one to run it anew.",
            file=sys.stderr,
        )
        return 2
    print(f"finished {found:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
