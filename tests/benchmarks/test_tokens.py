"""The count of text tokens: by hand, and of the published class names."""

import json

from benchmarks import tokens
from tests.paths import needs_published


def test_counts_by_hand() -> None:
    """SOS a photo of a cat | . EOT | dog . EOT: a prefix of 6; before, both suffixes had 3 tokens."""
    assert tokens.count(["cat", "cat_dog"], "a photo of a {}.") == {
        **{"classes": 2, "padded": 154},
        **{"before": 12, "now": 11, "distinct": 11},
    }


def test_padded_lengths_of_suffixes() -> None:
    assert tokens.bucketed([2, 2, 3]) == 9  # two tokens of padding cost less than a second length
    assert tokens.bucketed([2] * 200 + [9] * 200) == 2200  # 1,400 cost more


@needs_published
def test_published_class_names(tmp_path, capsys) -> None:
    """Numbers of distinct beginnings that were counted without this code."""
    tokens.main(["--json", str(tmp_path / "tokens.json")])
    found = json.loads((tmp_path / "tokens.json").read_text())
    assert "not at hand (--root): Food101, FGVCAircraft, SUN397" in capsys.readouterr().out
    distinct = {"Caltech101": 349, "EuroSAT": 49, "StanfordCars": 1135, "UCF101": 403, "ImageNet": 4008}
    for name, count in distinct.items():
        row = found["datasets"][name]
        assert row["distinct"] == count
        assert row["distinct"] <= row["now"] <= row["before"]
    assert found["datasets"]["StanfordCars"]["now"] < 0.6 * found["datasets"]["StanfordCars"]["before"]


def test_a_dataset_that_is_not_there_is_named(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(tokens, "CLASSNAMES", tmp_path / "imagenet_classnames.txt")
    tokens.main(["--root", str(tmp_path)])
    assert "UCF101 was not found or is incomplete." in capsys.readouterr().out
