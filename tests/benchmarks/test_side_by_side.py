"""The benchmark of several runs at once. No speed is asserted."""

import json
import sys

import pytest

from benchmarks import side_by_side


def test_one_run_trains_and_tests(capsys):
    words = ["--one-run", "--steps=2", "--test-batches=1", "--classes=3", "--batch=2", "--backbone=ViT-Micro/8"]
    side_by_side.main([*words, "--device=cpu"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert min(found.values()) > 0 and found.keys() == {"training_seconds", "test_seconds", "peak_bytes"}


class Child:
    """A process that has ended; fails where more than two run."""

    def __init__(self, command, env, **_):
        assert command[:4] == [sys.executable, "-m", "benchmarks.side_by_side", "--steps=80"]
        Child.threads.append(env["OMP_NUM_THREADS"])
        self.returncode = int(len(Child.threads) > 3)

    def communicate(self):
        run = {"training_seconds": 8.0, "test_seconds": 1.0, "peak_bytes": 2**30}
        return (f"a line\n{json.dumps(run)}\n", "") if not self.returncode else ("", "out of memory\n")


@pytest.mark.parametrize("cores, threads", [(4, ["4", "2", "2", "1"]), (1, ["1", "1", "1", "1"])])
def test_runs_share_the_cores_until_a_number_does_not_fit(monkeypatch, tmp_path, capsys, cores, threads):
    Child.threads = []
    monkeypatch.setattr(side_by_side.subprocess, "Popen", Child)
    monkeypatch.setattr(side_by_side, "cores", lambda: cores)
    words = ["--runs", "1", "2", "4", "8", "--json", str(tmp_path / "found.json")]
    side_by_side.main([*words, "--device", "cpu", "--backbone", "ViT-Micro/8", "--steps", "80"])
    assert Child.threads[:4] == threads and len(Child.threads) == 7  # none of the eight
    found = json.loads((tmp_path / "found.json").read_text())["measured"]
    assert [row["runs"] for row in found] == [1, 2, 4] and found[2]["failed"] == "out of memory"
    assert found[1]["runs_per_hour"] == pytest.approx(7200 / found[1]["seconds"])
    assert "100.0" in capsys.readouterr().out  # 8 s for 80 steps
