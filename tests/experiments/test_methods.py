"""The table of methods: published configs per protocol, and a start without torch."""

import json
import subprocess
import sys

import pytest
import yaml

from experiments.methods import METHODS, Method, method_named
from tests.paths import ROOT

CONFIGS = ROOT / "configs" / "trainers"
PROTOCOLS = ("base2new", "cross_dataset", "few_shot", "zero_shot")


def epochs(method: Method, protocol: str, dataset: str, shots: int) -> int:
    """MAX_EPOCH of the published config."""
    file = CONFIGS / method.trainer / f"{method.published_config(protocol, dataset, shots)}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))["OPTIM"]["MAX_EPOCH"]


@pytest.mark.parametrize("dataset", ["imagenet", "dtd", "emoji"])
@pytest.mark.parametrize("name", METHODS)
def test_every_published_config_exists(name: str, dataset: str) -> None:
    method = METHODS[name]
    for protocol in PROTOCOLS:
        for shots in (1, 2, 4, 8, 16):
            for config in method.published_configs(protocol, dataset, shots):
                assert (CONFIGS / method.trainer / f"{config}.yaml").is_file(), (protocol, shots, config)
                assert config.startswith("vit_micro") == (dataset == "emoji")


@pytest.mark.parametrize(
    ("name", "protocol", "dataset", "shots", "expected"),
    [
        ("maple", "base2new", "dtd", 16, 5),  # the epochs that the papers state
        ("maple", "cross_dataset", "imagenet", 16, 2),
        ("cocoop", "base2new", "dtd", 16, 10),
        ("vpt", "base2new", "dtd", 16, 5),
        ("independent-vlp", "base2new", "dtd", 16, 5),
        ("language-prompting", "base2new", "dtd", 16, 5),
        ("kgcoop", "base2new", "dtd", 16, 100),
        ("kgcoop", "few_shot", "imagenet", 4, 100),
        ("tcp", "base2new", "dtd", 16, 50),
        ("coop", "base2new", "dtd", 16, 100),
        ("coop", "cross_dataset", "imagenet", 16, 50),
        ("coop", "few_shot", "dtd", 1, 50),
        ("coop", "few_shot", "dtd", 2, 100),
        ("coop", "few_shot", "dtd", 4, 100),
        ("coop", "few_shot", "dtd", 8, 200),
        ("coop", "few_shot", "imagenet", 16, 50),
        ("promptsrc", "base2new", "dtd", 16, 20),
        ("promptsrc", "cross_dataset", "imagenet", 16, 20),
        ("promptsrc", "few_shot", "dtd", 1, 50),
        ("prograd", "base2new", "dtd", 16, 100),
        ("prograd", "base2new", "imagenet", 16, 50),
        ("prograd", "cross_dataset", "imagenet", 16, 50),
        ("prograd", "few_shot", "dtd", 1, 50),
        ("prograd", "few_shot", "dtd", 4, 100),
        ("prograd", "few_shot", "dtd", 16, 200),
        ("prograd", "few_shot", "imagenet", 16, 50),
        ("mmrl", "base2new", "dtd", 16, 10),
        ("mmrl", "few_shot", "dtd", 1, 50),
        ("mmrlpp", "few_shot", "dtd", 16, 100),
        *((name, protocol, "imagenet", 16, 5) for name in ("mmrl", "mmrlpp") for protocol in ("base2new", "few_shot")),
        *((name, "cross_dataset", "imagenet", 16, 1) for name in ("mmrl", "mmrlpp")),
        ("tip_adapter", "few_shot", "dtd", 16, 0),
        ("tip_adapter_f", "few_shot", "dtd", 16, 20),
        ("clip_adapter", "few_shot", "dtd", 1, 50),
        ("clip_adapter", "few_shot", "dtd", 4, 100),
        ("clip_adapter", "base2new", "dtd", 16, 200),
        ("clip_adapter", "cross_dataset", "imagenet", 16, 50),
        ("taskres", "few_shot", "dtd", 4, 100),
        ("taskres", "few_shot", "dtd", 8, 200),
        ("taskres", "cross_dataset", "imagenet", 16, 200),
    ],
)
def test_published_configs_train_the_published_number_of_epochs(
    name: str, protocol: str, dataset: str, shots: int, expected: int
) -> None:
    assert epochs(METHODS[name], protocol, dataset, shots) == expected


