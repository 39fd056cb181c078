"""The benchmark of the start of a run. No speed is asserted."""

import json

import pytest

from benchmarks import startup


@pytest.mark.slow
def test_a_run_is_timed_up_to_its_first_step():
    measured = startup.timed(startup.HERE, startup.COMMANDS["test of ZeroshotCLIP"])
    assert list(measured["phases"]) == list(startup.PHASES) and min(measured["phases"].values()) >= 0
    assert measured["cpu_seconds"] == pytest.approx(sum(measured["phases"].values()))


def test_a_command_that_fails_is_an_error_with_its_message(monkeypatch):
    monkeypatch.setattr(startup, "TIMED", "raise SystemExit('no such trainer')")
    with pytest.raises(RuntimeError, match=r"(?s)--trainer X ended before its first step in .*:\nno such trainer"):
        startup.timed(startup.HERE, ["--trainer", "X"])


def test_both_sides_take_turns_after_a_first_run(tmp_path, monkeypatch, capsys):
    order = []

    def timed(checkout, command):
        order.append(checkout)
        seconds = float(len(order))
        return {"phases": dict.fromkeys(startup.PHASES, seconds), "cpu_seconds": 8 * seconds, "seconds": 100.0}

    monkeypatch.setattr(startup, "timed", timed)
    startup.main(["--repeats", "1", "--against", str(tmp_path), "--json", str(tmp_path / "found.json")])
    assert order == [startup.HERE, tmp_path.resolve()] * 4
    out = capsys.readouterr().out
    assert "in sum               24.00   32.00" in out and "on the clock         100.00  100.00" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert [run["cpu_seconds"] for run in found["training of MaPLe"]["here"]] == [24.0]
