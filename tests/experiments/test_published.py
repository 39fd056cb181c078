"""The published numbers: recomputed, compared with the facts they were taken from, and found for the right runs."""

import csv
import re
from collections import defaultdict
from statistics import mean

import pytest
import yaml

from experiments.methods import METHODS
from experiments.published import FILE, Published, published_method, published_number, published_value, read_published
from experiments.report.tables import harmonic_mean
from experiments.runs import IMAGENET_VARIANTS, Run
from tests.paths import PUBLISHED, ROOT, needs_published

# Figures that disagree with the others of their own source: what is printed there, and what the others give
DISAGREEMENTS = {
    ("base2new", "PromptSRC+DePT", "ucf101", "harmonic_mean"): (82.46, 82.41),
    ("base2new", "MaPLe (DePT re-run)", "fgvc_aircraft", "harmonic_mean"): (38.31, 38.41),
    ("base2new", "MMRL", "Average", "base"): (85.68, 85.71),
    ("base2new", "MMRL", "Average", "new"): (77.16, 76.28),
    ("base2new", "CoOp (DePT re-run)", "Average", "base"): (81.50, 81.59),
    ("base2new", "CoOp (DePT re-run)", "Average", "new"): (69.77, 69.99),
    ("cross_dataset", "CoCoOp+ATPrompt", "Average", "accuracy"): (66.59, 66.12),
    ("cross_dataset", "MaPLe+ATPrompt", "Average", "accuracy"): (66.75, 66.39),
}
ROUNDING = 0.011  # what a figure of two decimals may differ from one that is recomputed from rounded ones
DATASETS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))["DATASET"]["NAME"]
    for path in (ROOT / "configs" / "datasets").glob("*.yaml")
}
TARGETS = {
    "base2new": 11,
    "few_shot": 11,
    "cross_dataset": 10,  # without the source, ImageNet
    "domain_generalization": 4,
}
WITH_IMAGENET = ("base2new", "few_shot")  # ImageNet is one of the datasets of their averages
NOTES = {  # where the figures that are not in the published tables were found: by the start of the method's name
    **{"KgCoOp": "kgcoop", "CoOp (KgCoOp": "kgcoop", "ProGrad": "prograd", "TCP": "tcp", "CoOp+DePT (": "dept"},
    **{"IVLP (4+4": "promptsrc", "MMA": "mma", "MMRL": "mmrl", "CLIP-LoRA": "clip_lora"},
    **{"Tip-Adapter": "tip_adapter", "CLIP-Adapter": "tip_adapter", "CLIP (Tip": "tip_adapter"},
}


def check(protocol: str, method: str, dataset: str, metric: str, printed: float, recomputed: float) -> None:
    """That a figure is the recomputed one, or one of the listed disagreements."""
    if known := DISAGREEMENTS.get((protocol, method, dataset, metric)):
        assert printed == known[0]
        assert recomputed == pytest.approx(known[1], abs=ROUNDING)
    else:
        assert printed == pytest.approx(recomputed, abs=ROUNDING), (protocol, method, dataset, metric)


def test_every_harmonic_mean_is_that_of_base_and_new() -> None:
    numbers, found = read_published(), 0
    for (protocol, method, dataset, metric, shots, backbone), number in numbers.items():
        base = numbers.get((protocol, method, dataset, "base", shots, backbone))
        new = numbers.get((protocol, method, dataset, "new", shots, backbone))
        if metric == "harmonic_mean" and base and new:
            found += 1
            check(protocol, method, dataset, metric, number.value, harmonic_mean(base.value, new.value))
    assert found > 250


