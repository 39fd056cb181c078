"""Stands in for train.py in tests of launchers: `stand_in.py FOLDER ACTION`, with FOLDER's results.json as its end."""

import json
import os
import signal
import sys
import time
from pathlib import Path

folder, action = Path(sys.argv[1]), sys.argv[2]
with open(folder.parents[1] / "starts.txt", "a", encoding="utf-8") as file:
    file.write(f"{folder.name} {os.environ.get('OMP_NUM_THREADS')}\n")
if action == "fail":
    print("error: no such dataset", file=sys.stderr)
    sys.exit(2)
if action == "killed" or (action == "killed once" and not (folder / "second").exists()):
    (folder / "second").touch()
    os.kill(os.getpid(), signal.SIGKILL)
if action == "slow":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    time.sleep(60)
if action == "wait":
    time.sleep(1)
(folder / "results.json").write_text(json.dumps({"accuracy": 50.0, "complete": True}))
