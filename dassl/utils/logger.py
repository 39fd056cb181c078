"""Copying everything printed to a file."""

import os.path as osp
import sys
from pathlib import Path
from typing import IO, Any, TextIO

from dassl.utils.files import mkdir_if_missing, open_recording, write_error

__all__ = ["Logger", "setup_logger"]


class Logger:
    """Writes to the console, if there is one, and, appending, to ``fpath``.

    >>> sys.stdout = Logger("output/log.txt")

    Raises:
        WriteError: the file cannot be written; it is closed then, and later output goes to the console alone.
    """

    def __init__(self, fpath: str | Path | None = None) -> None:
        self.console: TextIO | None = sys.stdout.console if isinstance(sys.stdout, Logger) else sys.stdout
        self.file: IO[str] | None = None
        if fpath is not None:
            try:
                mkdir_if_missing(osp.dirname(osp.abspath(fpath)))
                self.file, self._record = open_recording(fpath, "a")
            except OSError as error:
                raise write_error(error, fpath) from error

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def write(self, msg: str) -> int:
        try:
            if self.file is not None:
                self.file.write(msg)
                if "\n" in msg:  # complete lines are written at once, so that a killed run keeps its log
                    self._flush_file()
        finally:  # whichever of the two cannot be written, the other has the text
            if self.console is not None:
                self.console.write(msg)
        return len(msg)

    def flush(self) -> None:
        self._flush_file()
        if self.console is not None:
            self.console.flush()

    def _flush_file(self) -> None:
        if self.file is None:
            return
        self.file.flush()
        if error := self._record.error:
            self.close()
            raise write_error(error, self._record.name) if isinstance(error, OSError) else error

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
