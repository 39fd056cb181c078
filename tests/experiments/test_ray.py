"""Jobs on Ray: real clusters of several nodes on this machine, with a stand-in for train.py."""

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future
from pathlib import Path

import pytest
from filelock import FileLock

from experiments import ray_cluster
from experiments.__main__ import parse_args
from experiments.launch import drive
from experiments.ray_cluster import RayCluster
from experiments.states import state_of
from tests.experiments.stand_in_job import stand_ins, starts
from tests.paths import ROOT

needs_ray = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs Ray (bash scripts/setup.sh ray)")
STORE = 80 * 2**20  # bytes, about the least that Ray takes
GIB = 2**30


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture(scope="module")
def cluster():
    """A head that runs no jobs, a node with a GPU and one without: none of their resources needs to be real."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("USAGE_STATS_ENABLED", "ENABLE_WINDOWS_OR_OSX_CLUSTER", "worker_niceness"):
            patch.setenv(f"RAY_{name}", "0")
        from ray.cluster_utils import Cluster

        nodes = Cluster()
        try:
            nodes.add_node(num_cpus=0, **ON_THIS_MACHINE, include_dashboard=False)
            nodes.with_gpu = nodes.add_node(num_cpus=2, num_gpus=1, wait=False, **ON_THIS_MACHINE)
            nodes.without_gpu = nodes.add_node(num_cpus=3, wait=False, **ON_THIS_MACHINE)
            nodes.wait_for_nodes(60)
            yield nodes
        finally:
            nodes.shutdown()


ON_THIS_MACHINE = {"node_ip_address": "127.0.0.1", "object_store_memory": STORE, "memory": 4 * GIB}


@pytest.fixture
def join(cluster):
    """Joins the cluster as a launcher does, and leaves it."""
    import ray

    yield lambda *args, **kwargs: RayCluster(*args, address=cluster.address, **kwargs)
    ray.shutdown()
    cluster.wait_for_nodes()  # it goes on


def run(jobs, launcher):
    """`drive` in another thread; returns the thread, and a list that gets its outcome."""
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(drive(jobs, launcher)))
    thread.start()
    return thread, outcomes


def wait_until(condition, seconds=40):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def record(job):
    try:
        return json.loads((job.path / "job.json").read_text(encoding="utf-8"))
    except OSError:
        return {}


def stat(process):
    """State, parent, group and session of a process."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:4]
    except OSError:
        return ["Z", "0", "0", "0"]


def is_there(process):
    return stat(process)[0] != "Z"


def parent(process):
    return int(stat(process)[1])


def processes():
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def session(leader):
    """The processes of a session: Ray's workers have groups of their own."""
    return [process for process in processes() if int(stat(process)[3]) == leader]


def end(left):
    for process in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@needs_ray
def test_a_failure_stops_nothing_else_and_what_is_finished_is_not_run_again(join, tmp_path):
    jobs = stand_ins(tmp_path, "fail", "", "", "")
    launcher = join(gpus=0, cpus=1, memory=0)
    assert launcher.describe() == "5 at a time on a Ray cluster of 3 nodes, each with 1 CPU"
    outcome = drive(jobs, launcher)
    assert outcome.failed == {jobs[0].folder: "error: no such dataset"} and len(outcome.finished) == 3
    assert sorted(starts(jobs[0])) == [["seed0", "1"], ["seed1", "1"], ["seed2", "1"], ["seed3", "1"]]
    assert record(jobs[0])["status"] == 2 and record(jobs[1])["host"] == socket.gethostname()
    assert (jobs[1].path / "job.log").read_text().split()[:2] == ["''", str(ROOT)], "no GPU is seen"
    assert len(drive(jobs, launcher).finished) == 3 and len(starts(jobs[0])) == 4


@needs_ray
def test_two_jobs_share_a_gpu_and_a_third_waits_for_it(join, tmp_path):
    launcher = join(3, gpus=0.5)
    assert (launcher.cpus, launcher.memory, launcher._room_of({"CPU": 2, "GPU": 1})) == (1, 0, 2)
    jobs = stand_ins(tmp_path, "meet", "meet", "meet")
    assert len(drive(jobs, launcher).finished) == 3
    logs = [(job.path / "job.log").read_text().split() for job in jobs]
    assert {log[0] for log in logs} == {"'0'"}
    runs = sorted(
        (float(log[2]), (job.path / "results.json").stat().st_mtime) for log, job in zip(logs, jobs, strict=True)
    )
    assert runs[1][0] < runs[0][1], "the first two run at the same time"
    assert runs[2][0] > min(runs[0][1], runs[1][1])


