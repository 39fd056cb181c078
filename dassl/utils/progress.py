"""Progress bars on a terminal, silence elsewhere."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

__all__ = ["progress", "say"]


def progress(batches: Iterable[Any], description: str, total: int | None = None) -> Iterator[Any]:
    """Pass ``batches`` through, showing how many are done, the rate and the time left while stderr is a terminal."""
    yield from tqdm(
        batches,
        desc=description,
        total=total,
        unit="batch",
        leave=False,
        dynamic_ncols=True,
        disable=not sys.stderr.isatty(),
    )


def say(line: str) -> None:
    """Print a line, above the progress bar if one is shown."""
    tqdm.write(line)
