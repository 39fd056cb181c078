"""Running jobs: order, failures, memory, interruptions; with a stand-in for train.py and real processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dassl.utils.failures import explain
from experiments import __main__ as experiments
from experiments.launch import _ran_out_of_memory, drive
from experiments.local import Local, Process, gpus_for
from experiments.methods import METHODS
from experiments.protocols import Job, Request, few_shot
from experiments.runs import run_status
from experiments.states import state_of

STAND_IN = Path(__file__).parent / "stand_in.py"


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Jobs by what their stand-in does: "" succeeds at once."""
    actions = {}

    def command(job, python):
        return [sys.executable, str(STAND_IN), str(job.path), actions[job.folder]]

    monkeypatch.setattr(Job, "command", command)

    def jobs(*wanted):
        found = []
        for seed, action in enumerate(wanted):
            job = few_shot(Request(METHODS["maple"], "emoji", seed=seed, output=str(tmp_path / "output")))
            actions[job.folder] = action
            found.append(job)
        return found

    return jobs


def starts(job):
    return [line.split() for line in (job.path.parents[1] / "starts.txt").read_text().splitlines()]


def test_every_job_runs_once_and_none_twice(make):
    jobs = make(*[""] * 6)
    events = []
    outcome = drive(jobs, Local(3, []), tell=lambda event, job, state: events.append((event, job.run.seed)))
    assert sorted(outcome.finished) == sorted(job.folder for job in jobs) and not outcome.failed
    assert len(starts(jobs[0])) == 6
    assert {event for event, _ in events} == {"started", "finished"} and len(events) == 12
    assert drive(jobs, Local(3, [])).finished == [job.folder for job in jobs]
    assert len(starts(jobs[0])) == 6


def test_a_failure_stops_nothing_else_and_is_retried_only_when_asked(make):
    jobs = make("fail", "", "")
    outcome = drive(jobs, Local(1, []))
    assert outcome.failed == {jobs[0].folder: "error: no such dataset"} and len(outcome.finished) == 2
    assert state_of(jobs[0]).name == "failed"
    assert drive(jobs, Local(1, [])).failed.keys() == {jobs[0].folder} and len(starts(jobs[0])) == 3
    drive(jobs, Local(1, []), retry_failed=True)
    assert len(starts(jobs[0])) == 4


def test_tests_wait_for_their_training_and_are_not_started_where_it_failed(make, monkeypatch):
    good, bad, of_good, of_bad = make("wait", "fail", "", "")
    monkeypatch.setattr(Job, "status", _status_without_settings)
    jobs = [_needing(of_good, good), _needing(of_bad, bad), good, bad]
    outcome = drive(jobs, Local(4, []))
    assert outcome.finished == [good.folder, of_good.folder] and outcome.blocked == [of_bad.folder]
    assert [seed for seed, _ in starts(good)][-1] == "seed2"


def _needing(job, training):
    return replace(job, needs=training)


def _status_without_settings(job):
    return run_status(job.path)


def test_a_test_whose_training_is_not_there_says_so(make, monkeypatch):
    training, test = make("", "")
    monkeypatch.setattr(Job, "status", _status_without_settings)
    outcome = drive([_needing(test, training)], Local(1, []))
    assert "neither finished nor among these jobs" in outcome.failed[test.folder]


def test_a_job_that_ran_out_of_memory_is_tried_once_more_alone_with_all_cores(make):
    jobs = make("killed once", "wait", "killed")
    local = Local(2, [])
    local.cores = 8
    outcome = drive(jobs, local)
    assert sorted(outcome.finished) == sorted(job.folder for job in jobs[:2])
    assert outcome.failed.keys() == {jobs[2].folder}
    assert starts(jobs[0])[3:] == [["seed0", "8"], ["seed2", "8"]]  # after the others, in turn
    assert {threads for _, threads in starts(jobs[0])[:3]} == {"4"}


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
     RuntimeError("[enforce fail at alloc_cpu.cpp:75] DefaultCPUAllocator: not enough memory: you tried to allocate 9"),
     MemoryError()],
)  # fmt: skip
def test_what_train_py_says_about_memory_is_understood(error):
    assert _ran_out_of_memory(2, f"error: {explain(error)[0]}")
    assert not _ran_out_of_memory(2, "error: no such dataset")


