"""Plug-ins in the style of public repositories run unmodified: train, save, resume, load, test."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.plugins.project import CLASSES, PLUGINS, ROOT, Plugin, make_project, run_all, write_yaml

pytestmark = pytest.mark.slow

EPOCHS = 2
BASE_CLASSES = 20

by_trainer = pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.trainer)


def command(plugin: Plugin, output: str, *more: str, interrupt: bool = False, two_gpus: bool = False) -> dict:
    argv = ["--trainer", plugin.trainer, "--config-file", f"configs/trainers/{plugin.trainer}/vit_micro.yaml"]
    argv += ["--dataset-config-file", str(ROOT / "configs/datasets/emoji.yaml"), "--seed", "1"]
    argv += ["--output-dir", f"output/{plugin.trainer}/{output}", *more]
    return {"argv": argv, "interrupt": interrupt, "two_gpus": two_gpus}


def runs_of(plugin: Plugin) -> dict[str, dict]:
    """Training, training with an interruption, and tests of the first on base and new classes."""
    name = plugin.trainer
    base = ["DATASET.NUM_SHOTS", "1", "DATASET.SUBSAMPLE_CLASSES", "base"]
    new = ["DATASET.NUM_SHOTS", "1", "DATASET.SUBSAMPLE_CLASSES", "new"]
    saved = ["--model-dir", f"output/{name}/whole", "--load-epoch", str(EPOCHS), "--eval-only"]
    return {
        f"{name} whole": command(plugin, "whole", *base),
        f"{name} first half": command(plugin, "halves", *base, interrupt=True),
        f"{name} second half": command(plugin, "halves", *base),
        f"{name} test base": command(plugin, "base", *saved, *base),
        f"{name} test new": command(plugin, "new", *saved, *new),
    }


def runs_on_the_dataset() -> dict[str, dict]:
    """A built-in method, and a plug-in that sees two GPUs, on the third-party dataset."""
    maple = Plugin("MaPLe", "MultiModalPromptLearner", {})
    runs = {}
    for plugin, name, two_gpus in ((maple, "first", False), (maple, "again", False), (PLUGINS[1], "first", True)):
        run = command(plugin, f"pictures_{name}", "DATASET.NUM_SHOTS", "2", two_gpus=two_gpus)
        argv = run["argv"]
        argv[argv.index("--dataset-config-file") + 1] = "configs/datasets/picture_folders.yaml"
        runs[f"{plugin.trainer} {name} on PictureFolders"] = {**run, "argv": ["--root", "data", *argv]}
    return runs


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs, after they ended; `outcomes.json` has their exit statuses."""
    folder = tmp_path_factory.mktemp("project")
    make_project(folder)
    (folder / "configs" / "datasets").mkdir(parents=True)
    (folder / "configs/datasets/picture_folders.yaml").write_text('DATASET:\n  NAME: "PictureFolders"\n')
    for plugin in (*PLUGINS, Plugin("MaPLe", "", {"MAPLE": {"PREC": "fp32", "PROMPT_DEPTH": 2}})):
        write_yaml(folder / "configs" / "trainers" / plugin.trainer / "vit_micro.yaml", plugin)
    runs = {name: run for plugin in PLUGINS for name, run in runs_of(plugin).items()}
    run_all(folder, runs | runs_on_the_dataset())
    return folder


def outcome(project: Path, run: str) -> Any:
    return json.loads((project / "outcomes.json").read_text())[run]


def results(project: Path, plugin: Plugin, output: str) -> dict[str, Any]:
    return json.loads((project / "output" / plugin.trainer / output / "results.json").read_text())


def log_of(project: Path, plugin: Plugin, output: str) -> str:
    return (project / "output" / plugin.trainer / output / "log.txt").read_text()


def saved(project: Path, plugin: Plugin, output: str, epoch: int = EPOCHS) -> dict[str, Any]:
    folder = project / "output" / plugin.trainer / output / plugin.model
    return torch.load(folder / f"model.pth.tar-{epoch}", weights_only=True)


def pictures_to_test(project: Path, classes: str) -> int:
    labels = [label for _, label, _ in json.loads((project / "datasets/emoji_data/split.json").read_text())["test"]]
    return sum((label < BASE_CLASSES) == (classes == "base") for label in labels)


