"""How a command ends: in one line, be it for an error that a user can fix, for Ctrl-C or for a scheduler's signal."""

import atexit
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, NoReturn

from dassl.utils.console import printable
from dassl.utils.failures import DISK_ERRORS, explain
from dassl.utils.files import write_error

__all__ = ["Stopped", "fail", "run", "watch_signals"]

NAMES = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP (its terminal was closed)"}
REPEATED = 0.5  # seconds within which a further signal counts as the same: one may reach a process twice
OUTPUT_ERRORS = DISK_ERRORS | {errno.EPIPE}  # that the standard output may cause
BROKEN_PIPE = 141  # the status of a program that SIGPIPE ends


class Stopped(KeyboardInterrupt):
    """A signal asked this process to stop. Its argument says what is saved and how to go on."""


class _Signals:
    """The signal that asked this process to stop, 0 before it."""

    number = 0
    time = 0.0
    owner = 0

    def handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.owner:  # a forked child ends as if there were no handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif not self.number:
            self.number, self.time = number, time.monotonic()
            sys.unraisablehook = self.not_raised
            end_workers()  # now: what unwinds below waits for them otherwise
            raise Stopped
        elif time.monotonic() - self.time > REPEATED:
            end_workers()
            os._exit(128 + number)

    def not_raised(self, ignored: Any) -> None:
        """Send a signal again whose exception a destructor swallowed; say nothing of what else fails at the end."""
        if isinstance(ignored.exc_value, Stopped) and self.number:
            number, self.number = self.number, 0
            threading.Timer(0.01, os.kill, (self.owner, number)).start()


_signals = _Signals()


def watch_signals() -> None:
    """Have Ctrl-C, SIGTERM and SIGHUP end this process with one line and a shell's exit status: 130, 143, 129.

    The first signal raises :class:`Stopped` in the main thread, which deletes temporary files on its way out. A second
    one ends the process at once. A signal that the process was started to ignore (``nohup``) stays ignored.
    """
    _signals.owner = os.getpid()
    for name in NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _signals.handle)
    sys.excepthook = _show_uncaught


def _show_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if not _signals.number or os.environ.get("DASSL_TRACEBACK") == "1":
        sys.__excepthook__(kind, error, traceback)
    if _signals.number:  # whatever the error is: a library may turn the exception of a signal into one of its own
        advice = error.args[0] if isinstance(error, Stopped) and error.args else "the same command starts again"
        _say(f"stopped by {NAMES[signal.Signals(_signals.number).name]}: {advice}")
        _flush_stdout()
        atexit._run_exitfuncs()
        os._exit(128 + _signals.number)  # the interpreter takes seconds to free PyTorch, deaf to a further signal


def run(main: Callable[[], int]) -> NoReturn:
    """Run a command's ``main`` and end the process with the status that it returns."""
    watch_signals()
    status = main()
    if error := _flush_stdout():
        status = _fail_for_output(error)
    if status:
        end_workers()
    sys.exit(status)


def fail(error: Exception, advice: str = "") -> int:
    """Print the line for an error, from where it is caught; returns the exit status.

    Args:
        advice: what is saved and how to go on, for errors from outside such as a full disk.

    Raises:
        Exception: ``error``, if it is a mistake of the program or DASSL_TRACEBACK is 1.
    """
    if _signals.number:
        raise Stopped(*filter(None, [advice])) from error
    if isinstance(error, OSError) and _is_bare(error) and (found := _flush_stdout("\n")):
        return _fail_for_output(found, advice)
    line, from_outside = explain(error)
    if line is None or os.environ.get("DASSL_TRACEBACK") == "1":
        raise error
    _say(f"error: {line}" + (f"; {advice}" if from_outside and advice else ""))
    return 2


def _is_bare(error: OSError) -> bool:
    """Whether an error may come from printing: the system's text, no file, no message of our own."""
    return error.errno in OUTPUT_ERRORS and error.filename is None and error.strerror is not None


def _fail_for_output(error: OSError, advice: str = "") -> int:
    """What :func:`fail` does where the standard output cannot be written."""
    advice = advice and f"; {advice}"
    if isinstance(error, BrokenPipeError):  # as in `| head`: the reader has seen enough
        _say(f"stopped: nothing reads the output any more{advice}", console=False)
        return BROKEN_PIPE
    _say(f"error: {write_error(error, 'the standard output')}{advice}")
    return 2


def end_workers() -> None:
    """Kill the processes that :mod:`multiprocessing` started, such as data loaders' workers, even stopped ones."""
    if "multiprocessing.process" in sys.modules:
        _ignore_ends_of_children()
        for child in sys.modules["multiprocessing.process"].active_children():
            child.kill()


def _ignore_ends_of_children() -> None:
    """Have PyTorch raise no error for workers that end now; it sets a handler of SIGCHLD."""
    with suppress(ValueError, AttributeError):  # not in the main thread; on Windows there is none
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _say(line: str, console: bool = True) -> None:
    """Print a line on stderr and into the log, if they can be written to."""
    for stream in (sys.stderr if console else None, getattr(sys.stdout, "file", None)):
        if stream is not None:
            with suppress(OSError, ValueError):
                print(printable(line, keep="\n"), file=stream, flush=True)


def _flush_stdout(text: str = "") -> OSError | None:
    """Print a text and flush the standard output. If that fails, drop what it holds, which would fail again later."""
    console = getattr(sys.stdout, "console", sys.stdout)
    try:
        if console is not None:
            print(end=text, file=console, flush=True)
    except OSError as error:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), console.fileno())
        return error
    return None
