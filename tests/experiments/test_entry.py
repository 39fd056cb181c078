"""An entry's process: the quoting of DRY_RUN, exit statuses, and signals that reach train.py."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.entry import quoted
from tests.paths import ROOT

ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
WAITING = """\
#!{python}
import os, signal, sys, time
if sys.argv[1] != "train.py":
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])

def stop(number, frame):
    with open(os.environ["NOTES"], "a") as notes:
        print("stopped", number, file=notes, flush=True)
    sys.exit(7)

signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
with open(os.environ["NOTES"], "a") as notes:
    print("started", os.getpid(), file=notes, flush=True)
time.sleep(60)
"""


@settings(max_examples=20, deadline=None)
@given(st.lists(ASCII, min_size=1, max_size=20))
def test_words_are_quoted_as_bash_quotes_them(words: list[str]) -> None:
    printed = subprocess.run(["bash", "-c", r'printf "%q\n" "$@"', "bash", *words], capture_output=True, text=True)
    assert [quoted(word) for word in words] == printed.stdout.splitlines()


def test_other_characters_are_quoted_so_that_bash_reads_them_back() -> None:
    for word in ("a\nb", "\t'", "é", ""):
        script = f"printf %s {quoted(word)}"
        assert subprocess.run(["bash", "-c", script], capture_output=True, text=True).stdout == word


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [("maple/few_shot.sh", "dtd"), ("sweep.sh", "maple", "base2new", "dtd", "1 2")])
def test_output_that_cannot_be_written_is_one_line(words: tuple[str, ...]) -> None:
    """A full disk is an error; a reader that has seen enough is none."""
    entry = " ".join(["bash", f"scripts/{words[0]}", *(f"'{word}'" for word in words[1:])])
    environment = os.environ | {"PYTHON": sys.executable, "DRY_RUN": "1"}

    def run(redirection: str) -> tuple[int, str]:
        command = ["bash", "-c", f"{entry} {redirection}"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr

    assert run("> /dev/full") == (2, "error: the standard output cannot be written: No space left on device\n")
    assert run("| true")[1] == ""


@pytest.fixture
def start(tmp_path: Path):
    """Start an entry whose train.py waits; gives the process and its notes once train.py has started."""
    stand_in, notes = tmp_path / "python", tmp_path / "notes"
    stand_in.write_text(WAITING.format(python=sys.executable), encoding="utf-8")
    stand_in.chmod(0o755)
    environment = os.environ | {"PYTHON": str(stand_in), "NOTES": str(notes), "OUTPUT": str(tmp_path / "out")}

    processes = []

    def entry(*words: str) -> tuple[subprocess.Popen, Path]:
        process = subprocess.Popen(["bash", *words], cwd=ROOT, env=environment, start_new_session=True)
        processes.append(process)
        deadline = time.monotonic() + 30
        while not (notes.exists() and notes.read_text().endswith("\n")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        return process, notes

    yield entry
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_the_last_train_py_takes_the_place_of_the_entry(start) -> None:
    process, notes = start("scripts/maple/base2new_train.sh", "dtd", "1")
    assert notes.read_text().splitlines() == [f"started {process.pid}"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 7


@pytest.mark.parametrize(
    "words",
    [("scripts/maple/few_shot.sh", "dtd", "1", "1 2"), ("scripts/sweep.sh", "maple", "base2new", "dtd", "1 2")],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_list_of_runs_ends_with_its_current_run(
    start, words: tuple[str, ...], number: signal.Signals
) -> None:
    """SIGTERM reaches the entry alone, Ctrl-C everything that the terminal runs."""
    process, notes = start(*words)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    assert process.wait(timeout=30) == 128 + number
    started, stopped = notes.read_text().splitlines()
    assert started.startswith("started") and stopped == f"stopped {int(number)}"