@needs_ray
def test_out_of_memory_is_tried_alone_with_all_cores_of_a_node(join, tmp_path):
    jobs = stand_ins(tmp_path, "killed once", "")
    assert len(drive(jobs, join(gpus=0, cpus=1)).finished) == 2
    assert starts(jobs[0])[2:] == [["seed0", "3"]]


@needs_ray
def test_a_job_that_another_process_runs_is_waited_for(join, tmp_path):
    [job] = stand_ins(tmp_path, "")
    job.path.mkdir(parents=True)
    with FileLock(job.path / ".job.lock"):
        thread, outcomes = run([job], join(gpus=0))
        time.sleep(4)
        assert not (job.path / "results.json").exists() and thread.is_alive()
    thread.join()
    assert outcomes[0].finished == [job.folder] and len(starts(job)) == 1


@needs_ray
def test_a_job_that_no_node_has_room_for(join):
    with pytest.raises(ValueError, match=r"no node .* 9 CPUs, 4\.0 GiB; its nodes have .*2 CPUs, 1 GPU, 4\.0 GiB"):
        join(gpus=0, cpus=9, memory=4 * GIB)


DRIVER = """
import sys
from pathlib import Path
from dassl.utils import command
from experiments import __main__ as program
from tests.experiments.stand_in_job import stand_ins
program.plans.jobs = lambda plan, data, output, options: stand_ins(Path(output), "slow", "slow")
command.run(lambda: program.main(["run", "demo", "--launcher", "ray", "--gpus-per-job", "0", *sys.argv[1:]]))
"""


class Program:
    """`python -m experiments run --launcher ray` with two jobs that run until they are stopped."""

    def __init__(self, output, *words):
        self.jobs = stand_ins(output, "slow", "slow")
        words = ["--output", str(output), "--memory-per-job", "0", "--cpus-per-job", "1", *words]
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *words],
            cwd=ROOT,
            env=os.environ | {"RAY_worker_niceness": "0"},
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for_jobs(self):
        wait_until(lambda: self.process.poll() or (len(starts(self.jobs[0])) == 2 and all(map(record, self.jobs))), 120)
        self.trains = [record(job)["process"] for job in self.jobs]

    def wait_for_end(self):
        """Its exit status, and what it printed."""
        said, _ = self.process.communicate(timeout=60)
        wait_until(lambda: not any(map(is_there, [*self.trains, *session(self.process.pid)])))
        return self.process.returncode, said.splitlines()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end([self.process.pid, *session(self.process.pid)])


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc; Linux ends a process with its parent")


@needs_ray
@needs_proc
def test_jobs_end_when_the_program_is_killed_and_the_cluster_that_it_joined_goes_on(cluster, tmp_path):
    with Program(tmp_path, "--address", cluster.address) as program:
        program.wait_for_jobs()
        program.process.kill()
        program.wait_for_end()
    assert [state_of(job).name for job in program.jobs] == ["interrupted", "interrupted"]
    cluster.wait_for_nodes()


@needs_ray
@needs_proc
def test_ctrl_c_ends_the_jobs_and_the_cluster_that_was_started(tmp_path):
    """It reaches the whole process group. The jobs run in a copy of the code."""
    with Program(tmp_path, "--copy-code") as program:
        program.wait_for_jobs()
        os.killpg(program.process.pid, signal.SIGINT)
        status, said = program.wait_for_end()
    assert status == 130
    assert said[-1] == "stopped by Ctrl-C: the running jobs have ended, the same command continues"
    assert [record(job)["status"] for job in program.jobs] == [1, 1], "they stopped by themselves"
    assert "working_dir_files" in (program.jobs[0].path / "job.log").read_text()


