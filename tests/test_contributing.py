"""The sample method of CONTRIBUTING.md works as printed: module, configuration, table row and shell entry."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

import datasets  # noqa: F401  (registers the datasets)
import experiments.methods
import train
import trainers
from dassl.engine import TRAINER_REGISTRY, build_trainer
from tests.paths import ROOT
from trainers.base import ClipTrainer

COOP = ROOT / "configs" / "trainers" / "CoOp" / "vit_micro.yaml"
SHORT = {"SEED": 1, "OPTIM.MAX_EPOCH": 1, "OPTIM.WARMUP_EPOCH": 0, "DATASET.NUM_SHOTS": 1, "TEST.NO_TEST": True}
SHORT |= {"DATASET.SUBSAMPLE_CLASSES": "base", "DATALOADER.TRAIN_X.BATCH_SIZE": 10, "VERBOSE": False}


def blocks(language: str) -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The sample as a module of trainers/. Afterwards, neither the registry nor the configuration knows it."""
    monkeypatch.setattr(TRAINER_REGISTRY, "_obj_map", dict(TRAINER_REGISTRY._obj_map))
    path = tmp_path / "feature_adapter.py"
    path.write_text(blocks("python")[0], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("trainers.feature_adapter", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(trainers, "_MODULES", [*trainers._MODULES, module])
    return module


def make(folder: Path, trainer: str, config: Path) -> ClipTrainer:
    argv = ["--trainer", trainer, "--dataset-config-file", str(ROOT / "configs" / "datasets" / "emoji.yaml")]
    argv += ["--config-file", str(config), "--output-dir", str(folder)]
    opts = [str(word) for pair in SHORT.items() for word in pair]
    return build_trainer(train.setup_cfg(train.parse_args([*argv, *opts])))


def sample_config(folder: Path) -> Path:
    """CoOp's configuration with the sample's header and node."""
    header, node = blocks("yaml")[0].split("TRAINER:\n")
    settings = re.sub(r"\A(#.*\n)+", "", COOP.read_text(encoding="utf-8")).split("TRAINER:\n")[0]
    path = folder / "vit_micro.yaml"
    path.write_text(f"{header}{settings}TRAINER:\n{node}", encoding="utf-8")
    return path


def test_the_sample_starts_from_zero_shot_clip_trains_and_loads(module: ModuleType, tmp_path: Path) -> None:
    trainer = make(tmp_path / "run", "FeatureAdapter", sample_config(tmp_path))
    assert isinstance(trainer, module.FeatureAdapter)
    images = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    zero_shot = make(tmp_path / "zero_shot", "ZeroshotCLIP", ROOT / "configs/trainers/ZeroshotCLIP/vit_micro.yaml")
    with torch.no_grad():
        expected = zero_shot.model_inference(images)
        assert torch.allclose(trainer.model_inference(images), expected, rtol=0, atol=1e-4)

    trainer.train()
    (line,) = (tmp_path / "run" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert {"loss", "ce", "drift"} <= set(re.findall(r'"(\w+)":', line)), json.loads(line)
    file = tmp_path / "run" / "adapter" / "model.pth.tar-1"
    saved = torch.load(file, weights_only=True)["state_dict"]
    assert {name: tuple(t.shape) for name, t in saved.items()} == {
        "adapter.0.weight": (32, 128),
        "adapter.0.bias": (32,),
        "adapter.2.weight": (128, 32),
    }
    assert saved["adapter.2.weight"].abs().max() > 0, "it started from zeros"

    again = make(tmp_path / "again", "FeatureAdapter", sample_config(tmp_path))
    again.load_model(str(tmp_path / "run"), epoch=1)
    with torch.no_grad():
        trainer.set_model_mode("eval")
        again.set_model_mode("eval")
        logits = trainer.model_inference(images)
        assert torch.equal(again.model_inference(images), logits)
        assert not torch.equal(logits, expected)


def test_the_sample_s_row_and_entry_belong_together() -> None:
    (row,) = eval(f"[{blocks('python')[1]}]", vars(experiments.methods))
    assert (row.name, row.trainer) == ("feature-adapter", "FeatureAdapter")
    assert row.published_config("base2new", "emoji", 16) == "vit_micro"
    coop = (ROOT / "scripts" / "coop" / "base2new_train.sh").read_text(encoding="utf-8")
    (entry,) = blocks("bash")
    assert entry == coop.replace("CoOp", row.trainer).replace("coop", row.name)
