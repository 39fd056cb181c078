"""Jobs in a SLURM queue: what sbatch gets; real tasks with a stand-in for train.py, under a cluster with the rules."""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from experiments import slurm
from experiments.__main__ import main
from experiments.methods import METHODS
from experiments.plans import FOLDER, jobs, read_plan
from experiments.protocols import Job, Request, base2new_test, base2new_train
from experiments.slurm import Slurm
from experiments.slurm_queue import Queue, read_jobs, states_in, write_jobs

submitit = pytest.importorskip("submitit", reason="needs submitit (the extra [slurm])")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SLURM runs on Linux")

HERE = Path(__file__).parent
STAND_IN = """\
#!{python}
import json, os, runpy, sys
words = sys.argv[1:]
if words[0] == "train.py":
    folder = words[words.index("--output-dir") + 1]
    action = json.loads(os.environ["ACTIONS"]).get("/".join(folder.split("/")[-6:]), "")
    os.execv(sys.executable, [sys.executable, {stand_in!r}, folder, action])
sys.executable, sys.argv = __file__, words[1:]
sys.path.insert(0, os.getcwd())
runpy.run_module(words[1], run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """The folder of a cluster's state; sbatch and the others are on the path, and train.py is a stand-in."""
    state, tools = tmp_path / "cluster", tmp_path / "bin"
    state.mkdir()
    tools.mkdir()
    for name in ("sbatch", "squeue", "scontrol", "srun"):
        tool = f'#!/bin/sh\nexec {sys.executable} -IS {HERE / "slurm_cluster.py"} {name} "$@"\n'
        (tools / name).write_text(tool, encoding="utf-8")
    (tools / "python").write_text(STAND_IN.format(python=sys.executable, stand_in=str(HERE / "stand_in.py")))
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("CLUSTER", str(state))
    monkeypatch.setenv("ACTIONS", "{}")
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(tools / "python"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(slurm, "_LOOK", 0.3)
    monkeypatch.setattr(slurm, "FOLDER_DELAY", 0.5)
    yield state
    for path in state.glob("*.pid"):
        try:
            os.killpg(int(path.read_text(encoding="utf-8")), signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Trainings and their tests, by what the stand-in does in the training."""

    def pairs(*actions: str) -> list[Job]:
        found = []
        for seed, _ in enumerate(actions):
            request = Request(METHODS["maple"], "emoji", seed=seed, output=str(tmp_path / "output"))
            found += [base2new_train(request), base2new_test(request)]
        named = {"/".join(job.folder.split("/")[-6:]): action for job, action in zip(found[::2], actions, strict=True)}
        monkeypatch.setenv("ACTIONS", json.dumps(named))
        for job in found:
            job.path.parents[1].mkdir(parents=True, exist_ok=True)
        return found

    return pairs


def launcher(jobs: list[Job], **more) -> Slurm:
    return Slurm("my plan.yaml", jobs[0].output, gpus=0, cpus=1, **more)


def follow(launcher: Slurm, jobs: list[Job], **more):
    """Submit and wait; returns the outcome and the events."""
    events = []
    outcome = launcher.submit(jobs, **more)
    (Path(os.environ["CLUSTER"]) / "busy").touch()  # which passes
    outcome = launcher.wait(jobs, outcome, lambda event, job, state: events.append((event, job.folder)))
    return outcome, events


def starts(job: Job) -> list[str]:
    """The run folders in the order in which the stand-in was started, of this job's stage."""
    path = job.path.parents[1] / "starts.txt"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def directives(cluster: Path, number: int) -> dict[str, str]:
    return json.loads((cluster / f"{number}.json").read_text())


# ---- what is submitted -----------------------------------------------------------------------------------------


def test_trainings_are_an_array_and_tests_another_that_depends_on_it_task_by_task(cluster, make):
    (cluster / "hold").touch()
    found = make("", "", "", "")
    options = ["partition=gpu", "--mem=32G", "exclusive", "mail_type=FAIL"]
    Slurm("my plan.yaml", found[0].output, "2:00:00", 1, 4, at_once=2, options=options).submit(found)
    first, second = directives(cluster, 1), directives(cluster, 2)
    expected = {"array": "0-3%2", "time": "2:00:00", "gpus-per-node": "1", "cpus-per-task": "4", "nodes": "1"}
    expected |= {"partition": "gpu", "mem": "32G", "exclusive": "", "mail-type": "FAIL"}
    expected |= {"requeue": "", "signal": "USR2@90", "open-mode": "append"}
    assert expected.items() <= first.items() and "dependency" not in first and "wckey" not in first
    assert re.fullmatch(r"my-plan-[0-9a-f]{8}", first["job-name"])
    assert second.items() >= (expected | {"dependency": "aftercorr:1", "kill-on-invalid-dep": "yes"}).items()
    assert "srun --unbuffered" in (cluster / "1.sh").read_text()
    assert "--cpus-per-task=4" in (cluster / "1.sh").read_text().splitlines()[-1]  # srun does not take sbatch's
    assert not list(Path(found[0].output).rglob("*.pkl")), "nothing is pickled"


def test_own_gpu_options_replace_the_default(cluster, make):
    (cluster / "hold").touch()
    found = make("")
    Slurm("plan", found[0].output, options=["gres=gpu:a100:1"]).submit(found)
    assert directives(cluster, 1)["gres"] == "gpu:a100:1" and "gpus-per-node" not in directives(cluster, 1)


def test_a_job_in_the_queue_is_not_submitted_twice(cluster, make):
    (cluster / "hold").touch()
    found = make("", "", "")
    trainings, tests = found[::2], found[1::2]
    launcher(found).submit(trainings[1:])
    again = launcher(found)
    again.submit(found)
    arrays = [directives(cluster, number) for number in (1, 2, 3, 4)]
    assert [array["array"] for array in arrays] == ["0-1", "0", "0", "0-1"]
    assert [array.get("dependency") for array in arrays] == [None, None, "aftercorr:2", "aftercorr:1"]
    assert sorted(again.arrays) == ["1", "2", "3", "4"]
    third = launcher(found)
    assert not third.submit(found).finished and not (cluster / "5.json").exists()
    assert sorted(third.arrays) == ["1", "2", "3", "4"]
    look = states_in(found[0].output)
    assert {look(job).name for job in found} == {"queued"}
    assert look(tests[0]).reason == "SLURM 3_0 (Priority)"


def test_several_tests_of_one_training_are_arrays_each(cluster, tmp_path):
    """Cross-dataset transfer: one training for each seed, ten tests of it."""
    (cluster / "hold").touch()
    plan = tmp_path / "plan.yaml"
    datasets = "datasets: [caltech101, dtd, eurosat]\nseeds: [1, 2]\n"
    plan.write_text(f"protocols: [cross_dataset]\nmethods: [maple]\n{datasets}")
    found = jobs(read_plan(str(plan)), output=str(tmp_path / "output"))
    launcher(found).submit(found)
    assert [directives(cluster, number)["array"] for number in (1, 2, 3, 4)] == ["0-1"] * 4
    assert {directives(cluster, number)["dependency"] for number in (2, 3, 4)} == {"aftercorr:1"}
    tasks = Queue(found[0].output).tasks
    assert all(tasks[job.folder].index == tasks[job.needs.folder].index for job in found if job.needs)


def test_arrays_are_no_larger_than_the_cluster_takes(cluster, make):
    (cluster / "hold").touch()
    (cluster / "largest").write_text("2")
    found = make("", "", "")
    launcher(found).submit(found)
    arrays = [directives(cluster, number) for number in (1, 2, 3, 4)]
    assert [array["array"] for array in arrays] == ["0-1", "0", "0-1", "0"]
    assert [array.get("dependency") for array in arrays] == [None, None, "aftercorr:1", "aftercorr:2"]


def test_what_sbatch_refuses_is_said_and_leaves_nothing(cluster, make):
    (cluster / "refuse").write_text("invalid partition specified: nope")
    found = make("")
    with pytest.raises(OSError, match=r"sbatch did not take 1 jobs: .*invalid partition specified: nope"):
        launcher(found).submit(found)
    assert not list((Path(found[0].output) / ".slurm").glob("*.json"))


@pytest.mark.parametrize(
    ("option", "message"),
    [("array=1-3", "sets array itself"), ("job_name=x", "sets job-name itself"), ("=gpu", "expected KEY=VALUE"),
     ("partition=", "expected KEY=VALUE"), ("comment=a\n#SBATCH --uid=0", "expected KEY=VALUE")],
)  # fmt: skip
def test_wrong_options_of_sbatch(cluster, tmp_path, option, message):
    with pytest.raises(ValueError, match=message):
        Slurm("plan", str(tmp_path), options=[option])


def test_without_slurm_or_submitit_the_error_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["run", "demo", "--output", str(tmp_path), "--launcher", "slurm"]) == 2
    assert "no srun here" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main(["run", "demo", "--output", str(tmp_path), "--launcher", "slurm"]) == 2
    assert "bash scripts/setup.sh slurm" in capsys.readouterr().err


def test_flags_of_this_launcher_are_refused_for_others(capsys):
    for flags in (["--time", "3"], ["--wait"], ["--sbatch", "partition=gpu"]):
        with pytest.raises(SystemExit):
            main(["run", "demo", *flags])
        assert f"{flags[0]}: only with --launcher slurm" in capsys.readouterr().err
    for flags in (["--gpus-per-job", "2"], ["--cpus-per-job", "0"]):
        with pytest.raises(SystemExit):
            main(["run", "demo", "--launcher", "slurm", *flags])
        assert f"{' '.join(flags)}: expected" in capsys.readouterr().err


# ---- lists of jobs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", ["demo", "domain_generalization"])
def test_a_list_gives_the_same_jobs(cluster, tmp_path, plan):
    (cluster / "hold").touch()
    found = jobs(read_plan(plan), output=str(tmp_path / "output"))
    launcher(found).submit(found)
    lists = [read_jobs(path) for path in (tmp_path / "output/.slurm").glob("*.json")]
    listed = {job.folder: job for content in lists for job in content.values()}
    assert listed == {job.folder: job for job in found} and (FOLDER / f"{plan}.yaml").exists()


@pytest.mark.parametrize("content", ['{"0": {}}', "[]", '{"0": 3}', '{"a": {}}', "{"])
def test_another_list_is_refused(tmp_path, content):
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(ValueError, match=r"list\.json is not"):
        read_jobs(tmp_path / "list.json")


@pytest.mark.parametrize(
    "change",
    [{"data": 3}, {"options": ["A", 1]}, {"options": "A"}, {"test_only": 1}, {"needs": {}}, {"needs": True},
     {"load_epoch": "5"}, {"run": None}, {"more": 1}],
)  # fmt: skip
def test_a_list_with_other_entries_or_types_is_refused(make, tmp_path, change):
    write_jobs({0: make("")[1]}, tmp_path / "list.json")
    content = json.loads((tmp_path / "list.json").read_text())
    content["0"] |= change
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"list\.json is not a list of jobs of this version \(expected"):
        read_jobs(tmp_path / "list.json")


