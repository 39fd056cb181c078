"""A SLURM cluster in one file, for tests: `slurm_cluster.py sbatch|squeue|scontrol|srun ARGUMENT …`, with its state in
the folder CLUSTER.

It does what the launcher relies on, as sbatch(1) and scontrol(1) say: arrays with %N, aftercorr with
--kill-on-invalid-dep, the signal before a job's time is up, which every process of the job gets, and requeue. Files in
CLUSTER: NUMBER.json (the directives of an array), NUMBER_INDEX (the state of a task), NUMBER_INDEX.ready (its time is
up), `hold` (nothing starts), `refuse` (sbatch fails with this text), `busy` (squeue fails once), `largest`
(MaxArraySize).
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

CLUSTER = Path(os.environ["CLUSTER"])
LOOK = 0.02


def setting(name: str) -> str:
    path = CLUSTER / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


def state(task: str) -> str:
    return setting(task)


def set_state(task: str, value: str) -> None:
    new = CLUSTER / f"{task}.new"
    new.write_text(value, encoding="utf-8")
    new.replace(CLUSTER / task)


def directives(number: str) -> dict[str, str]:
    return json.loads((CLUSTER / f"{number}.json").read_text(encoding="utf-8"))


def indices(array: str) -> list[int]:
    ranges = [part.split("-") for part in array.partition("%")[0].split(",")]
    return [index for part in ranges for index in range(int(part[0]), int(part[-1]) + 1)]


# ---- commands --------------------------------------------------------------------------------------------------


def sbatch(path: str) -> None:
    if refused := setting("refuse"):
        sys.exit(f"sbatch: error: {refused}")
    script = Path(path).read_text(encoding="utf-8")
    found = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", script, re.MULTILINE))
    number = str(len(list(CLUSTER.glob("*.json"))) + 1)
    (CLUSTER / f"{number}.sh").write_text(script, encoding="utf-8")
    (CLUSTER / f"{number}.json").write_text(json.dumps(found), encoding="utf-8")
    for index in indices(found["array"]):
        set_state(f"{number}_{index}", "PENDING")
    null = {stream: subprocess.DEVNULL for stream in ("stdin", "stdout", "stderr")}
    runner = subprocess.Popen([sys.executable, __file__, "run", number], start_new_session=True, **null)
    (CLUSTER / f"{number}.pid").write_text(str(runner.pid), encoding="utf-8")
    print(f"Submitted batch job {number}")


def squeue(*words: str) -> None:
    if (CLUSTER / "busy").exists():
        (CLUSTER / "busy").unlink()
        sys.exit("slurm_load_jobs error: Socket timed out on send/recv operation")
    [layout] = [word.partition("=")[2] for word in words if word.startswith("--format=")]
    for path in sorted(CLUSTER.glob("*.json")):
        found = directives(path.stem)
        for index in indices(found["array"]):
            task = f"{path.stem}_{index}"
            if (now := state(task)) in ("PENDING", "RUNNING"):
                values = {"%i": task, "%T": now, "%r": "Priority", "%j": found["job-name"]}
                print(re.sub("%.", lambda match: values[match[0]], layout))  # noqa: B023


def scontrol(what: str, name: str) -> None:
    if what == "requeue":
        set_state(f"{name}.requeue", "")
    else:
        print(f"MaxArraySize            = {setting('largest') or 1001}")


def srun(*words: str) -> None:
    words = tuple(word for word in words if word != "--unbuffered" and not word.startswith("--cpus-per-task="))
    assert words[0] == "--output"
    number, index = os.environ["SLURM_ARRAY_JOB_ID"], os.environ["SLURM_ARRAY_TASK_ID"]
    log = open(words[1].replace("%A", number).replace("%a", index).replace("%t", "0"), "ab")  # noqa: SIM115
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    os.execvp(words[2], words[2:])


# ---- the controller of an array --------------------------------------------------------------------------------


def run(number: str) -> None:
    found = directives(number)
    limit = found["array"].partition("%")[2]
    slots = threading.Semaphore(int(limit) if limit else 1000)
    tasks = [threading.Thread(target=run_task, args=(number, i, found, slots)) for i in indices(found["array"])]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()


def run_task(number: str, index: int, found: dict[str, str], slots: threading.Semaphore) -> None:
    task = f"{number}_{index}"
    if "dependency" in found:
        training = f"{found['dependency'].removeprefix('aftercorr:')}_{index}"
        while state(training) in ("PENDING", "RUNNING"):
            time.sleep(LOOK)
        if state(training) != "COMPLETED" and "kill-on-invalid-dep" in found:
            set_state(task, "CANCELLED")
            return
    more = {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": str(index), "SLURM_JOB_ID": task}
    more["SLURM_CPUS_PER_TASK"] = found["cpus-per-task"]
    while state(task) == "PENDING":
        while (CLUSTER / "hold").exists():
            time.sleep(LOOK)
        with slots:
            set_state(task, "RUNNING")
            script = ["bash", str(CLUSTER / f"{number}.sh")]
            process = subprocess.Popen(script, cwd=found["chdir"], env=os.environ | more, stderr=subprocess.DEVNULL)
            while (status := process.poll()) is None:
                if (CLUSTER / f"{task}.ready").exists():
                    (CLUSTER / f"{task}.ready").unlink()
                    time_is_up(process.pid)
                time.sleep(LOOK)
        requeued = CLUSTER / f"{task}.requeue"
        if requeued.exists():
            requeued.unlink()
            set_state(task, "PENDING")
        else:
            set_state(task, "FAILED" if status else "COMPLETED")


def time_is_up(shell: int) -> None:
    """SIGUSR2 for the processes of a job's step: all but its shell."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except OSError:
            continue
    members = [shell]
    for parent in members:
        members += [pid for pid, of in parents.items() if of == parent]
    for pid in members[1:]:
        os.kill(pid, signal.SIGUSR2)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
