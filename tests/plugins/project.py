"""A project folder with third-party files in `trainers/` and `datasets/`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.paths import ROOT

FILES = Path(__file__).with_name("files")
EMOJI = ROOT / "datasets" / "emoji_data"
PICTURES_PER_CLASS = 12
CLASSES = ("bird", "body_part", "book", "fruit", "heart", "insect")


class Plugin(NamedTuple):
    """A third-party trainer, the folder of its checkpoints, and the content of its YAML file."""

    trainer: str
    model: str
    node: dict[str, Any]
    settings: dict[str, Any] = {}


PLUGINS = [
    Plugin("GuidedCoOp", "prompt_learner", {"COOP": {"CTX_INIT": "a photo of a", "PREC": "amp", "W": 2.0}}),
    Plugin("CoupledPrompts", "MultiModalPromptLearner", {"MAPLE": {"PREC": "fp32", "PROMPT_DEPTH": 3}}),
    Plugin(
        "SelfRegulated",
        "VLPromptLearner",
        {
            "PROMPTSRC": {
                "N_CTX_VISION": 2,
                "N_CTX_TEXT": 3,
                "CTX_INIT": "a photo of a",
                "PREC": "fp16",
                "PROMPT_DEPTH_VISION": 3,
                "PROMPT_DEPTH_TEXT": 2,
                "TEXT_LOSS_WEIGHT": 25,
                "IMAGE_LOSS_WEIGHT": 10,
                "GPA_MEAN": 2,
                "GPA_STD": 1,
            }
        },
    ),
    Plugin("OwnLoops", "prototypes", {"LOOPS": {"TEMPERATURE": 0.05}}, {"LOSS": {"NAME": "smooth"}}),
    Plugin("ResidualAdapter", "clip_adapter", {"ADAPTER": {"RATIO": 0.3}}, {"TEST": {"FINAL_MODEL": "best_val"}}),
    Plugin("WeightedCoOp", "prompt_learner", {"COOP": {"N_CTX": 4, "PREC": "fp32", "ALPHA": 0.5}}),
]


def make_project(folder: Path) -> None:
    """Links to the framework, folders `trainers/` and `datasets/` that include the plug-ins, and some pictures."""
    for name in ("clip", "dassl"):
        (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    shutil.copy(ROOT / "train.py", folder)
    shutil.copy(Path(__file__).with_name("driver.py"), folder)
    for package in ("trainers", "datasets"):
        (folder / package).mkdir()
        for path in [*(ROOT / package).glob("*.py"), *(FILES / package).glob("*.py")]:
            (folder / package / path.name).symlink_to(path)
    (folder / "trainers" / "features").symlink_to(ROOT / "trainers" / "features", target_is_directory=True)
    thin_out_emoji(folder / "datasets" / "emoji_data")
    for name in CLASSES:
        target = folder / "data" / "picture_folders" / "images" / name
        target.mkdir(parents=True)
        for picture in sorted((EMOJI / "images" / name).iterdir())[:PICTURES_PER_CLASS]:
            (target / picture.name).symlink_to(picture)


def thin_out_emoji(folder: Path) -> None:
    """The emoji dataset with every fifth test picture: these tests are not about accuracy."""
    folder.mkdir()
    (folder / "images").symlink_to(EMOJI / "images", target_is_directory=True)
    split = json.loads((EMOJI / "split.json").read_text())
    (folder / "split.json").write_text(json.dumps({**split, "test": split["test"][::5]}))


def write_yaml(path: Path, plugin: Plugin) -> None:
    """The settings of the demonstration, with the plug-in's node instead of the method's."""
    settings = yaml.safe_load((ROOT / "configs" / "trainers" / "MaPLe" / "vit_micro.yaml").read_text())
    settings |= {"TRAINER": plugin.node, **plugin.settings}
    settings["OPTIM"] |= {"MAX_EPOCH": 2, "WARMUP_EPOCH": 1}
    settings["TRAIN"] |= {"CHECKPOINT_FREQ": 1}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings))


def run_all(folder: Path, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The outcome of each named run, see `driver.py`."""
    (folder / "runs.json").write_text(json.dumps(runs))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DASSL_TRACEBACK": "1"}
    done = subprocess.run(
        [sys.executable, "driver.py", "runs.json"], cwd=folder, env=environment, capture_output=True, text=True
    )
    (folder / "stdout.txt").write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads((folder / "outcomes.json").read_text())
