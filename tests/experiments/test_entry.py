"""An entry's process: the quoting of DRY_RUN, exit statuses, and signals that reach train.py."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from experiments.entry import quoted
from tests.paths import ROOT

ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)


@settings(max_examples=20, deadline=None)
@given(st.lists(ASCII, min_size=1, max_size=20))
@example([":~", "a:~b", "x=~", "~~", "a~", "#", "a#"])
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


def test_the_last_train_py_takes_the_place_of_the_entry(start) -> None:
    started = start("scripts/maple/base2new_train.sh", "dtd", "1")
    [note] = started.notes()
    assert note.split()[:2] == ["started", str(started.process.pid)]
    started.send(signal.SIGTERM)
    assert started.end()[0] == 7


@pytest.mark.parametrize(
    "words",
    [("scripts/maple/few_shot.sh", "dtd", "1", "1 2"), ("scripts/sweep.sh", "maple", "base2new", "dtd", "1 2")],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_list_of_runs_ends_with_its_current_run(
    start, words: tuple[str, ...], number: signal.Signals
) -> None:
    """SIGTERM reaches the entry alone, Ctrl-C everything that the terminal runs."""
    started = start(*words)
    started.send(number, to_group=number == signal.SIGINT)
    assert started.end()[0] == 128 + number
    first, stopped = started.notes()
    assert first.startswith("started") and stopped == f"stopped {int(number)}"
