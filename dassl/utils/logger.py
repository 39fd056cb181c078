"""Copying everything printed to a file."""

import os.path as osp
import sys
from pathlib import Path
from typing import Any, TextIO

from dassl.utils.files import mkdir_if_missing

__all__ = ["Logger", "setup_logger"]


class Logger:
    """Writes to the console and, appending, to ``fpath``.

    >>> sys.stdout = Logger("output/log.txt")
    """

    def __init__(self, fpath: str | Path | None = None) -> None:
        self.console: TextIO = sys.stdout.console if isinstance(sys.stdout, Logger) else sys.stdout
        self.file: TextIO | None = None
        if fpath is not None:
            mkdir_if_missing(osp.dirname(osp.abspath(fpath)))
            self.file = open(fpath, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115  (closed by close)

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def write(self, msg: str) -> int:
        self.console.write(msg)
        if self.file is not None:
            self.file.write(msg)
            if "\n" in msg:  # complete lines are written at once, so that a killed run keeps its log
                self.file.flush()
        return len(msg)

    def flush(self) -> None:
        self.console.flush()
        if self.file is not None:
            self.file.flush()

    def close(self) -> None:
        """Close the file; the console stays open."""
        if getattr(self, "file", None) is not None:
            self.file.close()  # type: ignore[union-attr]
            self.file = None

    def __getattr__(self, name: str) -> Any:
        """Other attributes (``isatty``, ``encoding``, ``fileno`` …) are the console's."""
        if name in ("console", "file"):
            raise AttributeError(name)
        return getattr(self.console, name)


def setup_logger(output: str | Path | None = None) -> None:
    """Copy stdout into ``<output>/log.txt`` (or into ``output`` itself if it ends in .txt or .log).

    An existing log is appended to, so that a resumed run has a single log. None leaves stdout unchanged.
    """
    if output is None:
        return
    fpath = Path(output) if str(output).endswith((".txt", ".log")) else Path(output) / "log.txt"
    previous = sys.stdout
    sys.stdout = Logger(fpath)  # type: ignore[assignment]
    if isinstance(previous, Logger):
        previous.close()
