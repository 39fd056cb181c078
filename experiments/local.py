"""Jobs as processes on this machine, shared out over its GPUs or its cores."""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO

from filelock import FileLock, Timeout

from dassl.utils.cpu import cores
from dassl.utils.files import write_json
from experiments.processes import end_with_parent
from experiments.protocols import Job
from experiments.runs import ROOT
from experiments.states import JOB_FILE, LOG

__all__ = ["Local", "Process", "gpus_for"]

_LOCK = ".job.lock"
_SIGN_OF_LIFE = 60.0  # seconds between two signs of life for other hosts, which cannot look up the process
JOB_MEMORY = 3 * 2**30  # bytes of a job on a CPU, ViT-B/16


class Process:
    """A train.py on this machine.

    Args:
        job: what to run.
        environment: variables that differ from this process's.
        more: further entries of job.json.

    Raises:
        BlockingIOError: another process has just started the job.
    """

    def __init__(self, job: Job, environment: Mapping[str, str], more: Mapping[str, str] | None = None) -> None:
        command = job.command(sys.executable)
        job.path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(job.path / _LOCK, blocking=False)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise BlockingIOError(f"{job.folder} is run by another process") from error
        self._file = job.path / JOB_FILE
        self._log: IO[bytes] = open(job.path / LOG, "wb")  # noqa: SIM115  (closed when the process has ended)
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "FEATURES": job.features, **environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then stops its jobs
            preexec_fn=end_with_parent(),
        )
        self._record = {
            "host": socket.gethostname(),
            "process": self._process.pid,
            "command": shlex.join(command),
            "status": None,
            **(more or {}),
        }
        write_json(self._record, self._file, sync=False)  # without it, the job is one that was interrupted
        self._sign = time.monotonic()

    def poll(self) -> int | None:
        status = self._process.poll()
        if status is None and time.monotonic() - self._sign > _SIGN_OF_LIFE:
            self._sign = time.monotonic()
            with contextlib.suppress(OSError):
                os.utime(self._file)
        if status is not None and not self._log.closed:
            self._log.close()
            with contextlib.suppress(OSError):  # the folder was removed, or the disk is full: the job has ended anyway
                write_json(self._record | {"status": status}, self._file, sync=False)
            self._lock.release()
        return status

    def stop(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class Local:
    """Processes on this machine, shared out over its GPUs, or over the cores of a machine without.

    Args:
        at_once: jobs at the same time; by default one for each GPU, or as many as cores and memory allow.
        gpus: identifiers of the GPUs; by default those of CUDA_VISIBLE_DEVICES, or all.
    """

    def __init__(self, at_once: int | None = None, gpus: Sequence[str] | None = None) -> None:
        self.gpus = list(_gpus() if gpus is None else gpus)
        self.cores = cores()
        self.at_once = at_once or len(self.gpus) or max(1, min(self.cores, _free_memory() // JOB_MEMORY))
        self._slots: list[Process | None] = [None] * self.at_once

    def describe(self) -> str:
        where = f"GPUs {', '.join(self.gpus)}" if self.gpus else f"{self.cores} cores"
        return f"{self.at_once} at a time on {where}"

    def _free(self) -> int | None:
        return next((i for i, process in enumerate(self._slots) if process is None or process.poll() is not None), None)

    def has_room(self) -> bool:
        return self._free() is not None

    def start(self, job: Job, alone: bool = False) -> Process:
        slot = self._free()
        assert slot is not None, "start() without room"
        threads = self.cores if alone else max(1, self.cores // self.at_once)
        environment = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(threads)}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        process = self._slots[slot] = Process(job, environment)
        return process


def gpus_for(device: str) -> list[str] | None:
    """The GPUs that jobs on a device share, as :class:`Local` takes them.

    Each job sees one GPU alone, by CUDA_VISIBLE_DEVICES, and counts it from 0: cuda:N is selected here, and the job is
    given cuda.

    Raises:
        ValueError: there is no such GPU.
    """
    if not device.startswith("cuda"):
        return None if device == "auto" else []
    gpus, number = _gpus(), device.partition(":")[2]
    if int(number or 0) < len(gpus):
        return [gpus[int(number)]] if number else gpus
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = "nvidia-smi finds" if visible is None else f"CUDA_VISIBLE_DEVICES is '{visible}', which names"
    there = f"{len(gpus)}, counted from 0" if gpus else "no GPU: name those that there are in CUDA_VISIBLE_DEVICES"
    raise ValueError(f"--device {device}: {found} {there}")


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu not in ("", "-1")]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines()))]


def _free_memory() -> int:
    """Available bytes of this machine; without a way to know, enough for one job."""
    with contextlib.suppress(OSError, StopIteration, ValueError), open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    return JOB_MEMORY
