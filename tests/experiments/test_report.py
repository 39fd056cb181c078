"""The tables of an output folder against sums computed by hand."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.__main__ import main
from experiments.report.contents import Report, make_report
from experiments.report.data import COLUMNS, read_results, run_of
from experiments.report.latex import as_latex
from experiments.report.layouts import swept
from experiments.report.machine import as_json, runs_as_csv
from experiments.report.markdown import as_markdown
from experiments.report.tables import Cell, Table, harmonic_mean, measured, over_seeds
from experiments.report.text import as_text
from experiments.runs import Run
from tests.experiments.run_folders import base2new, put, put_both


def rows(table: Table) -> dict[str, dict[str, Cell]]:
    """The cells of a table by the names of rows and columns."""
    return {
        row.method: {column.label: cell for column, cell in zip(table.columns, cells, strict=True) if cell}
        for row, cells in zip(table.rows, table.cells, strict=True)
    }


def named(report: Report, title: str) -> Table:
    (table,) = [table for table in report.tables if table.title == title]
    return table


def report_of(folder: Path, *options: object) -> int:
    return main(["report", str(folder), *map(str, options)])


# ---- numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "new", "expected"), [(82.28, 75.14, 78.55), (69.34, 74.22, 71.70), (80.47, 71.69, 75.83), (0.0, 0.0, 0.0)]
)
def test_harmonic_mean_of_the_published_averages(base: float, new: float, expected: float) -> None:
    assert round(harmonic_mean(base, new), 2) == expected


def test_a_cell_is_mean_and_sample_deviation() -> None:
    """70, 71, 75: mean 72, squared deviations 4 + 1 + 9, over n - 1 = 2."""
    found = over_seeds(measured(value, seed, f"seed{seed}") for seed, value in ((1, 70.0), (2, 71.0), (3, 75.0)))
    assert (found.mean, found.n) == (72.0, 3)
    assert found.deviation == pytest.approx(7**0.5)
    assert found.seeds == {1: 70.0, 2: 71.0, 3: 75.0} and found.folders == ("seed1", "seed2", "seed3")


def test_base2new_takes_the_harmonic_mean_of_averages(tmp_path: Path) -> None:
    put_both(tmp_path, "dtd", 1, 70.0, 60.0)
    put_both(tmp_path, "dtd", 2, 72.0, 64.0)
    put_both(tmp_path, "eurosat", 1, 91.0, 50.0)
    report = make_report(tmp_path)
    assert [table.title for table in report.tables] == [
        *("average of 2 datasets, 16 shots", "dtd, 16 shots", "eurosat, 16 shots")
    ]
    average, dtd, eurosat = (rows(table)["MaPLe/vit_b16"] for table in report.tables)
    assert (dtd["base"].mean, dtd["new"].mean) == (71.0, 62.0)
    assert dtd["H"].mean == pytest.approx(2 * 71 * 62 / 133)
    assert eurosat["H"].mean == pytest.approx(2 * 91 * 50 / 141)
    assert (average["base"].mean, average["new"].mean) == (81.0, 56.0)
    assert average["H"].mean == pytest.approx(2 * 81 * 56 / 137)


def test_the_deviation_of_an_average_is_that_of_the_averages_of_seeds(tmp_path: Path) -> None:
    """Seeds 1, 2, 3: averages of base (70 + 90) / 2 = 80, (72 + 92) / 2 = 82, (71 + 97) / 2 = 84; deviation 2.

    New: 60, 60 and 63; H of seeds 2·80·60/140 = 68.571, 2·82·60/142 = 69.296, 2·84·63/147 = 72.
    """
    for seed, dtd, eurosat, new in ((1, 70.0, 90.0, 60.0), (2, 72.0, 92.0, 60.0), (3, 71.0, 97.0, 63.0)):
        put_both(tmp_path, "dtd", seed, dtd, new)
        put_both(tmp_path, "eurosat", seed, eurosat, new)
    average = rows(make_report(tmp_path).tables[0])["MaPLe/vit_b16"]
    assert average["base"].seeds == {1: 80.0, 2: 82.0, 3: 84.0}
    assert (average["base"].mean, average["base"].deviation) == (82.0, 2.0)
    assert average["new"].deviation == pytest.approx(3**0.5)
    assert average["H"].mean == pytest.approx(2 * 82 * 61 / 143)
    of_seeds = [2 * 80 * 60 / 140, 2 * 82 * 60 / 142, 2 * 84 * 63 / 147]
    middle = sum(of_seeds) / 3
    assert average["H"].deviation == pytest.approx((sum((h - middle) ** 2 for h in of_seeds) / 2) ** 0.5)


def test_the_harmonic_mean_has_the_deviation_of_the_seeds_own(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """(70, 60), (72, 64), (71, 65): harmonic means 64.6154, 67.7647, 67.8676; of the averages (71, 63): 66.7612."""
    for seed, base, new in ((1, 70.0, 60.0), (2, 72.0, 64.0), (3, 71.0, 65.0)):
        put_both(tmp_path, "dtd", seed, base, new)
    file = tmp_path / "tables.json"
    assert report_of(tmp_path, "--json", file) == 0
    text = capsys.readouterr().out
    assert "71.00 ± 1.00 (3)" in text and "66.76 ± 1.85 (3)" in text
    assert "mean ± standard deviation over seeds, the number of seeds in parentheses" in text
    (table,) = json.loads(file.read_text(encoding="utf-8"))["tables"]
    found = table["cells"][2]
    assert (found["metric"], found["mean"]) == ("harmonic_mean", pytest.approx(66.761194))
    assert (found["deviation"], found["n"]) == (pytest.approx(1.848695), 3)
    assert sum(found["seeds"].values()) / 3 == pytest.approx(66.749246)


def test_a_table_of_one_seed_explains_no_number_of_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_both(tmp_path, "dtd", 1, 70.0, 60.0)
    report_of(tmp_path)
    text = capsys.readouterr().out
    assert text.startswith("Accuracy in percent. H: harmonic mean") and "±" not in text
    assert "64.62" in text


def test_best_and_second_of_a_column_as_they_are_printed(tmp_path: Path) -> None:
    """Base: 70.004 and 70.001 are both printed 70.00, so that both are the best, and 69 the second."""
    for trainer, base, new in (
        ("CoOp", 70.004, 50.0),
        ("MaPLe", 70.001, 52.0),
        ("VPT", 69.0, 51.0),
        ("IVLP", 1.0, 2.0),
    ):
        put_both(tmp_path, "dtd", 1, base, new, f"{trainer}/vit_b16")
    (table,) = make_report(tmp_path).tables
    ranks = {name.partition("/")[0]: (of["base"].rank, of["new"].rank) for name, of in rows(table).items()}
    assert ranks == {"CoOp": (1, None), "MaPLe": (1, 1), "VPT": (2, 2), "IVLP": (None, None)}


def test_a_partial_average_is_named_and_takes_no_part_in_the_ranking(tmp_path: Path, capsys) -> None:
    for dataset in ("dtd", "eurosat", "ucf101"):
        put_both(tmp_path, dataset, 1, 60.0, 50.0)
    for dataset in ("dtd", "eurosat"):
        put_both(tmp_path, dataset, 1, 90.0, 80.0, "CoOp/vit_b16")
    put_both(tmp_path, "dtd", 1, 99.0, 99.0, "VPT/vit_b16")
    average = rows(make_report(tmp_path).tables[0])
    assert average.keys() == {"MaPLe/vit_b16", "CoOp/vit_b16"}, "one dataset is no average"
    assert average["CoOp/vit_b16"]["base"].datasets == ("dtd", "eurosat")
    assert (average["CoOp/vit_b16"]["base"].mean, average["CoOp/vit_b16"]["base"].rank) == (90.0, None)
    report_of(tmp_path)
    assert "90.00 [2 of 3]" in capsys.readouterr().out


# ---- which runs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "reproduce"])
def test_reproduced_runs_are_base_to_new_with_a_base_test(tmp_path: Path, below: str) -> None:
    """`reproduce.sh` tests downloaded weights on both halves: no training run has the base half."""
    for stage, accuracy in (("test_base", 82.0), ("test_new", 74.0)):
        put(tmp_path, f"reproduce/base2new/{stage}/dtd/shots_16/MaPLe/vit_b16/seed1", accuracy)
    put_both(tmp_path, "dtd", 1, 70.0, 60.0)
    put(tmp_path, "base2new/test_base/dtd/shots_16/MaPLe/vit_b16/seed1", 71.0)  # the training's own test counts
    report = make_report(tmp_path / below)
    (table,) = report.tables
    found = {method: (cells["base"].mean, cells["new"].mean) for method, cells in rows(table).items()}
    own = {"MaPLe/vit_b16": (70.0, 60.0)}
    assert found == ({"MaPLe/vit_b16": (82.0, 74.0)} if below else own | {"reproduced MaPLe/vit_b16": (82.0, 74.0)})
    assert not report.missing or below


def test_transfer_shows_the_source_outside_the_average(tmp_path: Path) -> None:
    put(tmp_path, "imagenet/MaPLe/vit_b16_16shots/seed1", 70.0)
    put(tmp_path, "evaluation/MaPLe/vit_b16_16shots/dtd/seed1", 40.0)
    put(tmp_path, "evaluation/MaPLe/vit_b16_16shots/eurosat/seed1", 50.0)
    put(tmp_path, "evaluation/MaPLe/vit_b16_16shots/imagenet_a/seed1", 48.0)
    put(tmp_path, "evaluation_emoji/MaPLe/vit_b16_16shots/dtd/seed1", 1.0)
    found = {
        (table.protocol, table.title): {name: cell.mean for name, cell in rows(table)["MaPLe/vit_b16"].items()}
        for table in make_report(tmp_path).tables
    }
    assert list(found.items()) == [
        (("cross_dataset", "trained on emoji, 16 shots"), {"dtd": 1.0}),
        (
            ("cross_dataset", "trained on imagenet, 16 shots"),
            {"imagenet (source)": 70.0, "dtd": 40.0, "eurosat": 50.0, "average of 2": 45.0},
        ),
        (
            ("domain_generalization", "trained on imagenet, 16 shots"),
            {"imagenet (source)": 70.0, "imagenet_a": 48.0},
        ),
    ], "and the source is no few-shot curve"


def test_zero_shot_results_stand_beside_transfers(tmp_path: Path) -> None:
    """As in the published tables; 66.73 and 60.83 are CLIP's on ImageNet and ImageNetV2."""
    put(tmp_path, "evaluation/MaPLe/vit_b16_16shots/imagenetv2/seed1", 64.0)
    for dataset, accuracy in (("imagenet", 66.0), ("imagenetv2", 61.0), ("dtd", 44.0)):
        put(tmp_path, f"ZeroshotCLIP/vit_b16/{dataset}", accuracy)
    shifted, zero = map(rows, make_report(tmp_path).tables)
    assert list(shifted) == ["ZeroshotCLIP/vit_b16", "MaPLe/vit_b16"]
    clip = shifted["ZeroshotCLIP/vit_b16"]
    assert [(name, cell.mean, cell.published) for name, cell in clip.items()] == [
        ("imagenet (source)", 66.0, 66.73),
        ("imagenetv2", 61.0, 60.83),
    ]
    assert [cell.published for cell in zero["ZeroshotCLIP/vit_b16"].values()] == [66.73, None, 60.83, None]


