"""How a run uses its machine's processor: the number of threads, and memory that every step needs again."""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

__all__ = ["choose_threads", "cores", "keep_freed_memory"]

# Multiply-adds per image below which an operator takes microseconds: threads would gain little, and on a busy machine
# each operator waits for the slowest of them. ViT-Micro/8 has 0.03e9, ViT-B/32 4e9.
SHARED_WORK = 1e9
_CGROUPS = Path("/sys/fs/cgroup")
_GROUP_OF_PROCESS = Path("/proc/self/cgroup")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_MMAP_THRESHOLD = 32 << 20  # bytes that glibc accepts
_limits: dict[int, int] = {}  # the number of threads that was chosen: what PyTorch had before
_MALLOC = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")


def cores() -> int:
    """Cores that this process may use: its affinity (taskset, Slurm) within its control group's quota (docker)."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(allowed, _quota())))


def _quota() -> float:
    """Cores' worth of time that the process's control group and those around it get; infinite without a limit."""
    quota = float("inf")
    with contextlib.suppress(OSError, ValueError):
        for line in _GROUP_OF_PROCESS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "cpu", "cpu,cpuacct", "cpuacct,cpu"):
                continue
            root = _CGROUPS / controllers  # version 2 has one tree, without a name
            group = root / path.lstrip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(root):
                    quota = min(quota, _quota_of(folder))
    return quota


def _quota_of(group: Path) -> float:
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        if (group / "cpu.max").is_file():
            limit, period = (group / "cpu.max").read_text().split()
        else:
            limit, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if limit != "max" and int(limit) > 0:
            return int(limit) / int(period)
    return float("inf")


def choose_threads(work: float) -> str:
    """Set the number of threads that operators on the CPU use, and return a line that states it.

    One thread for little work, else all cores that the process may use; never more than PyTorch had before. The number
    depends on the machine and on ``work`` alone, since the last digits of results depend on it. OMP_NUM_THREADS or
    MKL_NUM_THREADS wins.

    Args:
        work: multiply-adds of the model per image, roughly.
    """
    import torch

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        if os.environ.get(name):
            return f"CPU threads: {torch.get_num_threads()} ({name} is {os.environ[name]})"
    now = torch.get_num_threads()
    limit = _limits.get(now, now)
    small = work < SHARED_WORK
    threads = min(limit, 1 if small else cores())
    torch.set_num_threads(threads)
    _limits.clear()
    _limits[threads] = limit
    reason = "the model is too small for more" if small else f"this process may use {cores()} cores"
    return f"CPU threads: {threads} ({reason}; OMP_NUM_THREADS sets another number)"


def keep_freed_memory() -> None:
    """Let the process keep memory that it frees, for its next allocation; only with glibc, elsewhere this does nothing.

    glibc returns large pieces to the system as they are freed. The activations of the next step are new pages then,
    which the system clears and maps one by one: at ViT-B/16 tens of thousands of page faults per training step, several
    percent of its time. With these settings, pieces of up to 32 MiB come from memory that stays with the process, and
    its peak is what it was. Variables MALLOC_… or GLIBC_TUNABLES that set the same have priority.
    """
    given = any(os.environ.get(name) for name in _MALLOC) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or given:
        return
    with contextlib.suppress(AttributeError, OSError):  # another C library has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, -1)  # never
