"""`python -m inference cost`: parameters as in results.json, operations as counted by hand."""

import json

import pytest

import inference
from inference.__main__ import main
from inference.measures import count_flops
from tests.inference.conftest import Made
from tests.paths import ROOT

CONFIG = str(ROOT / "configs/trainers/MaPLe/vit_micro.yaml")
Captured = pytest.CaptureFixture[str]


def cost(capsys: Captured, *arguments: object) -> dict:
    words = ["cost", *map(str, arguments), "--format", "json", "--seconds", "0", "--batch", "1", "2"]
    assert main(words) == 0
    return json.loads(capsys.readouterr().out)


def test_operations_by_hand(made: Made) -> None:
    """The image tower's matrix products: of its last block the class token alone goes on after keys and values."""
    classifier = inference.load(made("zsclip"))
    model = classifier.trainer.model
    tower, K = model.image_encoder, len(classifier.classnames)
    E, w = 128, tower.conv1.out_channels
    layers, patches = len(tower.transformer.resblocks), (48 // 8) ** 2
    t = patches + 1
    embed = patches * 3 * 8 * 8 * w
    block = t * 12 * w * w + 2 * t * t * w
    last = t * 2 * w * w + 10 * w * w + 2 * t * w
    macs = embed + (layers - 1) * block + last + w * E + E * K
    found = count_flops(classifier)
    assert found["image"] == 2 * macs
    assert found["image_and_texts"] == found["image"] + found["texts"] and found["texts"] > 0
    fewer = count_flops(classifier.with_classes(classifier.classnames[:5]))
    assert fewer["texts"] < found["texts"] and found["image"] - fewer["image"] == 2 * E * (K - 5)


def test_texts_of_each_image_belong_to_it(made: Made) -> None:
    assert count_flops(inference.load(made("cocoop")))["texts"] == 0


def test_of_a_run(made: Made, capsys: Captured) -> None:
    found = cost(capsys, made("maple"))
    results = json.loads((made("maple") / "results.json").read_text(encoding="utf-8"))
    for name in ("learned", "total"):
        assert found["parameters"][name] == results[f"{name}_parameters"]
    assert (found["trainer"], found["precision"], found["classes"]) == ("MaPLe", "fp32", 20)
    assert [one["batch"] for one in found["speed"]] == [1, 2]
    assert all(one["images_per_second"] == pytest.approx(one["batch"] / one["seconds"]) for one in found["speed"])
    assert found["peak_memory_bytes"] > 2**20


def test_of_a_file_of_settings(capsys: Captured) -> None:
    """MaPLe learns ctx (M, Dt), J-1 further prompts, and J maps from Dt to Dv."""
    found = cost(capsys, CONFIG, "--num-classes", 3, "--opts", "TRAINER.MAPLE.PROMPT_DEPTH", 2)
    deeper = cost(capsys, CONFIG, "--classes", "cat", "dog", "--opts", "TRAINER.MAPLE.PROMPT_DEPTH", 3)
    assert (found["classes"], deeper["classes"]) == (3, 2)
    Dt, Dv, M = 128, 128, 2
    of_layer = M * Dt + Dt * Dv + Dv
    assert deeper["parameters"]["learned"] - found["parameters"]["learned"] == of_layer
    assert found["parameters"]["learned"] == 2 * of_layer


def test_as_text(made: Made, capsys: Captured) -> None:
    assert main(["cost", str(made("zsclip")), "--seconds", "0"]) == 0
    out = capsys.readouterr().out
    assert "ZeroshotCLIP" in out and "GMACs" in out and "batches of 32" in out


def test_what_is_no_config(capsys: Captured) -> None:
    assert main(["cost", "configs/absent.yaml"]) == 2
    assert "No config file configs/absent.yaml" in capsys.readouterr().err
    assert main(["cost", CONFIG, "--opts", "TRAINER.MAPLE.DEPTH", "3"]) == 2
    assert "TRAINER.MAPLE.DEPTH: no such key" in capsys.readouterr().err
