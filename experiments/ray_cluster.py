"""Jobs as tasks of a Ray cluster: one that runs already, or one that is started on this machine.

A task runs one train.py on its node and watches it. Nodes and the machine that runs the plan share the output folder,
so that any of them resumes what another has begun. Ray is imported only when this launcher is chosen.
"""

import contextlib
import os
import secrets
import shlex
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from dassl.utils.files import write_json
from experiments.local import JOB_MEMORY, Process
from experiments.protocols import Job
from experiments.runs import ROOT
from experiments.states import JOB_FILE, LOG, state_of

__all__ = ["RayCluster"]

_LOOK = 0.05  # seconds between two looks at a train.py on its node
_PATIENCE = 25.0  # seconds that a stopped train.py has to end by itself; `drive` waits for a little longer
_WORD = 3.0  # seconds that Ray has to tell of a stopped job that has ended
_FOLDER_DELAY = 60.0  # seconds until a file that another machine wrote is seen in a network folder
_RETRIES = 3  # of a job whose node was lost
_NODES_AGE = 2.0  # seconds for which the list of nodes is good
_STORE = 100 * 2**20  # bytes of shared memory for Ray's own objects, of which jobs have none
_NOT_COPIED = ["/.git", "/.venv", "/data", "/output", "/build", "__pycache__"]


