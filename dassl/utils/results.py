"""``results.json``: what a finished run measured. A run is finished if and only if :func:`read_results` reads it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dassl.utils.files import write_json

__all__ = ["read_results", "write_results"]


def write_results(path: str | Path, results: Mapping[str, Any]) -> None:
    """Write the results of a finished run atomically, marked ``complete``."""
    write_json({**results, "complete": True}, path)


def read_results(path: str | Path) -> dict[str, Any] | None:
    """Return the results of a finished run: a JSON object with ``complete: true`` and an entry ``accuracy``.

    The accuracy is None for a run that was trained but not tested (``TEST.NO_TEST``).

    Returns:
        The results; None if the file is absent, unreadable or not complete.
    """
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(results, dict) or results.get("complete") is not True or "accuracy" not in results:
        return None
    return results