def test_gpus_are_shared_out(make, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert Local().gpus == ["3", "5"] and Local().at_once == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert Local().gpus == [] and Local().at_once >= 1
    seen = []
    monkeypatch.setattr("experiments.local.Process", lambda job, environment: seen.append(environment) or _Running())
    local = Local(4, ["3", "5"])
    for job in make(*[""] * 4):
        local.start(job)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in seen] == ["3", "5", "3", "5"]
    assert not local.has_room()


@pytest.mark.parametrize(
    ("device", "gpus"),
    [("auto", None), ("cuda", ["3", "GPU-5"]), ("cuda:1", ["GPU-5"]), ("cpu", []), ("mps", [])],
)
def test_the_gpus_of_a_device(monkeypatch, device, gpus):
    """Numbers count the GPUs that CUDA_VISIBLE_DEVICES names; each job sees its own one alone."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert gpus_for(device) == gpus


@pytest.mark.parametrize(
    ("device", "visible", "message"),
    [
        ("cuda:2", "3,5", "--device cuda:2: CUDA_VISIBLE_DEVICES is '3,5', which names 2, counted from 0"),
        ("cuda", "", "--device cuda: CUDA_VISIBLE_DEVICES is '', which names no GPU"),
        (
            "cuda:0",
            None,
            "--device cuda:0: nvidia-smi finds no GPU: name those that there are in CUDA_V",
        ),
    ],
)
def test_gpus_that_are_not_there(monkeypatch, device, visible, message):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("experiments.local.shutil.which", lambda name: None)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(ValueError, match=message):
        gpus_for(device)


@pytest.mark.parametrize(
    ("device", "word", "gpus"), [("auto", "", ["3", "5"]), ("cuda:1", "cuda", ["5"]), ("cpu", "cpu", [])]
)
def test_a_plan_on_a_device(monkeypatch, tmp_path, device, word, gpus):
    """A job is never given the number: it sees one GPU, the first one."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    args = experiments.parse_args(["run", "demo", "--output", str(tmp_path), "--device", device])
    for job in experiments._jobs(args):
        command = job.command("python")
        assert (command[command.index("DEVICE") + 1] if "DEVICE" in command else "") == word
    assert experiments.LAUNCHERS["local"](args).gpus == gpus
    assert "DEVICE" not in " ".join(experiments._jobs(experiments.parse_args(["status", "demo"]))[0].command("python"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--device", "gpu"],
            "--device gpu: no such device (did you mean cuda?). There are auto, cpu, cuda, cuda:N",
        ),
        (["--device", "cuda:1", "--launcher", "slurm"], "--device cuda:1: only with --launcher local"),
        (["--device", "cpu", "--launcher", "ray", "--gpus-per-job", "0.5"], "a job with --device cpu uses none"),
    ],
)
def test_devices_that_a_launcher_does_not_have(capsys, words, message):
    with pytest.raises(SystemExit):
        experiments.parse_args(["run", "demo", *words])
    assert message in " ".join(capsys.readouterr().err.split())


def test_jobs_of_a_cluster_on_the_cpu_ask_for_no_gpu():
    args = experiments.parse_args(["run", "demo", "--launcher", "slurm", "--device", "cpu"])
    assert experiments._gpus_per_job(args) == 0


class _Running:
    def poll(self):
        return None