def test_few_shot_and_zero_shot_trees_and_coops_subfolder(tmp_path: Path) -> None:
    for seed, accuracy in ((1, 60.0), (2, 62.0)):
        put(tmp_path, f"dtd/CoOp/vit_b16_4shots/nctx16_cscFalse_ctpend/seed{seed}", accuracy)
    put(tmp_path, "dtd/CoOp/vit_b16_4shots/nctx4_cscFalse_ctpend/seed1", 50.0)
    put(tmp_path, "dtd/CoOp/vit_b16_16shots/nctx16_cscFalse_ctpend/seed1", 70.0)
    put(tmp_path, "ZeroshotCLIP/vit_b16/dtd", 44.0)
    few, zero = map(rows, make_report(tmp_path).tables)
    prefix = "CoOp/vit_b16/nctx"
    assert {method: {name: cell.mean for name, cell in cells.items()} for method, cells in few.items()} == {
        f"{prefix}4_cscFalse_ctpend": {"4 shots": 50.0},
        f"{prefix}16_cscFalse_ctpend": {"4 shots": 61.0, "16 shots": 70.0},
    }
    assert {method: cells["dtd"].mean for method, cells in zero.items()} == {"ZeroshotCLIP/vit_b16": 44.0}


def test_few_shot_averages_have_a_column_for_each_number_of_shots(tmp_path: Path) -> None:
    for dataset, one, four in (("dtd", 40.0, 60.0), ("eurosat", 50.0, 80.0)):
        put(tmp_path, f"{dataset}/MaPLe/vit_b16_1shots/seed1", one)
        put(tmp_path, f"{dataset}/MaPLe/vit_b16_4shots/seed1", four)
    average, dtd, _ = make_report(tmp_path).tables
    assert {name: cell.mean for name, cell in rows(average)["MaPLe/vit_b16"].items()} == {
        "1 shot": 45.0,
        "4 shots": 70.0,
    }
    assert (average.title, average.summary) == ("average of 2 datasets", True)
    assert (dtd.title, dtd.summary) == ("dtd", False)


