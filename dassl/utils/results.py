"""``results.json``: what a finished run measured. A run is done if and only if its file says ``complete``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dassl.utils.tools import write_json

__all__ = ["read_results", "write_results"]


def write_results(path: str | Path, results: Mapping[str, Any]) -> None:
    """Write the results of a finished run atomically, marked ``complete``."""
    write_json({**results, "complete": True}, path)


def read_results(path: str | Path) -> dict[str, Any] | None:
    """The results at ``path``; None if the file is absent, unfinished or not readable as results."""
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return results if isinstance(results, dict) and results.get("complete") is True else None
