"""Which errors are explained to the user in one line, and how: disks, memory, processes that load data."""

import errno
import re
import signal

from dassl.interpreter import missing_package
from dassl.utils.disk import DISK_FULL
from dassl.utils.files import WriteError

__all__ = ["WorkerError", "explain", "explain_worker", "worker_death"]

#: Errors whose text is a message for the user; others are mistakes of the program, whose traceback is wanted
USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)
DISK_ERRORS = DISK_FULL | {errno.EROFS, errno.EIO}
OUT_OF_MEMORY = re.compile(
    r"out of memory|(?:can't|cannot) allocate memory|not enough memory|CUBLAS_STATUS_ALLOC_FAILED|std::bad_alloc",
    re.IGNORECASE,
)
LESS_MEMORY = (
    "lower DATALOADER.TRAIN_X.BATCH_SIZE (for a test DATALOADER.TEST.BATCH_SIZE), set TRAINER.<method>.PREC to fp16 or"
    " amp, take fewer classes or a smaller MODEL.BACKBONE.NAME; if it is not the GPU's, also lower"
    " DATALOADER.NUM_WORKERS and DATALOADER.CACHE_MB"
)
NOT_ON_MPS = re.compile(r"The operator '([^']+)' is not currently (?:implemented|supported) (?:for|on) the MPS")
WORKER = re.compile(r"DataLoader worker \(pid\S* ([\d, ]+)\) (?:is killed by signal: ([^.]*)|exited unexpectedly)")
ON_CPU_INSTEAD = "set PYTORCH_ENABLE_MPS_FALLBACK=1 before the command to compute it on the CPU, or give --device cpu"
SHARED_MEMORY = "shared memory (/dev/shm) is full: lower DATALOADER.NUM_WORKERS or enlarge it (in Docker, --shm-size)"
WHY_KILLED = {
    "SIGKILL": "usually by the system because memory ran out: lower DATALOADER.NUM_WORKERS or give the job more memory",
    "SIGBUS": f"usually because {SHARED_MEMORY}",
    "SIGSEGV": "a crash in a library that reads images, or too little memory: lower DATALOADER.NUM_WORKERS",
    "SIGTERM": "by another program or the scheduler",
    "": "often because memory ran out: lower DATALOADER.NUM_WORKERS; with 0 its own error is shown",
}


class WorkerError(ChildProcessError):
    """A process that loads data has died, or has been stopped for long."""


def explain(error: Exception) -> tuple[str | None, bool]:
    """One line for an error, and whether it came from outside, so that the same command may succeed later.

    The line is None for a mistake of the program.
    """
    text = missing_package(error) or str(error)
    if isinstance(error, MemoryError) or (OUT_OF_MEMORY.search(text) and isinstance(error, (RuntimeError, OSError))):
        line = next((line for line in reversed(text.splitlines()) if OUT_OF_MEMORY.search(line)), "")
        said = line.removeprefix("MemoryError").strip(": ").partition(". ")[0].removesuffix(".")
        return f"memory ran out{f' ({said})' if said else ''}: {LESS_MEMORY}", True
    if isinstance(error, RuntimeError) and (worker := explain_worker(error)):
        return worker, True
    if isinstance(error, NotImplementedError) and (operator := NOT_ON_MPS.search(text)):
        return f"PyTorch cannot compute {operator[1]} on the Mac's GPU: {ON_CPU_INSTEAD}", False
    if isinstance(error, USER_ERRORS):
        return text, isinstance(error, (WriteError, WorkerError)) or getattr(error, "errno", None) in DISK_ERRORS
    return None, False


def explain_worker(error: BaseException) -> str | None:
    """One line for PyTorch's error about a worker process of a DataLoader; None if it is about something else."""
    text = f"{error.__cause__}\n{error}"  # the cause, if there is one, knows the signal
    if found := WORKER.search(text):
        described = (s for s in signal.Signals if signal.strsignal(s) == (found[2] or "").strip())
        return worker_death(found[1], next(described, 0))
    if "DataLoader worker" in text and re.search(r"shared memory|\bshm\b", text):
        return f"a worker process of the data loader cannot pass on a batch: {SHARED_MEMORY}"
    if re.search(r"Too many open files|received \d+ items of ancdata", text):
        return "too many open files between this process and its data loader's workers: raise the limit (ulimit -n)"
    return None


def worker_death(pid: int | str | None, number: int) -> str:
    """One line for a worker process that a signal has ended; 0 for one that ended by itself."""
    name = signal.Signals(number).name if number else ""
    death = f"was killed by {name}" if name else "ended"
    return f"the data loader's worker process {pid} {death}, {WHY_KILLED.get(name, 'which is not usual')}"
