"""Tell the shell scripts where a run stands: prints ``new``, ``unfinished`` or ``finished, accuracy …``.

A finished run whose settings contradict those asked for now is an error: skipping it would pass another run's number
off as this one's.
"""

import argparse
import json
import sys
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

# Keys that change how fast a run goes, what it keeps or prints, never what it measures
IRRELEVANT = (
    *("USE_CUDA", "VERBOSE", "DATALOADER.NUM_WORKERS", "DATALOADER.CACHE_MB"),
    *("TRAIN.PRINT_FREQ", "TRAIN.CHECKPOINT_FREQ"),
)


def read_results(folder: Path) -> dict[str, Any] | None:
    """A complete results.json, None if there is none."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(results, dict) and results.get("complete") is True and "accuracy" in results
    return results if whole else None


def differing(folder: Path, wanted: dict[str, Any]) -> Iterator[str]:
    """A line for each of the settings whose value in the run's config.yaml is another."""
    try:
        found = dict(flatten(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))))
    except (OSError, yaml.YAMLError):
        return
    for key, value in wanted.items():
        if key not in IRRELEVANT and plain(found.get(key)) != plain(value):
            yield f"  {key}: the run has {found.get(key)}, now {value} is asked for"


def flatten(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a config tree as (KEY.SUBKEY, value)."""
    for key, value in (node or {}).items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def plain(value: Any) -> Any:
    """A value as a comparable literal: "(1, 2)" and [1, 2] are alike, as are "1e-5" and 0.00001."""
    if isinstance(value, str):
        try:
            value = literal_eval(value)
        except (ValueError, SyntaxError):
            return value
    return list(value) if isinstance(value, tuple) else value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, action="append", default=[], help="YAML file of the run asked for")
    parser.add_argument("--epoch", type=int, help="epoch whose weights are to be tested")
    parser.add_argument("folder", type=Path, help="run folder")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="settings, later ones win")
    args = parser.parse_args()
    results = read_results(args.folder)
    if results is None:
        started = args.folder.is_dir() and any(args.folder.iterdir())
        print("unfinished" if started else "new")
        return 0
    wanted: dict[str, Any] = {}
    for path in args.config:
        wanted.update(flatten(yaml.safe_load(path.read_text(encoding="utf-8"))))
    wanted.update(zip(args.options[0::2], args.options[1::2], strict=True))
    lines = list(differing(args.folder, wanted))
    if args.epoch is not None and results.get("epoch") not in (None, args.epoch):
        lines.append(f"  epoch: the run tested {results['epoch']}, now {args.epoch} is asked for")
    if lines:
        print(
            f"error: {args.folder} holds a finished run with other settings:\n"
            + "\n".join(lines)
            + "\nSet OUTPUT to another folder for this run, or delete that one to run it anew.",
            file=sys.stderr,
        )
        return 2
    accuracy = results.get("accuracy")
    print("finished, not tested" if accuracy is None else f"finished, accuracy {accuracy:.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