@by_trainer
def test_trains_and_writes_results(project: Path, plugin: Plugin):
    assert outcome(project, f"{plugin.trainer} whole") == 0
    found = results(project, plugin, "whole")
    assert found["complete"] and found["trainer"] == plugin.trainer and found["dataset"] == "Emoji"
    assert (found["classes"], found["shots"], found["seed"]) == ("base", 1, 1)
    assert found["total"] == pictures_to_test(project, "base")
    assert found["accuracy"] == pytest.approx(100 * found["correct"] / found["total"])
    assert found["accuracy"] > 2 * 100 / BASE_CLASSES, "far above chance: the backbone is pretrained"
    lines = (project / "output" / plugin.trainer / "whole" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    log = log_of(project, plugin, "whole")
    assert "=> result" in log and "Finish training" in log and f"epoch [{EPOCHS}/{EPOCHS}]" in log
    assert list((project / "output" / plugin.trainer / "whole" / "tensorboard").iterdir())


@by_trainer
def test_saves_what_is_learned_without_the_frozen_backbone(project: Path, plugin: Plugin):
    first, last = (saved(project, plugin, "whole", epoch)["state_dict"] for epoch in (1, EPOCHS))
    frozen = ("conv1.weight", "in_proj_weight", "positional_embedding")
    # SelfRegulated's last step sets all weights to their average, which changes the last bit of frozen ones
    assert any(name.endswith(frozen) for name in last) == (plugin.trainer == "SelfRegulated")
    assert not any(name.endswith(frozen) for name in first)
    assert [name for name in first if not torch.equal(first[name], last[name])]


@by_trainer
def test_resumes_to_the_same_bits(project: Path, plugin: Plugin):
    assert outcome(project, f"{plugin.trainer} first half") == "interrupted"
    assert outcome(project, f"{plugin.trainer} second half") == 0
    assert "1 of 2 epochs are done" in log_of(project, plugin, "halves")
    whole, halves = (saved(project, plugin, output)["state_dict"] for output in ("whole", "halves"))
    assert whole.keys() == halves.keys()
    for name, value in whole.items():
        assert torch.equal(value, halves[name]), name
    assert results(project, plugin, "halves")["correct"] == results(project, plugin, "whole")["correct"]


@by_trainer
def test_loads_and_tests(project: Path, plugin: Plugin):
    for output in ("base", "new"):
        assert outcome(project, f"{plugin.trainer} test {output}") == 0
        assert f"* total: {pictures_to_test(project, output)}" in log_of(project, plugin, output)
    if plugin.trainer != "ResidualAdapter":  # tests its best epoch after training, but the last one here
        line = next(line for line in log_of(project, plugin, "whole").splitlines() if line.startswith("* accuracy"))
        assert line in log_of(project, plugin, "base")


@by_trainer
def test_evaluation_writes_results(project: Path, plugin: Plugin):
    """Also for a plug-in whose `test` or `load_model` does not know about results.json."""
    for output in ("base", "new"):
        found = results(project, plugin, output)
        assert found["complete"] and found["classes"] == output and found["epoch"] == EPOCHS
        assert found["total"] == pictures_to_test(project, output)


def test_third_party_dataset_is_found_and_uses_its_caches(project: Path):
    maple = Plugin("MaPLe", "MultiModalPromptLearner", {})
    for name in ("first", "again"):
        assert outcome(project, f"MaPLe {name} on PictureFolders") == 0
        found = results(project, maple, f"pictures_{name}")
        assert found["dataset"] == "PictureFolders" and found["total"] == 4 * len(CLASSES)
    folder = project / "data" / "picture_folders"
    assert (folder / "split_fewshot" / "shot_2-seed_1.pkl").is_file()
    split = json.loads((folder / "split_zhou_PictureFolders.json").read_text())
    assert not Path(split["train"][0][0]).is_absolute()
    assert "Loading preprocessed few-shot data" in log_of(project, maple, "pictures_again")


def test_data_parallel_wrapper_is_harmless(project: Path):
    """Names in the checkpoint have no `module.`, even if a plug-in wraps its model for several GPUs."""
    assert outcome(project, "CoupledPrompts first on PictureFolders") == 0
    assert "On 2 GPUs" in log_of(project, PLUGINS[1], "pictures_first")
    assert not [name for name in saved(project, PLUGINS[1], "pictures_first")["state_dict"] if "module." in name]