def test_leaving_early_stops_the_jobs_and_the_next_run_continues(make):
    jobs = make("slow", "")
    main = threading.get_ident()
    timer = threading.Timer(1.5, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        drive(jobs, Local(2, []))
    record = json.loads((jobs[0].path / "job.json").read_text())
    assert record["status"] == 1 and "stopped" in (jobs[0].path / "job.log").read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(record["process"], 0)


def test_jobs_end_when_their_driver_is_killed_and_a_new_one_waits_for_them(make, tmp_path):
    [job] = make("slow")
    program = f"""if True:
        import sys
        from experiments.launch import drive
        from experiments.local import Local, Process
        from experiments.methods import METHODS
        from experiments.protocols import Job, Request, few_shot
        Job.command = lambda job, python: [sys.executable, {str(STAND_IN)!r}, str(job.path), "slow"]
        drive([few_shot(Request(METHODS["maple"], "emoji", seed=0, output={str(tmp_path / "output")!r}))], Local(1, []))
    """
    driver = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 60
    while not (job.path / "job.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process = json.loads((job.path / "job.json").read_text())["process"]
    driver.kill()
    driver.wait()
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the job outlived its driver")
    assert state_of(job).name == "interrupted"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_a_job_whose_driver_is_killed_as_it_starts_ends_before_its_first_step():
    """It then has another parent than the process that was to start it: here, one in between."""
    program = """if True:
        import os
        from experiments.processes import end_with_parent
        follow = end_with_parent()
        if os.fork() == 0:
            if os.fork() == 0:
                follow()
                os._exit(0)
            os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
        raise SystemExit(os.waitstatus_to_exitcode(os.wait()[1]))
    """
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 128 + signal.SIGTERM


def test_what_a_killed_driver_left_of_its_notes_is_removed(make):
    [job] = make("")
    drive([job], Local(1, []))
    left = job.path / ".job.json.999999999-00000000.dassl-tmp"
    left.touch()
    os.utime(left, (0, 0))
    drive([job], Local(1, []))
    assert not left.exists()


def test_a_running_job_of_another_process_is_seen(make):
    [job] = make("")
    job.path.mkdir(parents=True)
    (job.path / "history.jsonl").write_text('{"epoch": 1, "seconds": 4.0}\n{"epoch": 2, "seconds": 6.0}\n')
    (job.path / "config.yaml").write_text("OPTIM:\n  MAX_EPOCH: 5\n")
    record = {"host": "another", "process": 1, "command": "", "status": None}
    (job.path / "job.json").write_text(json.dumps(record))
    state = state_of(job)
    assert (state.name, state.epoch, state.seconds_left, state.host) == ("running", "2/5", 15.0, "another")
    settings = "OPTIM:\n  MAX_EPOCH: 5\n  STEPS_PER_SHOT: 500\nDATASET:\n  NUM_SHOTS: 2\n"  # 1,000 steps
    (job.path / "config.yaml").write_text(settings)
    (job.path / "history.jsonl").write_text('{"epoch": 1, "steps": 300, "seconds": 4.0}\n')
    assert (state_of(job).epoch, state_of(job).seconds_left) == ("1/4", 12.0)
    (job.path / "history.jsonl").write_text("")
    assert (state_of(job).epoch, state_of(job).seconds_left) == ("0/?", None)
    for path in job.path.iterdir():
        os.utime(path, (0, 0))
    assert state_of(job).name == "interrupted"  # it has written nothing for long
    (job.path / "job.json").write_text("[1")
    assert state_of(job).name == "interrupted"


def test_a_running_job_gives_signs_of_life_to_other_hosts(make, monkeypatch):
    [job] = make("wait")
    monkeypatch.setattr("experiments.local._SIGN_OF_LIFE", 0.05)
    process = Process(job, {})
    os.utime(job.path / "job.json", (0, 0))
    while process.poll() is None and (job.path / "job.json").stat().st_mtime == 0:
        time.sleep(0.02)
    assert process.poll() is None
    process.kill()
    while process.poll() is None:
        time.sleep(0.02)


def test_a_node_that_sees_another_process_run_the_job_hands_it_back(make):
    """What is known at once on this machine comes later from another one."""
    [job] = make("")
    local, refused = Local(1, []), []

    class Node:
        def has_room(self):
            return True

        def start(self, job, alone=False):
            return self if not refused else local.start(job, alone)

        def poll(self):
            refused.append(1)
            raise BlockingIOError

    assert drive([job], Node()).finished == [job.folder]
    assert len(refused) == 1 and len(starts(job)) == 1


def test_two_drivers_do_not_start_one_job_twice(make):
    jobs = make(*["wait"] * 3)
    outcomes = []
    other = threading.Thread(target=lambda: outcomes.append(drive(jobs, Local(2, []))))
    other.start()
    outcomes.append(drive(jobs, Local(2, [])))
    other.join()
    assert len(starts(jobs[0])) == 3
    assert all(sorted(outcome.finished) == sorted(job.folder for job in jobs) for outcome in outcomes)