@needs_ray
def test_a_lost_node_s_jobs_go_elsewhere(join, cluster, tmp_path):
    jobs = stand_ins(tmp_path, "slow once", "wait", "wait", "wait")
    thread, outcomes = run(jobs, join(gpus=0, cpus=1))
    wait_until(lambda: record(jobs[0]) and len(starts(jobs[0])) > 1)
    train = record(jobs[0])["process"]
    raylet = parent(parent(train))
    [lost] = [node for node in cluster.worker_nodes if node.all_processes["raylet"][0].process.pid == raylet]
    of_ray = [process for process in processes() if parent(process) == raylet]
    cluster.remove_node(lost, allow_graceful=False)
    wait_until(lambda: not is_there(train))
    thread.join()
    end(of_ray)  # agents of the node, which otherwise end after half a minute
    assert sorted(outcomes[0].finished) == sorted(job.folder for job in jobs) and not outcomes[0].failed
    count = Counter(seed for seed, _ in starts(jobs[0]))
    assert count["seed0"] == 2 and state_of(jobs[0]).name == "finished"


# ---- without a cluster -----------------------------------------------------------------------------------------


class Lost:
    """A task whose end is this error."""

    def __init__(self, error):
        self.error = error

    def future(self):
        end = Future()
        end.set_exception(self.error)
        return end


@needs_ray
def test_a_job_that_loses_node_after_node_is_given_up_and_not_shown_as_running(tmp_path):
    from ray.exceptions import NodeDiedError

    [job] = stand_ins(tmp_path, "")
    job.path.mkdir(parents=True)
    (job.path / "job.json").write_text('{"host": "node7", "process": 1, "command": "", "status": null}')
    assert state_of(job).name == "running"
    submitted = []
    task = ray_cluster._Task(job, lambda: submitted.append(1) or Lost(NodeDiedError("gone")), Counter())
    assert [task.poll() for _ in range(4)] == [None, None, None, -signal.SIGTERM] and len(submitted) == 4
    state = state_of(job)
    assert state.name == "interrupted" and state.reason == "error: its node was lost while it ran this job"


@needs_ray
def test_a_node_that_cannot_run_jobs_says_why(tmp_path):
    from ray.exceptions import RaySystemError

    [job] = stand_ins(tmp_path, "")
    error = RaySystemError("System error", "Traceback\nModuleNotFoundError: No module named 'experiments'")
    task = ray_cluster._Task(job, lambda: Lost(error), Counter())
    with pytest.raises(
        ConnectionError, match=r"seed0 on a node: .*No module named 'experiments'\. Nodes need .*--copy-code"
    ):
        task.poll()
    assert task.has_ended


@needs_ray
def test_a_cluster_that_ended_is_no_lost_node(tmp_path):
    """Another node would not be found either: the job is not given up, and the plan ends."""
    from ray.exceptions import LocalRayletDiedError

    [job] = stand_ins(tmp_path, "")
    task = ray_cluster._Task(job, lambda: Lost(LocalRayletDiedError()), Counter())
    with pytest.raises(ConnectionError, match="Ray has ended on this machine; the same command continues"):
        task.poll()


def test_a_node_without_the_output_folder_says_so(tmp_path):
    [job] = stand_ins(tmp_path / "not shared", "")
    with pytest.raises(FileNotFoundError, match=f"{socket.gethostname()} has no folder .* on a disk that they share"):
        ray_cluster._run(job, {}, folder_delay=0)


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"no package 'ray': run `bash scripts/setup.sh ray`"):
        RayCluster()


def test_an_address_where_no_cluster_answers():
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionError, match=r"no Ray cluster answers at 127\.0\.0\.1:\d+: .*ray start --head"):
            RayCluster(address=f"127.0.0.1:{bound.getsockname()[1]}")
    with pytest.raises(ValueError, match=r"ray://host:10001\. Expected auto or HOST:PORT"):
        RayCluster(address="ray://host:10001")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--gpus-per-job 0.5", "--gpus-per-job: only with --launcher ray"),
        ("--launcher ray --gpus-per-job 2", "--gpus-per-job 2: expected 0 to 1"),
        ("--launcher ray --gpus-per-job nan", "--gpus-per-job nan: expected 0 to 1"),
        ("--launcher ray --cpus-per-job 0", "--cpus-per-job 0: expected at least 1"),
        ("--launcher ray --memory-per-job inf", "--memory-per-job inf: expected a number of GiB"),
        ("--launcher ray --copy-code", "expected an absolute --output that all nodes share, found output"),
    ],
)
def test_wrong_flags(capsys, words, message):
    with pytest.raises(SystemExit):
        parse_args(["run", "demo", *words.split()])
    assert message in capsys.readouterr().err
