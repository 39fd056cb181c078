"""Running train.py so that Ctrl-C, SIGTERM and SIGHUP end it together with the entry that started it.

Each command runs in a session of its own. A signal therefore reaches the entry alone, whether it was sent to it or by
the terminal to everything in it, and the entry passes it on exactly once; train.py ends a run in order at the first
signal, and at once at the second.
"""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any, NamedTuple, NoReturn

__all__ = ["Ended", "Stopped", "end_with_parent", "run", "stop_on_signals"]

_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_TWICE = 0.2  # seconds within which a repeated signal is the same one: `timeout` sends it to the process and its group


class Stopped(BaseException):
    """A signal that ends the program, as KeyboardInterrupt is for Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name


class Ended(NamedTuple):
    """How a command ended."""

    code: int  # its exit status; 128 + the signal that killed it, as a shell reports it
    error: str  # its last line that starts with "error:", or its last one; "" if stderr is a terminal


def stop_on_signals() -> None:
    """From now on, Ctrl-C, SIGTERM and SIGHUP raise :class:`Stopped`. One that is ignored (nohup) remains ignored."""

    def stop(number: int, _frame: object) -> NoReturn:
        raise Stopped(number)

    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def run(command: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """Run a command to its end.

    Args:
        environment: all of its variables.

    Raises:
        Stopped: a signal came; the command has ended, too. A second signal kills it and its workers.
        OSError: it cannot be started.
    """
    relayed = not sys.stderr.isatty()  # a terminal is left to the command, for its progress bar
    received: list[tuple[int, float]] = []
    process: subprocess.Popen[bytes] | None = None

    def forward(number: int, _frame: object) -> None:
        received.append((number, time.monotonic()))
        if process and len(received) == 1:
            process.send_signal(number)
        elif process and received[-1][1] - received[0][1] > _TWICE:
            _signal_session(process, signal.SIGKILL)

    def pause(_number: int, _frame: object) -> None:
        """Ctrl-Z: stop the command and this process; this function goes on when the process is continued."""
        if process:
            _signal_session(process, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        if process:
            _signal_session(process, signal.SIGCONT)

    with _handlers(forward, pause):
        process = subprocess.Popen(
            command,
            env=environment,
            stderr=subprocess.PIPE if relayed else None,
            start_new_session=True,
            preexec_fn=end_with_parent(),
        )
        if received:
            process.send_signal(received[0][0])
        last: deque[str] = deque(maxlen=50)
        relay = Thread(target=_relay, args=(process.stderr, last), daemon=True) if relayed else None
        if relay:
            relay.start()
        code = process.wait()
        if relay:
            relay.join(timeout=2)  # a worker that outlives train.py for a moment keeps the pipe open
    if received:
        if code < 0:  # killed before it could end its workers
            _signal_session(process, signal.SIGKILL)
        raise Stopped(received[0][0])
    errors = [line for line in last if line.startswith("error:")] or [line for line in last if line.strip()]
    return Ended(code if code >= 0 else 128 - code, errors[-1].strip() if errors else "")


@contextmanager
def _handlers(ending: Callable[[int, Any], None], pausing: Callable[[int, Any], None]) -> Iterator[None]:
    """Handlers of the signals that are not ignored, until the end of the block."""
    wanted = dict.fromkeys(_ENDING, ending)
    if hasattr(signal, "SIGTSTP"):
        wanted[signal.SIGTSTP] = pausing
    before = {number: handler for number in wanted if (handler := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, wanted[number])
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, before[number])


def end_with_parent() -> Callable[[], Any] | None:
    """What a command calls first, so that it gets SIGTERM when the entry that started it is killed; Linux only."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl, pr_set_pdeathsig, parent = ctypes.CDLL(None).prctl, 1, os.getpid()

    def follow() -> None:
        prctl(pr_set_pdeathsig, int(signal.SIGTERM))
        if os.getppid() != parent:  # it was killed before
            os._exit(128 + signal.SIGTERM)

    return follow


def _signal_session(process: "subprocess.Popen[bytes]", number: int) -> None:
    """Send a signal to a command and its workers."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _relay(stream: Any, last: "deque[str]") -> None:
    """Copy a command's stderr to ours, and its last lines to ``last``."""
    for line in stream:
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
        last.append(line.decode(errors="replace"))