def test_coops_published_configs_are_one_few_shot_row(tmp_path: Path) -> None:
    """CoOp's paper trains longer with more shots; a config that is used elsewhere, too, is a row of its own."""
    for config, shots, accuracy in (("vit_b16_ep50", 1, 50.0), ("vit_b16_ep100", 2, 55.0), ("vit_b16", 16, 70.0)):
        put(tmp_path, f"dtd/CoOp/{config}_{shots}shots/seed1", accuracy)
    put(tmp_path, "dtd/CoOp/rn50_16shots/seed1", 60.0)
    (table,) = make_report(tmp_path).tables
    assert {method: [cell.mean for cell in cells.values()] for method, cells in rows(table).items()} == {
        "CoOp/published configs": [50.0, 55.0, 70.0],
        "CoOp/rn50": [60.0],
    }
    assert table.labels == ("CoOp/published configs", "CoOp/rn50")


def test_an_ablation_has_the_swept_values_as_rows_in_their_order(tmp_path: Path) -> None:
    for depth, base in (("12", 80.0), ("3", 70.0)):
        put_both(tmp_path, "dtd", 1, base, 60.0, f"MaPLe/vit_b16/PROMPT_DEPTH_{depth}")
    put_both(tmp_path, "dtd", 1, 75.0, 60.0, "MaPLe/vit_b16")
    methods, ablation = make_report(tmp_path).tables
    assert methods.labels == ("MaPLe", "MaPLe/PROMPT_DEPTH_3", "MaPLe/PROMPT_DEPTH_12")
    assert (ablation.heading, ablation.ablation, ablation.labels) == ("PROMPT_DEPTH", ("PROMPT_DEPTH",), ("3", "12"))
    assert [cells[0].mean for cells in ablation.cells if cells[0]] == [70.0, 80.0]


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("PROMPT_DEPTH_3", {"PROMPT_DEPTH": "3"}),
        ("N_CTX_4_PROMPT_DEPTH_12", {"N_CTX": "4", "PROMPT_DEPTH": "12"}),
        ("OPTIM.LR_1e-05_PREC_fp32_CSC_True", {"OPTIM.LR": "1e-05", "PREC": "fp32", "CSC": "True"}),
        ("nctx16_cscFalse_ctpend", {}),
        ("PROMPT_DEPTH", {}),
        ("", {}),
    ],
)
def test_the_settings_in_a_folders_name(variant: str, expected: dict[str, str]) -> None:
    assert swept(variant) == expected