class RayCluster:
    """A Ray cluster. One that was started here ends with this process.

    Args:
        at_once: jobs handed to Ray at the same time; by default as many as the nodes have room for.
        address: ``auto`` or HOST:PORT of a running cluster; by default that of RAY_ADDRESS, or a new one.
        gpus: of a job, at most 1; by default 1 if there are any.
        cpus: of a job; by default so that they do not limit how many jobs GPUs or memory have room for.
        memory: bytes reserved for a job; by default enough for ViT-B/16 without a GPU, nothing with one.
        copy_code: copy the code to the nodes; by default they have this folder under the same path.

    Raises:
        ValueError: Ray is not installed, a malformed address, or no node has room for a job.
        ConnectionError: there is no cluster at that address, or it refuses to be joined.
    """

    def __init__(
        self,
        at_once: int | None = None,
        address: str | None = None,
        gpus: float | None = None,
        cpus: int | None = None,
        memory: int | None = None,
        copy_code: bool = False,
    ) -> None:
        _connect(address or os.environ.get("RAY_ADDRESS", ""), copy_code)
        self._at_once, self._looked, self._room = at_once, 0.0, 0
        self._tasks: list[_Task] = []
        self._losses: Counter[str] = Counter()  # of nodes, by run folder
        nodes = _nodes()
        self.gpus = float(any(_gpus(node) for node in nodes)) if gpus is None else gpus
        largest = max((int(node.get("memory", 0)) for node in nodes), default=0)
        self.memory = (0 if self.gpus else min(JOB_MEMORY, largest)) if memory is None else memory
        self.cpus = cpus or min((share for node in nodes if (share := self._share(node))), default=1)
        if at_once is None and not sum(map(self._room_of, nodes)):
            raise ValueError(
                f"no node of the Ray cluster has room for a job of {self._job()}; its nodes have "
                f"{'; '.join(map(_describe, nodes))}. Ask for less with --cpus-per-job, --gpus-per-job or "
                "--memory-per-job, or, on a cluster that grows with demand, say with --jobs how many jobs to hand to it"
            )

    def describe(self) -> str:
        nodes = _nodes()
        room = self._at_once or sum(map(self._room_of, nodes))
        return f"{room} at a time on a Ray cluster of {_count(len(nodes), 'node')}, each with {self._job()}"

    def has_room(self) -> bool:
        self._tasks = [task for task in self._tasks if not task.has_ended]
        if not self._at_once and time.monotonic() - self._looked > _NODES_AGE:
            self._looked, self._room = time.monotonic(), sum(map(self._room_of, _nodes()))
        # One job more than nothing: a cluster without nodes may grow once it is asked
        return len(self._tasks) < (self._at_once or max(1, self._room))

    def start(self, job: Job, alone: bool = False) -> "_Task":
        import ray

        job.path.mkdir(parents=True, exist_ok=True)
        cpus, gpus = self.cpus, self.gpus
        if alone:  # a GPU, and all the cores of the node that has most
            gpus = float(gpus > 0)
            cpus = max((int(node.get("CPU", 0)) for node in _nodes() if _gpus(node) >= gpus), default=cpus)
        environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cpus)), "FEATURES": job.features}
        if not gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        run = ray.remote(_run).options(num_cpus=cpus, num_gpus=gpus, memory=self.memory, max_retries=0, name=job.folder)
        task = _Task(job, lambda: run.remote(job, environment), self._losses)
        self._tasks.append(task)
        return task

    def _job(self) -> str:
        return _describe({"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory})

    def _share(self, node: Mapping[str, float]) -> int:
        """The cores of a node for each job that its GPUs or its memory have room for; 0 without room."""
        cores = int(node.get("CPU", 0))
        jobs = self._room_on_gpus(node) if self.gpus else cores
        if self.memory:
            jobs = min(jobs, int(node.get("memory", 0)) // self.memory)
        return max(1, cores // jobs) if cores and jobs else 0

    def _room_of(self, node: Mapping[str, float]) -> int:
        """How many jobs a node has room for."""
        limits = [int(node.get("CPU", 0)) // self.cpus]
        if self.gpus:
            limits.append(self._room_on_gpus(node))
        if self.memory:
            limits.append(int(node.get("memory", 0)) // self.memory)
        return min(limits)

    def _room_on_gpus(self, node: Mapping[str, float]) -> int:
        return _gpus(node) * int(1 / self.gpus + 1e-6)  # a job lies on one GPU


def _nodes() -> list[dict[str, float]]:
    """The resources of the nodes that are there."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _gpus(node: Mapping[str, float]) -> int:
    return int(node.get("GPU", 0))


def _describe(resources: Mapping[str, float]) -> str:
    found = [_count(resources[name], name) for name in ("CPU", "GPU") if resources.get(name)]
    if resources.get("memory"):
        found.append(f"{resources['memory'] / 2**30:.1f} GiB")
    return ", ".join(found) or "nothing"


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number <= 1 else 's'}"


# ---- a job that Ray runs ---------------------------------------------------------------------------------------


class _Task:
    """A job that Ray runs. If its node is lost, it is given to another one, which resumes it.

    Args:
        job: what runs.
        submit: gives the job to Ray, and returns Ray's reference to its end.
        losses: how many nodes were lost with each job so far, by run folder.
    """

    def __init__(self, job: Job, submit: Callable[[], Any], losses: Counter[str]) -> None:
        self._job, self._submit, self._losses = job, submit, losses
        self._stopped, self._since = 0.0, 0.0  # when it was stopped, and when it succeeded
        self.has_ended = False
        self._begin()

    def _begin(self) -> None:
        self._reference = self._submit()
        self._end = self._reference.future()

    def poll(self) -> int | None:
        if not self._end.done():
            return -signal.SIGTERM if self._is_cut_off() else None
        try:
            status = self._ended()
        except BaseException:
            self.has_ended = True
            raise
        self.has_ended = status is not None
        return status

    def _ended(self) -> int | None:
        """The exit status of a job that Ray runs no longer; None if it goes on elsewhere, or is still to be seen."""
        from ray import exceptions as of_ray

        error = self._end.exception()
        if self._stopped:
            return -signal.SIGTERM
        if error is None:
            status = self._end.result()
            if status is None:
                raise BlockingIOError(f"{self._job.folder} is run by another process")
            return status if status or self._is_seen() else None
        if isinstance(error, of_ray.RayTaskError) and isinstance(error.cause, OSError):
            raise error.cause
        if isinstance(error, of_ray.OutOfMemoryError):
            self._note_loss("the node ran out of memory")
            return -signal.SIGKILL
        if isinstance(error, of_ray.LocalRayletDiedError):
            raise ConnectionError(
                "Ray has ended on this machine; the same command continues on a new cluster"
            ) from error
        if isinstance(error, (of_ray.WorkerCrashedError, of_ray.NodeDiedError)):
            self._note_loss("its node was lost")
            self._losses[self._job.folder] += 1
            if self._losses[self._job.folder] > _RETRIES:
                return -signal.SIGTERM
            self._begin()
            return None
        why = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise ConnectionError(
            f"Ray cannot run {self._job.folder} on a node: {why}. Nodes need {ROOT}, or --copy-code, and a Python with "
            "the packages of requirements.txt (docs/EXPERIMENTS.md)"
        ) from error

    def _is_cut_off(self) -> bool:
        """Whether a stopped job has ended without a word from Ray, which the same signal has ended."""
        return (
            bool(self._stopped) and time.monotonic() - self._stopped > _WORD and state_of(self._job).name != "running"
        )

    def _is_seen(self) -> bool:
        """Whether the results are seen here, which takes a moment in a network folder."""
        self._since = self._since or time.monotonic()
        return (self._job.path / "results.json").is_file() or time.monotonic() - self._since > _FOLDER_DELAY

    def _note_loss(self, what: str) -> None:
        """Write what nobody else can: that the job has ended."""
        with contextlib.suppress(OSError, ValueError):
            with open(self._job.path / LOG, "a", encoding="utf-8") as log:
                print(f"\nerror: {what} while it ran this job", file=log)
            state = state_of(self._job)
            if state.name == "running" and state.host != socket.gethostname():  # here, its process is looked up
                command = shlex.join(self._job.command(sys.executable))
                record = {"host": state.host, "process": None, "command": command, "status": -signal.SIGKILL}
                write_json(record, self._job.path / JOB_FILE)

    def stop(self) -> None:
        self._cancel(force=False)

    def kill(self) -> None:
        self._cancel(force=True)

    def _cancel(self, force: bool) -> None:
        import ray

        self._stopped = self._stopped or time.monotonic()
        ray.cancel(self._reference, force=force)


def _run(job: Job, environment: Mapping[str, str], folder_delay: float = _FOLDER_DELAY) -> int | None:
    """Run a job on this node; returns its exit status, None if another process runs it.

    ``ray.cancel`` sends SIGINT, which asks the job to end. If this process dies, so does the job.

    Raises:
        FileNotFoundError: the output folder is another one than that of the machine that runs the plan.
    """
    asked: list[float] = []  # when to end
    before = signal.signal(signal.SIGINT, lambda *_: asked.append(time.monotonic()))
    try:
        _wait_for_folder(job, folder_delay, asked)
        if asked:
            return -signal.SIGTERM
        process = Process(job, environment)
        told = False
        while (status := process.poll()) is None:
            if asked and not told:
                process.stop()
                told = True
            elif asked and time.monotonic() - asked[0] > _PATIENCE:
                process.kill()
            time.sleep(_LOOK)
        return status
    except BlockingIOError:
        return None
    finally:
        signal.signal(signal.SIGINT, before)


def _wait_for_folder(job: Job, delay: float, asked: list[float]) -> None:
    """Wait until the folder that the launcher made is seen on this node, or the job is asked to end."""
    deadline = time.monotonic() + delay
    while not (asked or job.path.is_dir()):
        if time.monotonic() > deadline:
            raise FileNotFoundError(
                f"{socket.gethostname()} has no folder {job.path}, which was made where the plan runs: all nodes of the"
                " cluster need the output folder under one path, on a disk that they share (docs/EXPERIMENTS.md)"
            )
        time.sleep(_LOOK)


# ---- joining or starting a cluster -----------------------------------------------------------------------------


def _connect(address: str, copy_code: bool) -> None:
    """Join the cluster at ``address``, or start one on this machine that nothing else can reach."""
    address = "" if address == "local" else address
    host, _, port = address.rpartition(":")
    if address and address != "auto":
        _check(address, host, port)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not address or host in ("127.0.0.1", "localhost"):
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # on Linux, too: use 127.0.0.1
    if not address:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        # Seconds that this process survives its cluster, such as after a SIGTERM to the whole group
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "10")
    ray = _import_ray()
    options: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    if copy_code:
        options["runtime_env"] = {"working_dir": str(ROOT), "excludes": _NOT_COPIED}
    if not address:
        options |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "object_store_memory": _STORE}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address or "local", **options)
    except (OSError, RuntimeError, ray.exceptions.RayError) as error:
        what = f"join the Ray cluster at {address}" if address else "start a Ray cluster on this machine"
        hint = " (if it needs a token, set RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH as there)" if address else ""
        raise ConnectionError(f"cannot {what}{hint}: {error}") from error
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's handler would leave without stopping the jobs


def _check(address: str, host: str, port: str) -> None:
    """Raise an error where there is no cluster, for which Ray waits two minutes."""
    if not host or not port.isdecimal() or "/" in host:
        raise ValueError(f"no address of a Ray cluster: {address}. Expected auto or HOST:PORT, such as 10.0.0.1:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"no Ray cluster answers at {address}: {error}. Start one: ray start --head") from error


def _import_ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise ValueError(
            f"--launcher ray needs Ray, and {sys.executable} has no package 'ray': "
            "run `bash scripts/setup.sh ray`, or `pip install 'ray>=2.9'`"
        ) from error
    return ray