def test_every_average_is_the_mean_over_the_targets() -> None:
    groups: dict[tuple, dict[str, float]] = defaultdict(dict)
    for (protocol, method, dataset, metric, shots, backbone), number in read_published().items():
        if metric != "harmonic_mean":
            groups[protocol, method, metric, shots, backbone][dataset] = number.value
    found = 0
    for (protocol, method, metric, *_), values in groups.items():
        targets = [v for d, v in values.items() if d != "Average" and (d != "imagenet" or protocol in WITH_IMAGENET)]
        if "Average" in values and len(targets) == TARGETS[protocol]:
            found += 1
            check(protocol, method, "Average", metric, values["Average"], mean(targets))
    assert found == 58


def test_every_row_has_a_source_and_known_names() -> None:
    with open(FILE, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(read_published()) > 1000, "a cell is there twice"
    for row in rows:
        assert row["source"].strip() and 0 < float(row["value"]) < 100
        assert row["dataset"] == "Average" or row["dataset"] in DATASETS.keys() - {"emoji"}
        assert row["protocol"] in (*TARGETS, "zero_shot") and int(row["shots"]) in (0, 1, 2, 4, 8, 16)
        assert row["metric"] in (("base", "new", "harmonic_mean") if row["protocol"] == "base2new" else ("accuracy",))
        assert (row["dataset"] in IMAGENET_VARIANTS) <= (row["protocol"] == "domain_generalization")
        assert row["backbone"] in ("ViT-B/16", "RN50")


@needs_published
def test_the_numbers_are_those_of_the_published_facts() -> None:
    """Every figure of the tables is there, and every other one stands in the notes on its method."""
    registry = {name: stem for stem, name in DATASETS.items()}
    from_tables = set()
    for file in ("results.csv", "results_peers.csv"):
        with open(PUBLISHED / file, encoding="utf-8", newline="") as opened:
            for row in csv.DictReader(opened):
                shots = re.search(r"_(\d+)shot$", row["metric"])
                metric, k = ("accuracy", int(shots[1])) if shots else (row["metric"], 16)
                cell = (row["protocol"], row["method"], registry.get(row["dataset"], row["dataset"]), metric)
                number = published_value(*cell, shots=k)
                assert number and number.value == float(row["value"]), row
                from_tables.add((*cell, 0 if row["method"] == "CLIP" else k, "ViT-B/16"))
    others = {cell: number.value for cell, number in read_published().items() if cell not in from_tables}
    assert len(others) == len(read_published()) - len(from_tables) > 250
    for cell, value in others.items():
        note = next(name for start, name in NOTES.items() if cell[1].startswith(start))
        text = (PUBLISHED.parent / "methods" / f"{note}.md").read_text(encoding="utf-8")
        assert re.search(rf"(?<![\d.]){re.escape(f'{value:g}')}(\.?0+)?(?![\d])", text), (cell, value)


# ---- the runs that they belong to ------------------------------------------------------------------------------

MAPLE, TRANSFER = "vit_b16_c2_ep5_batch4_2ctx", "vit_b16_c2_ep5_batch4_2ctx_cross_datasets"


@pytest.mark.parametrize(
    ("run", "expected"),
    [  # figures of the papers' tables
        (Run("train_base", "oxford_pets", "MaPLe", MAPLE, 16, 1), 95.43),
        (Run("test_new", "oxford_pets", "MaPLe", MAPLE, 16, 1), 97.76),
        (Run("test_new", "oxford_pets", "MaPLe", MAPLE, 16, 1, reproduced=True), 97.76),
        (Run("test_base", "eurosat", "CoOp", "vit_b16_ep100_ctxv1", 16, 1), 92.19),
        (Run("train_base", "imagenet", "ZeroshotCLIP", "vit_b16", 16, 1), 72.43),
        (Run("train_base", "imagenet", "ZeroshotCLIP", "vit_b16", 4, 1), 72.43),  # it learns nothing from the shots
        (Run("evaluation", "food101", "MaPLe", TRANSFER, 16, 1, source="imagenet"), 86.20),
        (Run("evaluation", "imagenet_a", "MaPLe", TRANSFER, 16, 1, source="imagenet"), 50.90),
        (Run("all_classes", "imagenet", "MaPLe", TRANSFER, 16, 1), 70.72),
        (Run("all_classes", "imagenet", "CoOp", "vit_b16_ep50_ctxv1", 16, 1), 71.51),
        (Run("zero_shot", "imagenet_r", "ZeroshotCLIP", "vit_b16", 0), 73.96),
        (Run("zero_shot", "imagenet", "ZeroshotCLIP", "vit_b16", 0), 66.73),
        (Run("all_classes", "dtd", "TipAdapter", "rn50", 16, 1), 60.93),  # published with RN50, ours with ViT-B/16
        (Run("all_classes", "dtd", "TipAdapterF", "rn50", 1, 1), 49.65),
        (Run("all_classes", "dtd", "CLIPAdapter", "rn50_ep100", 4, 1), 56.86),
    ],
)
def test_a_run_of_a_published_config_has_its_published_number(run: Run, expected: float) -> None:
    number = published_number(run)
    assert number and number.value == expected and number.source


@pytest.mark.parametrize(
    "run",
    [
        Run("test_all", "oxford_pets", "MaPLe", MAPLE, 16, 1),  # nothing is published on base and new together
        Run("train_base", "oxford_pets", "MaPLe", MAPLE, 4, 1),  # other shots
        Run("train_base", "oxford_pets", "MaPLe", TRANSFER, 16, 1),  # the config of another table
        Run("train_base", "oxford_pets", "MaPLe", MAPLE, 16, 1, variant="lr_0.01"),
        Run("train_base", "oxford_pets", "CoOp", "vit_b16_ep50_ctxv1", 16, 1),
        Run("all_classes", "dtd", "TipAdapter", "vit_b16", 16, 1),  # another backbone than the published one
        Run("all_classes", "dtd", "CLIPAdapter", "rn50", 4, 1),  # the epochs of 16 shots
        Run("train_base", "emoji", "MaPLe", "vit_micro", 16, 1),
        Run("evaluation", "food101", "MaPLe", TRANSFER, 16, 1, source="caltech101"),  # another source
        Run("evaluation", "food101", "MaPLe", MAPLE, 16, 1, source="imagenet"),
        Run("all_classes", "imagenet", "MaPLe", TRANSFER, 4, 1),
        Run("all_classes", "food101", "MaPLe", TRANSFER, 16, 1),
        Run("zero_shot", "imagenet", "ZeroshotCLIP", "rn50", 0),
        Run("train_base", "food101", "ZeroshotCLIP", "vit_b32", 16, 1),
        Run("train_base", "food101", "SomeTrainer", "vit_b16", 16, 1),
    ],
)
def test_a_run_with_other_settings_has_none(run: Run) -> None:
    assert published_number(run) is None


def test_the_harmonic_mean_and_the_averages_are_found_for_the_method() -> None:
    run = Run("test_new", "oxford_pets", "MaPLe", MAPLE, 16, 1)
    assert published_number(run, "harmonic_mean") == Published(96.58, "Khattak et al., CVPR 2023 (arXiv 2210.03117)")
    name = published_method(run, "base2new")
    assert name == "MaPLe"
    assert published_value("base2new", name, "Average", "harmonic_mean") is not None
    assert published_value("base2new", name, "Average", "harmonic_mean", shots=4) is None
    assert published_value("base2new", name, "Average", "harmonic_mean", backbone="RN50") is None
    assert published_method(Run("zero_shot", "food101", "ZeroshotCLIP", "vit_b16", 0), "cross_dataset") == "CLIP"
    few_shot = Run("all_classes", "dtd", "CoOp", "vit_b16", 8, 1)
    assert published_method(few_shot, "few_shot") == "CoOp" and published_method(few_shot, "base2new") is None


def test_every_published_name_of_a_method_is_in_the_table() -> None:
    names = {cell[1] for cell in read_published()}
    assert {method.published for method in METHODS.values() if method.published} <= names
