"""A repository with its own configuration tree, which lacks the keys that upstream Dassl does not have."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dassl.config import get_cfg_default
from tests.plugins.project import FILES, ROOT, make_project

OUR_KEYS = (
    "DATASET.SUBSAMPLE_CLASSES",
    "DATASET.ON_BAD_IMAGE",
    "DATALOADER.CACHE_MB",
    "INPUT.EXIF_ORIENTATION",
    "PROTOCOL",
)


def upstreams_tree() -> str:
    """Upstream's keys and defaults (tests/dassl/test_config.py compares them with the published ones), as YAML."""
    tree = get_cfg_default()
    for key in OUR_KEYS:
        *path, name = key.split(".")
        node = tree
        for part in path:
            node = node[part]
        del node[name]
    return tree.dump()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the repository's `train.py` has trained, and has tested its checkpoint."""
    folder = tmp_path_factory.mktemp("project")
    make_project(folder)
    (folder / "own_train.py").symlink_to(FILES / "own_train.py")
    (folder / "defaults.yaml").write_text(upstreams_tree())
    options = ["SEED", 1, "DATASET.NUM_SHOTS", 1, "INPUT.SIZE", "(48,48)", "MODEL.BACKBONE.NAME", "ViT-Micro/8"]
    options += ["INPUT.TRANSFORMS", "('random_flip','normalize')", "OPTIM.MAX_EPOCH", 2, "OPTIM.LR", 0.002]
    options += ["DATALOADER.NUM_WORKERS", 0, "TRAINER.COOP.PREC", "fp32"]
    common = ["--trainer", "GuidedCoOp", "--dataset-config-file", str(ROOT / "configs" / "datasets" / "emoji.yaml")]
    saved = ["--eval-only", "--model-dir", "trained", "--load-epoch", "2"]
    runs = [["--output-dir", "trained", *common, *options], ["--output-dir", "tested", *common, *saved, *options]]
    code = f"import own_train\nfor run in {runs}:\n    own_train.main([str(word) for word in run])"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    (folder / "run.py").write_text(code)
    done = subprocess.run([sys.executable, "run.py"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


def test_the_tree_lacks_our_keys() -> None:
    assert not [key for key in OUR_KEYS if f"{key.rpartition('.')[2]}:" in upstreams_tree()]


def test_trains_saves_and_tests(project: Path) -> None:
    found = json.loads((project / "trained" / "results.json").read_text())
    assert found["complete"] and (found["classes"], found["protocol"]) == ("all", "few_shot")
    saved = project / "trained" / "prompt_learner" / "model.pth.tar-2"
    assert "ctx" in torch.load(saved, weights_only=True)["state_dict"]


def test_reloads_to_the_same_result(project: Path) -> None:
    trained, tested = (json.loads((project / name / "results.json").read_text()) for name in ("trained", "tested"))
    assert tested["correct"] == trained["correct"] > 0
    assert tested["total"] == trained["total"]