def test_labels_have_of_a_config_what_tells_the_rows_apart(tmp_path: Path) -> None:
    for config in ("MaPLe/vit_b16", "IVLP/vit_b16_c2_ep5_batch4_2+2ctx", "IVLP/vit_b16_c2_ep5_batch4_4ctx", "Own/a"):
        put_both(tmp_path, "dtd", 1, 75.0, 60.0, config)
    (table,) = make_report(tmp_path).tables
    assert table.labels == ("IVLP/…2+2ctx", "IVLP/…4ctx", "MaPLe", "Own")


# ---- published numbers -----------------------------------------------------------------------------------------

MAPLE = "MaPLe/vit_b16_c2_ep5_batch4_2ctx"


def test_a_number_stands_beside_the_published_one(tmp_path: Path) -> None:
    """MaPLe on DTD: 80.36 and 59.18 are published.

    Seeds 80, 81 and 82 have mean 81 and deviation 1: a difference of 0.64 is within 2. 50, 51 and 52 are 8.18 below.
    """
    for seed in (1, 2, 3):
        put_both(tmp_path, "dtd", seed, 79.0 + seed, 49.0 + seed, MAPLE)
        put_both(tmp_path, "dtd", seed, 79.0 + seed, 49.0 + seed, f"{MAPLE}/PROMPT_DEPTH_3")
    put_both(tmp_path, "eurosat", 1, 94.07, 73.23, MAPLE)
    average, dtd, eurosat = map(rows, make_report(tmp_path).tables)
    base, new = dtd[MAPLE]["base"], dtd[MAPLE]["new"]
    assert (base.published, base.difference, base.outside) == (80.36, pytest.approx(0.64), False)
    assert (new.published, new.difference, new.outside) == (59.18, pytest.approx(-8.18), True)
    assert "CVPR 2023" in base.source
    assert (eurosat[MAPLE]["base"].published, eurosat[MAPLE]["base"].outside) == (94.07, None), "a single seed"
    assert dtd[f"{MAPLE}/PROMPT_DEPTH_3"]["base"].published is None, "other settings"
    # Of two datasets, not of the published eleven
    assert average[MAPLE]["base"].published == pytest.approx((80.36 + 94.07) / 2)
    assert average[MAPLE]["H"].published == pytest.approx(harmonic_mean((80.36 + 94.07) / 2, (59.18 + 73.23) / 2))
    assert average[MAPLE]["base"].source.endswith("average of these 2 datasets")


