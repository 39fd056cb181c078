"""Progress bars, shown on a terminal only."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

__all__ = ["progress", "say"]


def progress(items: Iterable[Any], description: str, total: int | None = None, unit: str = "batch") -> Iterator[Any]:
    """Yield ``items``, and show how many are done, the rate and the time left if stderr is a terminal."""
    yield from tqdm(
        items,
        desc=description,
        total=total,
        unit=unit,
        leave=False,
        dynamic_ncols=True,
        disable=not sys.stderr.isatty(),
    )


def say(line: str) -> None:
    """Print a line, above the progress bar if there is one."""
    tqdm.write(line)
