"""The shell entries with a stand-in for train.py, which notes its arguments and leaves the files of a finished run."""

import os
import subprocess
import sys
from pathlib import Path

from tests.paths import ROOT

SCRIPTS = ROOT / "scripts"
STAND_IN = """\
#!{python}
import json, os, sys, yaml
from pathlib import Path

words = sys.argv[1:]
if words[0] != "train.py":  # the real interpreter does everything else
    os.execv(sys.executable, [sys.executable, *words])
with open(os.environ["CALLS"], "a") as calls:
    print(*words, file=calls)
folder = Path(words[words.index("--output-dir") + 1])
folder.mkdir(parents=True, exist_ok=True)
start = next(i for i, word in enumerate(words) if word.startswith(("DATASET.", "TRAINER.", "PROTOCOL")))
config = {{"OPTIM": {{"MAX_EPOCH": "5"}}}}
for flag in ("--dataset-config-file", "--config-file"):
    for section, values in yaml.safe_load(Path(words[words.index(flag) + 1]).read_text()).items():
        config.setdefault(section, {{}}).update(values)
for key, value in zip(words[start::2], words[start + 1 :: 2]):
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        node = node.setdefault(parent, {{}})
    node[last] = yaml.safe_load(value)
(folder / "config.yaml").write_text(yaml.safe_dump(config))
if os.environ.get("FAIL"):
    print("a line before\\nerror:", os.environ["FAIL"], file=sys.stderr)
    sys.exit(1)
epoch = int(words[words.index("--load-epoch") + 1]) if "--load-epoch" in words else None
tested = not config.get("TEST", {{}}).get("NO_TEST")
results = {{"accuracy": 76.656 if tested else None, "epoch": epoch, "complete": True}}
(folder / "results.json").write_text(json.dumps(results))
"""


def write_stand_in(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STAND_IN.format(python=sys.executable), encoding="utf-8")
    path.chmod(0o755)


class Shell:
    """Runs entries with the stand-in, and everything else with this Python."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        write_stand_in(folder / "python")

    def __call__(
        self, entry: str, *args: str, cwd: Path = ROOT, **env: str
    ) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """Run an entry; returns its process and the train.py commands so far."""
        return self.run(["bash", str(SCRIPTS / entry), *args], cwd, **env)

    def run(
        self, command: list[str], cwd: Path = ROOT, **env: str
    ) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        keep = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        keep |= {"PYTHON": str(self.folder / "python"), "CALLS": str(self.calls), "OUTPUT": str(self.folder / "out")}
        done = subprocess.run(command, cwd=cwd, env=keep | env, capture_output=True, text=True, timeout=60)
        return done, self.calls.read_text(encoding="utf-8").splitlines() if self.calls.exists() else []


def dry(shell: Shell, entry: str, *args: str, **env: str) -> list[str]:
    """The commands that DRY_RUN=1 prints, with plain folders: OUTPUT left at its default."""
    done, calls = shell(entry, *args, DRY_RUN="1", OUTPUT="output-of-nobody", **env)
    assert done.returncode == 0, done.stderr
    assert not calls
    return [line.replace("\\", "").replace("output-of-nobody", "output") for line in done.stdout.splitlines()]


def option(command: str, flag: str) -> str:
    words = command.split()
    return words[words.index(flag) + 1]