# ---- states ----------------------------------------------------------------------------------------------------


def test_a_job_of_slurm_that_has_left_the_queue_runs_no_more(cluster, make):
    [job, _] = make("")
    (Path(job.output) / ".slurm").mkdir()
    job.path.mkdir(parents=True)
    record = {"host": "another", "process": 1, "command": "", "status": None, "slurm": "9_0"}
    (job.path / "job.json").write_text(json.dumps(record))
    assert states_in(job.output)(job).name == "interrupted"
    (job.path / "job.json").write_text(json.dumps(record | {"slurm": None}).replace('"slurm"', '"other"'))
    assert states_in(job.output)(job).name == "running"  # of another launcher: it has just written


def test_status_without_squeue_goes_by_the_run_folders(make, monkeypatch, capsys, tmp_path):
    [job, _] = make("")
    (Path(job.output) / ".slurm").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert states_in(job.output)(job).name == "not started"
    assert "SLURM cannot be asked here: squeue: No such file" in capsys.readouterr().err


def test_running_and_queued_tasks_are_told_apart(cluster, make):
    (cluster / "hold").touch()
    [job, test] = make("slow")
    launcher([job, test]).submit([job, test])
    (cluster / "1_0").write_text("RUNNING")
    look = states_in(job.output)
    assert (look(job).name, look(job).host, look(test).name) == ("running", "SLURM 1_0", "queued")


