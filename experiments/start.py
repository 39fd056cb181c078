"""Start of a shell entry: ``python -m experiments.start SCRIPT CALLER_FOLDER ENTRY METHOD [ARGUMENT ...]``, by run.sh.

Imports are inside functions, so that a Python which cannot run the project gets to say so.
"""

import io
import signal
import sys

from dassl.interpreter import require_python


def main() -> int:
    """Run an entry."""
    _prepare()
    with require_python():
        from experiments.entry import main
    return main(sys.argv[1:])


def results() -> int:
    """Print the tables of an output folder (scripts/results.py)."""
    _prepare()
    with require_python():
        from experiments.results import main
    return main()


def _prepare() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends without a traceback
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # folders may have names that the console cannot show


if __name__ == "__main__":
    sys.exit(main())
