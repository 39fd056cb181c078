"""The benchmark of plans: its run folders are finished runs of their jobs, and its measurements are made."""

import json

import pytest

from benchmarks import experiments
from dassl.config.saved import saved_settings
from experiments import runs as run_folders
from experiments.plans import jobs, read_plan
from experiments.published import published_number
from experiments.states import state_of


@pytest.mark.slow
def test_the_runs_are_those_of_the_plan_and_everything_is_timed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments, "METHODS", ["zsclip", "maple"])
    monkeypatch.setattr(experiments, "DATASETS", ["imagenet", "dtd"])
    cells = {"methods": experiments.METHODS, "datasets": experiments.DATASETS, "seeds": [1]}
    plan = experiments.write_plan(tmp_path / "plan.yaml", protocols=["base2new", "few_shot"], **cells)
    runs = jobs(read_plan(str(plan)), output=str(tmp_path / "runs"))
    experiments.make_runs(runs)
    parsed = []
    monkeypatch.setattr(run_folders, "saved_settings", lambda *given: parsed.append(given[1]) or saved_settings(*given))
    assert {state_of(job).name for job in runs} == {"finished"}, "a job differs from the settings of its folder"
    assert not [file for file in parsed if file.endswith("config.yaml")], "which is slow for thousands of runs"
    assert len(parsed) == len(set(parsed)), "a file of configs/ is parsed once"
    assert any(published_number(job.run) for job in runs)

    experiments.main(["--seeds", "1", "--jobs", "4", "--repeats", "1", "--json", str(tmp_path / "times.json")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"status of {len(runs)} runs: ") and lines[-1].startswith("run of 4 trivial jobs: ")
    result = json.loads((tmp_path / "times.json").read_text(encoding="utf-8"))
    assert result["status"]["seconds"] > 0 and result["run"]["jobs"] == 4