TIP_F_EUROSAT = ("TRAINER.TIPADAPTERF.SEARCH_SCALE", "[12, 10]", "TRAINER.TIPADAPTERF.INIT_ALPHA", "2")
GPA_45 = ("TRAINER.PROMPTSRC.GPA_MEAN", "45", "TRAINER.PROMPTSRC.GPA_STD", "5")


@pytest.mark.parametrize(
    ("name", "protocol", "dataset", "shots", "expected"),
    [
        *(("promptsrc", "few_shot", dataset, 1, GPA_45) for dataset in ("stanford_cars", "dtd", "eurosat")),
        *(("promptsrc", "few_shot", dataset, 16, GPA_45) for dataset in ("oxford_flowers", "fgvc_aircraft")),
        *(("promptsrc", "few_shot", dataset, 16, ()) for dataset in ("imagenet", "food101", "sun397", "emoji")),
        ("promptsrc", "base2new", "dtd", 16, ()),
        *(("prograd", "few_shot", name, 8, ("TRAINER.PROGRAD.LAMBDA", "0.8")) for name in ("oxford_flowers", "dtd")),
        ("prograd", "few_shot", "eurosat", 16, ("TRAINER.PROGRAD.LAMBDA", "0.8")),
        *(("prograd", "few_shot", dataset, 8, ()) for dataset in ("oxford_pets", "imagenet")),
        ("prograd", "few_shot", "eurosat", 4, ()),
        ("prograd", "base2new", "eurosat", 16, ()),
        ("mmrl", "base2new", "dtd", 16, ("TRAINER.MMRL.REG_WEIGHT", "6")),
        ("mmrl", "few_shot", "eurosat", 1, ("TRAINER.MMRL.REG_WEIGHT", "0.01", "TRAINER.MMRL.REP_DIM", "2048")),
        ("mmrlpp", "base2new", "food101", 16, ("TRAINER.MMRLpp.BETA", "0.1", "TRAINER.MMRLpp.REG_WEIGHT", "1")),
        *((name, "base2new", "imagenet", 16, ()) for name in ("mmrl", "mmrlpp")),
        *((name, "cross_dataset", dataset, 16, ()) for name in ("mmrl", "mmrlpp") for dataset in ("imagenet", "dtd")),
        ("tip_adapter", "few_shot", "dtd", 4, ("TRAINER.TIPADAPTER.SEARCH_SCALE", "[13, 13]")),
        ("tip_adapter", "few_shot", "emoji", 4, ()),
        ("tip_adapter_f", "few_shot", "eurosat", 1, (*TIP_F_EUROSAT, "OPTIM.MAX_EPOCH", "100")),
        ("taskres", "few_shot", "oxford_flowers", 1, ("TRAINER.TASKRES.RESIDUAL_SCALE", "1.0")),
        ("taskres", "few_shot", "imagenet", 16, ("OPTIM.LR", "0.0002")),
        ("taskres", "few_shot", "dtd", 16, ()),
    ],
)
def test_published_settings_of_a_dataset(
    name: str, protocol: str, dataset: str, shots: int, expected: tuple[str, ...]
) -> None:
    assert METHODS[name].published_settings(protocol, dataset, shots) == expected


def test_every_method_has_a_folder_of_scripts_and_every_script_a_row() -> None:
    sourcing = [path for path in (ROOT / "scripts").glob("*/*.sh") if "run.sh" in path.read_text(encoding="utf-8")]
    assert {path.parent.name for path in sourcing} == set(METHODS)


def test_an_unknown_method_is_answered_with_the_closest() -> None:
    with pytest.raises(ValueError, match=r"no method 'mapel' .*did you mean maple"):
        method_named("mapel")


@pytest.mark.parametrize("module", ["protocols", "entry", "sweeps", "report.command"])
def test_starts_without_torch_and_numpy(module: str) -> None:
    code = f"import sys, json, experiments.{module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"torch", "torchvision", "numpy"} & set(json.loads(done.stdout))