# ---- tasks -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_failure_stops_only_its_own_test_and_is_retried_when_asked(cluster, make):
    found = make("", "fail", "wait", "killed")
    (good, of_good, bad, of_bad, _, _, killed, of_killed) = found
    outcome, events = follow(launcher(found, at_once=2), found)
    assert outcome.failed.keys() == {bad.folder, killed.folder}
    assert outcome.failed[bad.folder] == "error: no such dataset" and "memory runs out" in outcome.failed[killed.folder]
    assert sorted(outcome.blocked) == sorted([of_bad.folder, of_killed.folder])
    assert sorted(outcome.finished) == sorted(job.folder for job in (good, of_good, *found[4:6]))
    assert {("finished", of_good.folder), ("failed", bad.folder), ("blocked", of_bad.folder)} <= set(events)
    record = json.loads((good.path / "job.json").read_text())
    assert (record["status"], record["slurm"]) == (0, "1_0") and "--output-dir" in record["command"]
    assert states_in(bad.output)(bad).name == "failed"

    found = found[:6]
    outcome = launcher(found).submit(found)
    assert outcome.failed.keys() == {bad.folder} and outcome.blocked == [of_bad.folder]
    assert len(outcome.finished) == 4 and len(starts(good)) == 4
    follow(launcher(found), found, retry_failed=True)
    assert starts(good).count("seed1") == 2 and len(starts(good)) == 5


