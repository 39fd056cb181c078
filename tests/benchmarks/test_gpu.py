"""A whole run on synthetic images, and the script for a machine with a GPU. No speed is asserted."""

import json
import os
import shlex
import subprocess
from importlib import import_module

import pytest

import train
from benchmarks import imagenet_run, models
from tests.paths import ROOT

TINY = ("--classes", "3", "--shots", "2", "--val", "2", "--pictures", "2", "--size", "32x24", "--workers", "0")


def test_a_whole_run_writes_what_it_promises(tmp_path, monkeypatch, capsys):
    """Of two epochs with one step on four of the six images, and a test of 3 x 2."""

    def in_process(folder, python, script, *words: str) -> float:
        assert script == "train.py" and folder == ROOT
        monkeypatch.chdir(folder)
        assert train.main(list(words)) == 0
        return 100.0

    monkeypatch.setattr(imagenet_run, "seconds_of", in_process)
    path = tmp_path / "run.json"
    imagenet_run.main([*TINY, "--backbone", "ViT-Micro/8", "--json", str(path), "INPUT.SIZE", "(48, 48)"])
    result = json.loads(path.read_text())
    assert list(tmp_path.iterdir()) == [path]
    assert [(row["epoch"], row["steps"]) for row in result["epochs"]] == [(1, 1), (2, 1)]
    assert result["tested"] == 6 and result["steps"] == 2
    seconds = result["seconds"]
    assert seconds["whole"] == 100 and seconds["train"] + seconds["test"] + seconds["other"] == pytest.approx(100)
    assert {"device", "processor", "cores", "torch", "precision", "peak_bytes", "seconds_before"} < set(result)
    assert "whole run: 100.0 s" in capsys.readouterr().out


def test_the_folder_is_one_of_imagenet(tmp_path, monkeypatch):
    """The dataset accepts it with all its 1,000 classes, also without the real class names."""
    monkeypatch.setattr(models, "CLASSNAMES", tmp_path / "absent")
    args = imagenet_run.argparse.Namespace(classes=1000, shots=1, val=1, pictures=1, size=(8, 8))
    words = imagenet_run.save_images(tmp_path, args)
    cfg = train.setup_cfg(train.parse_args([*words, "--trainer", "MaPLe", "DATASET.NUM_SHOTS", "1"]))
    dataset = import_module("datasets.imagenet").ImageNet(cfg)
    assert (len(dataset.train_x), len(dataset.test), dataset.num_classes) == (1000, 1000, 1000)


def run_script(*words: str, **environment: str) -> subprocess.CompletedProcess:
    command = ["bash", "benchmarks/gpu.sh", *words]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


def test_a_part_that_there_is_not(tmp_path):
    done = run_script(str(tmp_path / "out"), "steps")
    assert done.returncode == 2 and "there is no part steps, expected some of imagenet step loading" in done.stderr


@pytest.mark.parametrize("words", [(), ("step", "tests")])
@pytest.mark.parametrize("tiny", ["", "1"])
def test_every_command_of_the_script_is_understood(tmp_path, monkeypatch, words, tiny):
    """With DRY_RUN it prints them; each benchmark takes its options."""
    done = run_script(str(tmp_path / "out"), *words, DRY_RUN="1", TRY=tiny, PYTHON="python")
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    assert all(command[:2] == ["python", "-m"] for command in commands)
    assert len(commands) == (2 if words else 7)

    class Understood(Exception):
        pass

    def instead(args):
        raise Understood

    for module, *options in (command[2:] for command in commands):
        if module == "pytest":
            continue
        benchmark = import_module(module)
        monkeypatch.setattr(benchmark, "recorded" if module == "benchmarks.step" else "run", instead)
        with pytest.raises(Understood):
            benchmark.main(options)
