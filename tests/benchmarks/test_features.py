"""The benchmark of stored features: what it writes, on a few pictures. No speed is asserted."""

import json

import pytest

from benchmarks import features


@pytest.mark.slow
def test_features_writes_what_it_promises(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(features, "on_demonstration", lambda: {**part, "images": 7})
    monkeypatch.setattr(features, "METHOD_NAMES", ("zsclip", "coop"))
    monkeypatch.setattr(features, "SEEDS", (1, 2))
    part = {"tests": [{"stored": 1.0}] * 2, "seconds": {"stored": 2.0, "images": 8.0, "images_measured": 2}, "ratio": 4}
    path = tmp_path / "features.json"
    words = ["--images", "20", "--backbone", "ViT-Micro/8", "--measured", "2", "--json", str(path)]
    features.main(words)
    result = json.loads(path.read_text())
    tests = result["pictures"]["tests"]
    assert [(test["method"], test["seed"]) for test in tests] == [
        ("zsclip", 1),
        ("coop", 1),
        ("zsclip", 2),
        ("coop", 2),
    ]
    assert [test["features"] for test in tests] == ["computed", "stored", "stored", "stored"]
    assert [test["images"] is None for test in tests] == [False, False, True, True]
    assert [test["equal_logits"] for test in tests] == [20] * 4
    seconds = result["pictures"]["seconds"]
    assert seconds["images"] == pytest.approx(2 * (tests[0]["images"] + tests[1]["images"]))
    assert result["ratio"] == pytest.approx((8 + seconds["images"]) / (2 + seconds["stored"]))
    assert "in sum" in capsys.readouterr().out