@pytest.mark.slow
def test_a_job_whose_time_is_up_goes_back_into_the_queue_and_resumes(cluster, make):
    """Its children get the signal, too; one that finishes no epoch in its time ends with the reason."""
    found = make("an epoch", "no epoch")
    (long, test, longer, blocked) = found
    outcome, _ = follow(launcher(found), found)
    assert sorted(outcome.finished) == sorted([long.folder, test.folder])
    assert outcome.failed.keys() == {longer.folder} and outcome.blocked == [blocked.folder]
    assert "give the job more time (--time)" in outcome.failed[longer.folder]
    assert sorted(starts(long)) == ["seed0", "seed0", "seed1"]


@pytest.mark.slow
def test_submit_and_leave_then_see_the_state_then_wait(cluster, make, tmp_path, capsys):
    """As a user does it, from the command line."""
    plan = tmp_path / "plan.yaml"
    plan.write_text("protocols: [base2new]\nmethods: [maple]\ndatasets: [emoji]\nseeds: [1]\n")
    words = [str(plan), "--output", str(tmp_path / "output")]
    (tmp_path / "output").mkdir()
    run = ["run", *words, "--launcher", "slurm", "--gpus-per-job", "0", "--cpus-per-job", "1"]
    (cluster / "hold").touch()
    assert main(run) == 0
    printed = capsys.readouterr().out
    assert "submitted: 1 jobs as array 1\n" in printed and "each after its training in 1" in printed
    assert "scancel 1 2" in printed and f"experiments status {plan}" in printed
    assert main(["status", *words]) == 0 and "2 queued" in capsys.readouterr().out
    assert main(["run", *words, "--dry-run"]) == 0 and capsys.readouterr().out.count("queued") == 2
    (cluster / "busy").touch()
    assert main(run) == 2 and "Socket timed out" in capsys.readouterr().err
    (cluster / "hold").unlink()
    assert main([*run, "--wait"]) == 0
    printed = capsys.readouterr().out
    assert "2 of 2 jobs are finished" in printed and "[2/2] finished" in printed
    assert not (cluster / "3.json").exists()


def test_ctrl_c_leaves_the_jobs_in_the_queue_and_says_how_to_cancel_them(cluster, make, monkeypatch):
    (cluster / "hold").touch()
    found = make("")

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(slurm.time, "sleep", interrupt)
    plan = Path(found[0].output).parent / "plan.yaml"
    plan.write_text("protocols: [base2new]\nmethods: [maple]\ndatasets: [emoji]\nseeds: [1]\n")
    with pytest.raises(KeyboardInterrupt, match=r"the jobs stay in SLURM's queue, 'scancel 1 2'"):
        main(["run", str(plan), "--output", found[0].output, "--launcher", "slurm", "--wait"])
    assert len(Queue(found[0].output).tasks) == 2


@pytest.mark.slow
def test_tasks_under_submitits_local_executor(cluster, make, tmp_path):
    """The same list and tasks, started by submitit itself: one that fails, and one that resumes after its time."""
    (cluster / "hold").touch()
    found = make("an epoch", "fail")
    launcher(found).submit(found[::2])
    [path] = (Path(found[0].output) / ".slurm").glob("*.json")
    executor = submitit.LocalExecutor(tmp_path / "local")
    command = f"{sys.executable} -m experiments.slurm_task {path}"
    tasks = [executor._submit_command(f"{command} {index}") for index in (0, 1)]
    wait_until(lambda: (found[0].path / "resume.pth.tar").exists())
    stand_in = json.loads((found[0].path / "job.json").read_text())["process"]
    task = int(Path(f"/proc/{stand_in}/stat").read_text().rpartition(")")[2].split()[1])  # its parent
    os.kill(task, signal.SIGUSR2)
    wait_until(lambda: all(task._process.poll() is not None for task in tasks))
    assert found[0].status().state == "finished" and starts(found[0]).count("seed0") == 2
    record = json.loads((found[2].path / "job.json").read_text())
    assert (record["status"], record["slurm"]) == (2, str(tasks[1].job_id))
