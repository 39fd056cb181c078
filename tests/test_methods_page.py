"""docs/METHODS.md against the table of methods, what they learn at ViT-B/16, and the published numbers."""

import re

import pytest

import datasets  # noqa: F401  (registers the datasets)
import train
from dassl.config import merge_file, merge_options
from dassl.data.datasets import Datum
from dassl.engine import TRAINER_REGISTRY
from experiments.methods import METHODS
from experiments.published import published_value
from tests.paths import ROOT
from tests.trainers.test_methods import learned, vit_b16
from trainers.without_data import dataset_without_images

PAGE = (ROOT / "docs" / "METHODS.md").read_text(encoding="utf-8")
COLUMNS = ("method", "learns", "where", "learned", "protocols", "published", "demonstration")
ROWS = {
    cells[0].strip("`"): dict(zip(COLUMNS, cells, strict=True))
    for line in PAGE.splitlines()
    if line.startswith("| `") and len(cells := re.findall(r"(?<=\| )[^|]*(?= \|)", line)) == len(COLUMNS)
}
PROTOCOLS = {"base2new": "B2N", "cross_dataset": "XD", "domain_generalization": "DG", "few_shot": "FS"}


def test_every_method_has_a_row() -> None:
    assert set(ROWS) == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_learned_at_vit_b16(name: str) -> None:
    """On ImageNet's 1,000 classes with 16 shots, with the published settings."""
    method = METHODS[name]
    protocol = "few_shot" if "base2new" in method.undefined else "base2new"
    cfg = train.default_cfg()
    config = method.published_config(protocol, "imagenet", 16)
    merge_file(cfg, ROOT / "configs" / "trainers" / method.trainer / f"{config}.yaml")
    merge_options(cfg, list(method.published_settings(protocol, "imagenet", 16)))
    dataset = dataset_without_images("ImageNet", [f"class {i}" for i in range(1000)])
    dataset.train_x = [Datum(f"{i}.jpg", label=i % 1000) for i in range(16_000)]
    trainer = TRAINER_REGISTRY.get(method.trainer)
    model = trainer.build(trainer.options_of(cfg), dataset, vit_b16())
    assert ROWS[name]["learned"] == f"{sum(learned(model).values()):,}"


@pytest.mark.parametrize("name", METHODS)
def test_protocols_and_published_numbers(name: str) -> None:
    method, row = METHODS[name], ROWS[name]
    if method.trained or method.name == "tip_adapter":
        assert row["protocols"].split(", ") == [PROTOCOLS[p] for p in PROTOCOLS if p not in method.undefined]
    metrics = ("base", "new", "harmonic_mean")
    average = [published_value("base2new", method.published, "Average", metric) for metric in metrics]
    if all(average):
        assert " / ".join(f"{number.value:.2f}" for number in average if number) in row["published"]
    few_shot = published_value("few_shot", method.published, "Average", "accuracy", 16)
    assert few_shot is None or f"16 shots {few_shot.value:.2f}" in row["published"]
