"""What identifies the images that a run is trained on, without reading them."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any

from dassl.data.datasets import Datum

__all__ = ["identify"]

_SIZES = 20_000  # files whose sizes are looked up: all of a few-shot set, and evenly spaced ones of a larger set


def identify(items: Sequence[Datum]) -> dict[str, Any]:
    """The number of images, and a digest of their paths below their common folder, labels and file sizes, in order.

    Neither the place of that folder nor the files' times matter. Sizes are those of ``_SIZES`` files at most, since a
    network drive takes a while to look up each.
    """
    paths = [item.impath for item in items]
    first, last = min(paths, default=""), max(paths, default="")
    shared = os.path.commonprefix([first, last])  # noqa: RUF071 (characters: the next line cuts it at a folder)
    folder = len(shared) - len(os.path.basename(shared))
    step = max(1, -(-len(items) // _SIZES))  # rounded up
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(items), step):
        lines = [
            f"{path[folder:]}\0{item.label}"
            for path, item in zip(paths[start : start + step], items[start : start + step], strict=True)
        ]
        text = "\n".join([str(_size(paths[start])), *lines, ""])
        digest.update(text.replace(os.sep, "/").encode("utf-8", "surrogateescape"))
    return {"images": len(items), "digest": digest.hexdigest()}


def _size(path: str) -> int:
    """The size of a file in bytes, -1 where there is none: not every item is a file."""
    try:
        return os.path.getsize(path)
    except (OSError, ValueError):
        return -1
