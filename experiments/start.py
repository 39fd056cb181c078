"""Start of a shell entry: ``python -m experiments.start SCRIPT CALLER_FOLDER ENTRY METHOD [ARGUMENT ...]``, by run.sh.

Imports are inside functions, so that a Python which cannot run the project gets to say so.
"""

import signal
import sys

from dassl.interpreter import require_python


def main() -> int:
    """Run an entry."""
    _let_ctrl_c_end()
    with require_python():
        from experiments.entry import main
    return main(sys.argv[1:])


def results() -> int:
    """Print the report of an output folder (scripts/results.py)."""
    _let_ctrl_c_end()
    with require_python():
        from experiments.__main__ import main
    return main(["report", *sys.argv[1:]])


def _let_ctrl_c_end() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends without a traceback


if __name__ == "__main__":
    sys.exit(main())