def test_what_rounding_explains_is_not_outside(tmp_path: Path) -> None:
    """80.364 in every seed has no deviation, and is published as 80.36; 59.19 is not published as 59.18."""
    for seed in (1, 2):
        put_both(tmp_path, "dtd", seed, 80.364, 59.19, MAPLE)
    (table,) = make_report(tmp_path).tables
    base, new = rows(table)[MAPLE]["base"], rows(table)[MAPLE]["new"]
    assert (base.published, base.deviation, base.outside) == (80.36, 0.0, False)
    assert (new.published, new.outside) == (59.18, True)


def test_the_published_average_stands_beside_that_of_all_datasets(tmp_path: Path) -> None:
    datasets = "imagenet caltech101 oxford_pets stanford_cars oxford_flowers food101 fgvc_aircraft sun397 dtd eurosat"
    for dataset in (*datasets.split(), "ucf101"):
        put_both(tmp_path, dataset, 1, 80.0, 70.0, MAPLE)
    for dataset in ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"):
        put(tmp_path, f"evaluation/{MAPLE}_cross_datasets_16shots/{dataset}/seed1", 50.0)
    put(tmp_path, f"imagenet/{MAPLE}_cross_datasets_16shots/seed1", 70.0)
    tables = make_report(tmp_path).tables
    average = rows(tables[0])[MAPLE]
    assert [average[name].published for name in ("base", "new", "H")] == [82.28, 75.14, 78.55]
    (shifted,) = [rows(table) for table in tables if table.protocol == "domain_generalization"]
    found = {name: cell.published for name, cell in shifted[f"{MAPLE}_cross_datasets"].items()}
    assert found["imagenet (source)"] == 70.72 and found["average of 4"] == 60.27


@pytest.mark.parametrize(("backbone", "expected"), [("ViT-B/16", 80.36), ("ViT-B/32", None), ("", 80.36)])
def test_another_backbone_has_other_published_numbers(tmp_path: Path, backbone: str, expected: float | None) -> None:
    for half in ("base", "new"):
        put(tmp_path, base2new("dtd", half, 1, MAPLE), 80.0, backbone=backbone)
    (table,) = make_report(tmp_path).tables
    assert rows(table)[MAPLE]["base"].published == expected


# ---- results.csv -----------------------------------------------------------------------------------------------


