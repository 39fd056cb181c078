"""Count the text tokens of the datasets' class names, as far as these are at hand.

    python -m benchmarks.tokens --json tokens.json
    python -m benchmarks.tokens --root /data --json tokens.json

The prompt is "a photo of a {}." unless `--prompt` says otherwise. The class names come from ../shared/published, or
from the datasets themselves below `--root`. Columns: every prompt padded to 77 tokens; a prefix that all prompts share
once, and the other tokens of each prompt padded to one of a few lengths, as the text tower had it before prompts shared
more than that; what it computes now, padding included; and the distinct beginnings of all prompts, of which there
cannot be fewer.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tabulate import tabulate

from clip.packing import PackedPrompts
from dassl.utils.names import DEFAULT_TEMPLATE
from datasets.tool.build import build
from trainers.prompts import fill, tokenize

from .models import CLASSNAMES, class_names
from .timing import run_and_report

DATASETS = (
    *("ImageNet", "Caltech101", "OxfordPets", "StanfordCars", "OxfordFlowers", "Food101", "FGVCAircraft", "SUN397"),
    *("DescribableTextures", "EuroSAT", "UCF101", "ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR"),
)
CONTEXT = 77
BUCKET = 48  # another padded length cost about as much as this many tokens


def published_names(dataset: str) -> list[str]:
    """The class names by label, from the published files; none if these do not have them."""
    if dataset == "ImageNet" and CLASSNAMES.is_file():
        return class_names(1000)
    split = CLASSNAMES.with_name(f"split_zhou_{dataset}.json.gz")
    if not split.is_file():
        return []
    items = json.loads(gzip.decompress(split.read_bytes())).values()
    return [name for _, name in sorted({(label, name) for part in items for _, label, name in part})]


def names_of(dataset: str, root: Path | None) -> list[str]:
    """The class names of a dataset; none if they are not at hand."""
    names = published_names(dataset)
    if not names and root is not None:
        try:
            names = list(build(dataset, root)[0].classnames)
        except FileNotFoundError as error:
            print(str(error).splitlines()[0])
    return names


def bucketed(lengths: Sequence[int]) -> int:
    """Tokens of suffixes of these lengths, each padded to one of the lengths that cost least together."""
    distinct = [(length, len(list(group))) for length, group in groupby(sorted(lengths))]
    best = [(0, 0)]  # (cost, tokens) of the first i lengths
    for i, (longest, _) in enumerate(distinct, start=1):
        options = []
        for j in range(i):  # lengths j … i-1 are padded to the longest of them
            tokens = longest * sum(count for _, count in distinct[j:i])
            options.append((best[j][0] + tokens + BUCKET, best[j][1] + tokens))
        best.append(min(options))
    return best[-1][1]


def count(names: Sequence[str], template: str) -> dict[str, int]:
    """The table's row of a dataset."""
    sequences = tokenize(fill(template, names))
    layout = PackedPrompts(sequences)
    S = layout.prefix_length
    return {
        "classes": len(names),
        "padded": len(names) * CONTEXT,
        "before": S + bucketed([len(tokens) - S for tokens in sequences]),
        "now": layout.num_tokens,
        "distinct": len({tuple(tokens[:i]) for tokens in sequences for i in range(1, len(tokens) + 1)}),
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The counts as plain values."""
    names = {dataset: names_of(dataset, args.root) for dataset in DATASETS}
    return {
        "prompt": args.prompt,
        "datasets": {dataset: count(of, args.prompt) for dataset, of in names.items() if of},
        "not_at_hand": [dataset for dataset, of in names.items() if not of],
    }


def report(result: dict[str, Any]) -> str:
    """The counts as a table."""
    rows = [
        [name, *(f"{value:,}" for value in row.values()), f"{row['now'] / row['before'] - 1:+.0%}"]
        for name, row in result["datasets"].items()
    ]
    headers = ["dataset", "classes", "padded to 77", "before", "now", "distinct", "now against before"]
    missing = ", ".join(result["not_at_hand"])
    return (
        f"text tokens of {result['prompt']!r}\n"
        + tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * 6))
        + (f"\nnot at hand (--root): {missing}" if missing else "")
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of the datasets whose class names are not published")
    parser.add_argument("--prompt", default=DEFAULT_TEMPLATE, help="with {} in place of the class name")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    run_and_report(parser.parse_args(argv), run, report)


if __name__ == "__main__":
    main()
