"""docs/OUTPUTS.md lists exactly the files that a run writes and the fields in them."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch

import datasets  # noqa: F401  (registers the datasets)
import train
from dassl.config import get_cfg_default
from dassl.engine import build_trainer
from dassl.evaluation import build_evaluator
from dassl.utils import set_random_seed
from experiments.report.data import COLUMNS
from experiments.runs import read_settings
from tests.paths import ROOT

PAGE = (ROOT / "docs" / "OUTPUTS.md").read_text(encoding="utf-8")


def table(header: str) -> dict[str, str]:
    """Names in backquotes of the first column, and the rest of their row, of the table with this first column."""
    body = PAGE.split(f"\n| {header} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    rows = [line.strip("| ").split(" | ", 1) for line in body]
    return {name: rest for names, rest in rows for name in re.findall("`([^`]+)`", names)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One epoch on the demonstration, with every option that writes a file."""
    folder = tmp_path_factory.mktemp("run")
    argv = ["--trainer", "CoOp", "--dataset-config-file", str(ROOT / "configs/datasets/emoji.yaml")]
    argv += ["--config-file", str(ROOT / "configs/trainers/CoOp/vit_micro.yaml"), "--seed", "1"]
    options = {"OPTIM.MAX_EPOCH": 1, "DATASET.NUM_SHOTS": 1, "DATASET.SUBSAMPLE_CLASSES": "new"}
    options |= {"TEST.FINAL_MODEL": "best_val", "DATALOADER.NUM_WORKERS": 0, "OPTIM.WARMUP_EPOCH": 0}
    options |= {f"TEST.{name}": True for name in ("PREDICTIONS", "COMPUTE_CMAT", "PER_CLASS_RESULT")}
    words = [str(word) for pair in options.items() for word in pair]
    set_random_seed(1)
    build_trainer(train.setup_cfg(train.parse_args([*argv, "--output-dir", str(folder), *words]))).train()
    return folder


def test_files(run: Path) -> None:
    written = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()} | {"log.txt"}
    generic = [("prompt_learner/", "<model name>/"), ("tar-1", "tar-<epoch>")]
    for own, documented in generic:
        written = {name.replace(own, documented) for name in written}
    assert {re.sub("^tensorboard/.*", "tensorboard/", name) for name in written} == table("file").keys()


def test_columns_of_the_runs_of_a_folder() -> None:
    assert list(table("name")) == list(COLUMNS)


def test_fields_of_the_results(run: Path) -> None:
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    fields = table("field")
    assert results.keys() == fields.keys()
    nested = {name: value[0] if isinstance(value, list) else value for name, value in results.items() if value}
    for name in ("per_class", "unreadable_images", "seconds", "versions"):
        assert nested[name].keys() == set(re.findall("`([a-z]+)`", fields[name])), name


def test_the_settings_are_those_of_the_config(run: Path) -> None:
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert results["settings"] == read_settings(run / "config.yaml")
    assert results["settings"]["OPTIM.MAX_EPOCH"] == 1


def test_fields_of_the_history(run: Path) -> None:
    row = json.loads((run / "history.jsonl").read_text(encoding="utf-8"))
    assert row.keys() == set(re.findall("`([a-z_]+)`", table("file")["history.jsonl"]))


def test_columns_of_the_predictions(run: Path) -> None:
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    documented = list(table("column"))
    assert [name for name in header if not re.match("top[234]_", name)] == documented
    assert len(rows) == results["total"]
    correct = sum(row[1] == row[2] for row in rows)
    top5 = sum(row[1] in row[4::2] for row in rows)
    assert (correct, 100 * top5 / len(rows)) == (results["correct"], results["top5_accuracy"])
    assert all((ROOT / "datasets" / "emoji_data" / row[0]).is_file() for row in rows)


def test_the_printed_result(capsys: pytest.CaptureFixture[str]) -> None:
    evaluator = build_evaluator(get_cfg_default())
    evaluator.process(torch.eye(6), torch.arange(6))
    evaluator.evaluate()
    names = re.compile(r"^ *\* ([a-z0-9_ -]+):", re.MULTILINE)
    assert names.findall(PAGE) == names.findall(capsys.readouterr().out)
