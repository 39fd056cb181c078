"""What the tables lack, and differences between methods."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from scipy import stats

from experiments.__main__ import main
from experiments.methods import METHODS, method_named
from experiments.protocols import Request, base2new_test, base2new_train
from experiments.report.comparisons import compare
from experiments.report.contents import make_report
from experiments.report.missing import find_missing
from tests.experiments.run_folders import base2new, put, put_both


def folders(output: Path, reason: str = "missing") -> list[str]:
    return [item.folder for item in make_report(output).missing if item.reason == reason]


def configure(folder: Path, **nodes: object) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(nodes), encoding="utf-8")


# ---- missing runs ----------------------------------------------------------------------------------------------


def test_incomplete_runs_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_both(tmp_path, "dtd", 1, 70.0, 60.0)
    put(tmp_path, base2new("dtd", "base", 2), 99.0)
    put(tmp_path, base2new("dtd", "new", 2), None)
    put(tmp_path, base2new("dtd", "base", 3), 99.0)
    assert main(["report", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "99" not in out
    assert f"incomplete: {tmp_path / base2new('dtd', 'new', 2)}: no complete results.json" in out
    assert "MaPLe/vit_b16, dtd, 16 shots, seed 3: no result on the new classes" in out
    row = next(line for line in out.splitlines() if line.startswith("MaPLe "))
    assert row.split() == ["MaPLe", "70.00", "60.00", f"{2 * 70 * 60 / 130:.2f}"]


def test_the_command_of_a_missing_test_is_that_of_its_plan(tmp_path: Path) -> None:
    """With the settings of the training, which its folder does not name: its number of epochs and of context tokens."""
    words = ("OPTIM.MAX_EPOCH", "3", "TRAINER.MAPLE.N_CTX", "3")
    request = Request(
        method_named("maple"), "dtd", 2, variant="N_CTX_3", options=words, data="/data", output=str(tmp_path)
    )
    train = base2new_train(request)
    put(tmp_path, train.run.folder, 70.0)
    settings = {"MAX_EPOCH": 3, "LR": 0.0035}
    configure(train.path, OPTIM=settings, TRAINER={"MAPLE": {"N_CTX": 3, "PREC": "fp16"}}, DATASET={"ROOT": "/data"})
    (item,) = make_report(tmp_path).missing
    assert item.folder == base2new_test(request).run.folder
    command = shlex.split(item.command)
    expected = base2new_test(request).command("python")
    assert command[: command.index("--eval-only")] == expected[: expected.index("--eval-only")]
    assert command[command.index("--load-epoch") + 1] == "3" and "/data" in command
    assert command[command.index("TRAINER.MAPLE.N_CTX") + 1] == "3"


def test_a_seed_that_other_rows_have_is_missing_with_the_settings_of_its_row(tmp_path: Path) -> None:
    config = "vit_b16_c2_ep5_batch4_2ctx"
    for seed in (1, 2):
        put_both(tmp_path, "dtd", seed, 70.0, 60.0, "CoOp/vit_b16_ep100_ctxv1")
    put_both(tmp_path, "dtd", 1, 70.0, 60.0, f"MaPLe/{config}/LR_0.1")
    put_both(tmp_path, "dtd", 1, 50.0, 40.0, "ZeroshotCLIP/vit_b16")
    optim = {"LR": 0.1, "MAX_EPOCH": 5}
    configure(tmp_path / base2new("dtd", "base", 1, f"MaPLe/{config}/LR_0.1"), OPTIM=optim, SEED=1, OUTPUT_DIR="x")
    base, new = make_report(tmp_path).missing
    assert (base.folder, new.folder) == tuple(
        base2new("dtd", half, 2, f"MaPLe/{config}/LR_0.1") for half in ("base", "new")
    ), "and without training one seed is all of them"
    assert base.what == f"MaPLe/{config}/LR_0.1, dtd, 16 shots, seed 2: no result on the base classes"
    assert base.command.endswith("--seed 2 DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base OPTIM.LR 0.1")
    assert "--model-dir" in new.command


def test_a_missing_dataset_has_its_own_published_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """6 epochs are published for DTD and 9 for EuroSAT, and all runs of the row have another rate than the config."""
    maple = replace(
        method_named("maple"), settings=lambda _, name, shots: {"OPTIM.MAX_EPOCH": 6 if name == "dtd" else 9}
    )
    monkeypatch.setitem(METHODS, "maple", maple)
    config = "MaPLe/vit_b16_c2_ep5_batch4_2ctx"
    put_both(tmp_path, "dtd", 1, 70.0, 60.0, config)
    configure(tmp_path / base2new("dtd", "base", 1, config), OPTIM={"MAX_EPOCH": 6, "LR": 0.5})
    for dataset in ("dtd", "eurosat"):
        put_both(tmp_path, dataset, 1, 50.0, 40.0, "CoOp/vit_b16_ep100_ctxv1")
    base, _ = make_report(tmp_path).missing
    assert base.command.endswith(" OPTIM.MAX_EPOCH 9 DATASET.NUM_SHOTS 16 DATASET.SUBSAMPLE_CLASSES base OPTIM.LR 0.5")


def test_a_run_that_no_protocol_makes_has_no_command(tmp_path: Path) -> None:
    put(tmp_path, "reproduce/base2new/test_all/dtd/shots_16/MaPLe/vit_b16_c2_ep5_batch4_2ctx/seed1", None)
    (item,) = make_report(tmp_path).missing
    assert (item.reason, item.command) == ("unfinished", "")


def test_a_dataset_that_other_rows_have_is_missing(tmp_path: Path) -> None:
    for dataset in ("dtd", "eurosat"):
        put(tmp_path, f"evaluation/CoOp/vit_b16_16shots/{dataset}/seed1", 50.0)
    put(tmp_path, "evaluation/VPT/vit_b16_16shots/dtd/seed1", 50.0)
    put(tmp_path, "imagenet/CoOp/vit_b16_16shots/seed1", 70.0)
    assert folders(tmp_path) == ["imagenet/VPT/vit_b16_16shots/seed1", "evaluation/VPT/vit_b16_16shots/eurosat/seed1"]


def test_few_shot_points_with_their_published_configs(tmp_path: Path) -> None:
    for config, shots in (("vit_b16_ep50", 1), ("vit_b16", 16)):
        put(tmp_path, f"dtd/CoOp/{config}_{shots}shots/seed1", 50.0)
        put(tmp_path, f"dtd/MaPLe/vit_b16_{shots}shots/seed1", 50.0)
        put(tmp_path, f"eurosat/MaPLe/vit_b16_{shots}shots/seed1", 50.0)
    assert folders(tmp_path) == ["eurosat/CoOp/vit_b16_ep50_1shots/seed1", "eurosat/CoOp/vit_b16_16shots/seed1"]


def test_broken_and_untested_runs(tmp_path: Path) -> None:
    broken = put(tmp_path, "ZeroshotCLIP/vit_b16/dtd", None)
    (broken / "results.json").write_text('{"accuracy": 4')
    put(tmp_path, base2new("dtd", "base", 1, "MaPLe/vit_b16_c2_ep5_batch4_2ctx"), None)
    path = put(tmp_path, base2new("eurosat", "base", 1, "MaPLe/vit_b16_c2_ep5_batch4_2ctx"), None)
    (path / "results.json").write_text(json.dumps({"accuracy": None, "complete": True}))
    report = make_report(tmp_path)
    assert [item.reason for item in report.missing] == ["broken", "unfinished", "untested"]
    assert "no complete results.json: what is there is not the result of a finished run" in report.missing[0].what
    assert "test_base" in report.missing[2].command, "the weights are there, so that a test is enough"
    assert not report.tables and len(report.frame) == 1 and report.frame["accuracy"].isna().all()


def test_a_run_of_an_unknown_dataset_or_trainer(tmp_path: Path) -> None:
    """Without a YAML file there is no command; a trainer that no row of methods.py has gets one."""
    put(tmp_path, base2new("gone", "base", 1), 50.0)
    put(tmp_path / "other", base2new("dtd", "base", 1, "ZeroshotCLIP2/vit_b16"), 50.0)
    (gone,) = make_report(tmp_path).missing
    (without_row,) = make_report(tmp_path / "other").missing
    assert (gone.folder, gone.command) == (base2new("gone", "new", 1), "")
    assert "--trainer ZeroshotCLIP2" in without_row.command and "--model-dir" not in without_row.command


def test_downloaded_weights_lack_the_other_half_of_their_own_seeds(tmp_path: Path) -> None:
    put_both(tmp_path, "dtd", 2, 50.0, 40.0, "MaPLe/vit_b16_c2_ep5_batch4_2ctx")
    put(tmp_path, "reproduce/base2new/test_base/dtd/shots_16/MaPLe/vit_b16_c2_ep5_batch4_2ctx/seed1", 50.0)
    (item,) = make_report(tmp_path).missing
    assert item.folder == "reproduce/base2new/test_new/dtd/shots_16/MaPLe/vit_b16_c2_ep5_batch4_2ctx/seed1"
    assert "--model-dir WEIGHTS " in item.command


def test_nothing_is_missing_where_nothing_is() -> None:
    assert find_missing([], "output") == []


# ---- comparisons -----------------------------------------------------------------------------------------------


def test_pairs_have_the_same_dataset_and_seed(tmp_path: Path) -> None:
    """New accuracies differ by 1, 2, 3, 4 and 6 with mean 3.2 and squared deviations 4.84 + 1.44 + 0.04 + 0.64 + 7.84.

    t = 3.2 / sqrt(14.8 / 4 / 5) = 3.720 with 4 degrees of freedom: p = 0.0205. The sixth seed has no partner.
    """
    for number, difference in enumerate((1.0, 2.0, 3.0, 4.0, 6.0)):
        dataset, seed = ("dtd", "eurosat")[number % 2], number // 2 + 1
        put_both(tmp_path, dataset, seed, 70.0, 50.0 + number + difference)
        put_both(tmp_path, dataset, seed, 70.0, 50.0 + number, "CoOp/vit_b16")
    put_both(tmp_path, "dtd", 9, 70.0, 99.0)
    base, new, _ = make_report(tmp_path).comparisons
    assert (base.n, base.difference, base.t_test, base.wilcoxon) == (5, 0.0, None, None), "no difference at all"
    assert (new.first, new.second, new.metric) == ("MaPLe/vit_b16", "CoOp/vit_b16", "new")
    assert (new.n, new.datasets, new.seeds) == (5, ("dtd", "eurosat"), (1, 2, 3))
    assert new.difference == pytest.approx(3.2) and new.deviation == pytest.approx((14.8 / 4) ** 0.5)
    assert new.t_test == pytest.approx(2 * stats.t.sf(3.2 / (14.8 / 4 / 5) ** 0.5, 4))
    assert new.t_test == pytest.approx(0.0205, abs=5e-5)
    assert new.wilcoxon is None, "five pairs cannot reach 0.05"


def test_wilcoxon_of_six_differences_of_one_sign(tmp_path: Path) -> None:
    """All six have one sign: p = 2 / 2**6."""
    for seed in range(1, 7):
        put(tmp_path, f"dtd/MaPLe/vit_b16_16shots/seed{seed}", 60.0 + seed / 7)
        put(tmp_path, f"dtd/CoOp/vit_b16_16shots/seed{seed}", 59.0)
    (comparison,) = make_report(tmp_path).comparisons
    assert comparison.wilcoxon == pytest.approx(2 / 2**6)


def test_fewer_than_five_pairs_are_not_compared_unless_asked_for(tmp_path: Path, capsys) -> None:
    for seed in (1, 2, 3, 4):
        put_both(tmp_path, "dtd", seed, 70.0 + seed, 50.0)
        put_both(tmp_path, "dtd", seed, 60.0, 50.0, "CoOp/vit_b16")
    report = make_report(tmp_path)
    assert report.comparisons == []
    base, *_ = compare(report.tables, ["MaPLe", "CoOp/vit_b16"])
    assert (base.n, base.difference, base.t_test) == (4, 12.5, None)
    assert main(["report", str(tmp_path), "--compare", "MaPLe", "CoOp"]) == 0
    out = capsys.readouterr().out
    assert "MaPLe - CoOp  +12.50 ± 1.29" in out and "4 (1, 4)" in out
    assert main(["report", str(tmp_path), "--compare", "MaPLe", "CoOpp"]) == 2
    assert "no row 'CoOpp' in the tables (did you mean CoOp?). There are: CoOp, MaPLe" in capsys.readouterr().err


def test_the_best_row_is_compared_with_the_others(tmp_path: Path) -> None:
    for seed in range(1, 7):
        for trainer, accuracy in (("CoOp", 60.0), ("MaPLe", 70.0), ("VPT", 65.0)):
            put(tmp_path, f"dtd/{trainer}/vit_b16_16shots/seed{seed}", accuracy + seed / 7)
        put(tmp_path, f"dtd/MaPLe/vit_b16_16shots/N_CTX_4/seed{seed}", 90.0)
    pairs = [comparison.labels for comparison in make_report(tmp_path).comparisons]
    assert pairs == [("MaPLe", "VPT"), ("MaPLe", "CoOp")], "variants are left out"
