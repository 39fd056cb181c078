"""``results.json``: what a finished run measured. A run is finished if and only if :func:`read_results` reads it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dassl.utils.files import read_json, write_json

__all__ = ["read_results", "write_results"]

_MOST_BYTES = 2**24  # a file of 1,000 classes takes less than 1 MB


def write_results(path: str | Path, results: Mapping[str, Any]) -> None:
    """Write the results of a finished run atomically, marked ``complete``."""
    write_json({**results, "complete": True}, path)


def read_results(path: str | Path) -> dict[str, Any] | None:
    """Return the results of a finished run: a JSON object with ``complete: true`` and an entry ``accuracy``.

    The accuracy is a percentage, or None for a run that was trained but not tested (``TEST.NO_TEST``); an ``epoch``,
    where there is one, is a whole number or None.

    Returns:
        The results; None if the file is absent, unreadable, not complete, or holds anything else there.
    """
    try:
        results = read_json(path, _MOST_BYTES)
    except (OSError, ValueError):
        return None
    # Checked by hand: a shell entry reads these before it does anything else, in less time than voluptuous's import
    if not isinstance(results, dict) or results.get("complete") is not True or "accuracy" not in results:
        return None
    accuracy, epoch = results["accuracy"], results.get("epoch")
    if accuracy is not None and not (_is_number(accuracy) and 0 <= accuracy <= 100):
        return None
    if epoch is not None and not (_is_number(epoch) and isinstance(epoch, int) and epoch >= 0):
        return None
    return results


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
