"""The comparison of two checkouts: who runs when, and what is compared. No speed is asserted."""

import json
import sys

import pytest

from benchmarks import revisions


def test_both_sides_run_in_turn_and_the_smallest_numbers_are_compared(tmp_path, monkeypatch, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/train.py").touch()
    order, seconds = [], {revisions.HERE: [3.0, 2.0, 5.0], tmp_path / "other": [4.0, 9.0, 8.0]}

    def task(checkout, folder):
        assert not folder.exists() and folder.parent.is_dir()
        order.append("here" if checkout == revisions.HERE else "other")
        return {"a task": seconds[checkout].pop(0)}

    monkeypatch.setattr(revisions, "TASKS", (task,))
    path = tmp_path / "revisions.json"
    revisions.main([str(tmp_path / "other"), "--repeats", "3", "--json", str(path)])
    assert order == ["here", "other", "other", "here", "here", "other"]
    measured = json.loads(path.read_text())["seconds"]["a task"]
    assert measured["here"] == {"seconds": 2.0, "all_seconds": [3.0, 2.0, 5.0]}
    assert measured["ratio"] == 0.5 and measured["ratio_of_medians"] == 3 / 8
    assert "ratio 0.500" in capsys.readouterr().out


def test_a_command_that_fails_says_what_it_printed(tmp_path):
    with pytest.raises(RuntimeError, match=r"-c .* failed in .*\n(.|\n)*a reason"):
        revisions.seconds_of(tmp_path, sys.executable, "-c", "raise SystemExit('a reason')")


def test_another_folder_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        revisions.main([str(tmp_path)])
    assert "it has no train.py" in capsys.readouterr().err