def test_results_csv_has_a_row_per_finished_run_in_full_precision(tmp_path: Path, capsys) -> None:
    more = {
        **{
            "macro_f1": 69.5,
            "correct": 7,
            "total": 10,
            "epoch": 5,
            "backbone": "ViT-B/16",
            "device": "cpu (2 threads)",
        },
        **{"seconds": {"train": 12.5, "test": 0.25}, "versions": {"torch": "2.6.0"}, "peak_memory_bytes": 2**31},
        **{"learned_parameters": 3555072, "notes": ["1 class has no image", "a, second"]},
    }
    put(tmp_path, base2new("dtd", "base", 3), 70.12345678901234, **more)
    put(tmp_path, base2new("dtd", "new", 3), None)
    put(tmp_path, "ZeroshotCLIP/vit_b16/dtd", 44.0, seconds="unknown", total=True, epoch=0, macro_f1="?", notes="none")
    put(tmp_path, "evaluation_emoji/MaPLe/vit_b16_16shots/dtd/seed1", 1.0)
    put(tmp_path / "elsewhere", "not/a/run", 1.0)
    assert report_of(tmp_path) == 0
    with open(tmp_path / "results.csv", encoding="utf-8", newline="") as file:
        zero, trained, transfer = csv.DictReader(file)
    assert list(zero) == list(COLUMNS)
    assert (zero["stage"], zero["shots"], zero["seed"], zero["macro_f1"], zero["total"]) == (
        "zero_shot",
        "0",
        "",
        "",
        "",
    )
    assert float(trained["accuracy"]) == 70.12345678901234
    names = (
        "protocol",
        "trainer",
        "config",
        "method",
        "dataset",
        "seed",
        "train_seconds",
        "peak_memory_bytes",
        "torch",
    )
    assert [trained[name] for name in names] == [
        *("base2new", "MaPLe", "vit_b16", "MaPLe/vit_b16", "dtd", "3", "12.5", str(2**31), "2.6.0")
    ]
    assert trained["notes"] == "1 class has no image | a, second"
    assert trained["folder"] == base2new("dtd", "base", 3)
    assert (transfer["source"], transfer["protocol"]) == ("emoji", "cross_dataset")


def test_rows_are_runs(tmp_path: Path) -> None:
    folders = [base2new("dtd", "new", 0), "ZeroshotCLIP/vit_b16/dtd", "reproduce/evaluation/CoOp/a_1shots/x/dtd/seed2"]
    for folder in folders:
        put(tmp_path, folder, 50.0)
    frame = read_results(tmp_path)
    assert {run_of(row).folder for row in frame.itertuples()} == set(folders)
    assert all(run_of(row) == Run.parse(row.folder) for row in frame.itertuples())


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
FIELDS = ("macro_f1", "total", "epoch", "seconds", "versions", "notes", "backbone", "peak_memory_bytes", "settings")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(FIELDS), ANY), st.sampled_from(["dtd", "\udcff d", "10**3", "a|b,c"]))
def test_whatever_results_hold_there_is_a_report(tmp_path: Path, results: dict, dataset: str) -> None:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    put(folder, base2new(dataset, "base", 1), 70.0)
    put(folder, base2new(dataset, "new", 1), 60.0, **results)
    put(folder, f"{dataset}/MaPLe/vit_b16_{10**30}shots/seed{10**30}", 60.0)
    report = make_report(folder)
    assert len(report.runs) + sum(item.reason == "broken" for item in report.missing) == 2
    assert all(form(report) for form in (as_text, as_markdown, as_latex, as_json, runs_as_csv))


def test_a_folder_of_links_and_files_beside_the_runs(tmp_path: Path) -> None:
    """An output folder may itself hold a results.json, be a link, and have links that lead back."""
    put(tmp_path / "disk", "ZeroshotCLIP/vit_b16/dtd", 44.0)
    (tmp_path / "disk/results.json").write_text("{}")
    (tmp_path / "disk/ZeroshotCLIP/vit_b16/dtd/model/deep").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/ZeroshotCLIP").symlink_to(tmp_path / "disk/ZeroshotCLIP")
    (tmp_path / "disk/ZeroshotCLIP/back").symlink_to(tmp_path / "disk")
    assert list(read_results(tmp_path / "out")["folder"]) == ["ZeroshotCLIP/vit_b16/dtd"]
    assert list(read_results(tmp_path / "disk")["folder"]) == ["ZeroshotCLIP/vit_b16/dtd"]


def test_tables_as_csv_have_every_printed_number(tmp_path: Path, capsys) -> None:
    for seed in (1, 2):
        put_both(tmp_path, "dtd", seed, 80 + seed / 3, 60.0, MAPLE)
    assert report_of(tmp_path, "--csv", tmp_path / "tables.csv") == 0
    content = (tmp_path / "tables.csv").read_text(encoding="utf-8")
    base, new, _ = csv.DictReader(io.StringIO(content))
    assert float(base["mean"]) == pytest.approx(80.5) and base["seeds"] == f"1={80 + 1 / 3!r} 2={80 + 2 / 3!r}"
    assert float(base["deviation"]) == pytest.approx(1 / (3 * 2**0.5))
    assert (base["n"], base["published"], float(base["difference"])) == ("2", "80.36", pytest.approx(0.14))
    assert (new["column"], new["deviation"], new["outside"]) == ("new", "0.0", "True")
