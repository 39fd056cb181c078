"""Stands in for train.py in tests of launchers: `stand_in.py FOLDER ACTION`, with FOLDER's results.json as its end.

Its output is the GPUs that it sees, the folder that it runs in, and when it started.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

folder, action = Path(sys.argv[1]), sys.argv[2]
print(repr(os.environ.get("CUDA_VISIBLE_DEVICES")), os.getcwd(), time.time(), flush=True)
starts = folder.parents[1] / "starts.txt"
with open(starts, "a", encoding="utf-8") as file:
    file.write(f"{folder.name} {os.environ.get('OMP_NUM_THREADS')}\n")
if action == "fail":
    print("error: no such dataset", file=sys.stderr)
    sys.exit(2)
first = not (folder / "second").exists()
(folder / "second").touch()
if action == "killed" or (action == "killed once" and first):
    os.kill(os.getpid(), signal.SIGKILL)
if action == "slow" or (action == "slow once" and first):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    time.sleep(60)
if action in ("an epoch", "no epoch") and not (folder / "resume.pth.tar").exists():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if action == "an epoch":
        (folder / "resume.pth.tar").touch()
    (Path(os.environ["CLUSTER"]) / f"{os.environ.get('SLURM_JOB_ID')}.ready").touch()  # its time is up
    time.sleep(60)
if action == "wait":
    time.sleep(1)
while action == "meet" and len(starts.read_text(encoding="utf-8").splitlines()) < 2:  # another one that runs
    time.sleep(0.05)
(folder / "results.json").write_text(json.dumps({"accuracy": 50.0, "complete": True}))
