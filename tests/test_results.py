"""The tables of an output folder against sums computed by hand."""

import json
from pathlib import Path

import pytest

from experiments.results import harmonic_mean, main, read_runs, spread, tables


def put(root: Path, folder: str, accuracy: float | None) -> None:
    """A run folder as the protocols write it; without an accuracy, an interrupted one."""
    path = root / folder
    path.mkdir(parents=True)
    (path / "config.yaml").touch()
    if accuracy is not None:
        (path / "results.json").write_text(json.dumps({"accuracy": accuracy, "complete": True}), encoding="utf-8")


def base2new(dataset: str, half: str, seed: int, config: str = "MaPLe/vit_b16") -> str:
    stage = {"base": "train_base", "new": "test_new"}[half]
    return f"base2new/{stage}/{dataset}/shots_16/{config}/seed{seed}"


@pytest.mark.parametrize(
    ("base", "new", "expected"), [(82.28, 75.14, 78.55), (69.34, 74.22, 71.70), (80.47, 71.69, 75.83), (0.0, 0.0, 0.0)]
)
def test_harmonic_mean_of_the_published_averages(base: float, new: float, expected: float) -> None:
    assert round(harmonic_mean(base, new), 2) == expected


def test_spread_is_mean_and_sample_deviation() -> None:
    """70, 71, 75: mean 72, squared deviations 4 + 1 + 9, over n - 1 = 2."""
    found = spread([70.0, 71.0, 75.0])
    assert (found.mean, found.n) == (72.0, 3)
    assert found.std == pytest.approx(7**0.5)


def test_base2new_takes_the_harmonic_mean_of_averages(tmp_path: Path) -> None:
    for seed, base, new in ((1, 70.0, 60.0), (2, 72.0, 64.0)):
        put(tmp_path, base2new("dtd", "base", seed), base)
        put(tmp_path, base2new("dtd", "new", seed), new)
    put(tmp_path, base2new("eurosat", "base", 1), 91.0)
    put(tmp_path, base2new("eurosat", "new", 1), 50.0)
    rows, missing = tables(read_runs(tmp_path))
    dtd, eurosat, average = rows["base2new"]
    assert (dtd["base"].mean, dtd["new"].mean) == (71.0, 62.0)
    assert dtd["harmonic_mean"] == pytest.approx(2 * 71 * 62 / 133)
    assert eurosat["harmonic_mean"] == pytest.approx(2 * 91 * 50 / 141)
    assert (average["base"].mean, average["new"].mean) == (81.0, 56.0)
    assert average["harmonic_mean"] == pytest.approx(2 * 81 * 56 / 137)
    assert not missing


def test_the_harmonic_mean_has_the_deviation_of_the_seeds_own(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """(70, 60), (72, 64), (71, 65): harmonic means 64.6154, 67.7647, 67.8676; of the averages (71, 63): 66.7612."""
    for seed, base, new in ((1, 70.0, 60.0), (2, 72.0, 64.0), (3, 71.0, 65.0)):
        put(tmp_path, base2new("dtd", "base", seed), base)
        put(tmp_path, base2new("dtd", "new", seed), new)
    file = tmp_path / "tables.json"
    assert main([str(tmp_path), "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert "71.00 ± 1.00 (3)" in text and "66.76 ± 1.85 (3)" in text
    assert "mean ± standard deviation over seeds, the number of seeds in parentheses" in text
    (row,) = json.loads(file.read_text(encoding="utf-8"))["tables"]["base2new"]
    assert row["harmonic_mean"] == pytest.approx(66.761194)
    found = row["harmonic_mean_of_seeds"]
    assert (found["mean"], found["std"], found["n"]) == (pytest.approx(66.749246), pytest.approx(1.848695), 3)


def test_a_table_of_one_seed_explains_no_number_of_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, base2new("dtd", "base", 1), 70.0)
    put(tmp_path, base2new("dtd", "new", 1), 60.0)
    main([str(tmp_path)])
    text = capsys.readouterr().out
    assert "base2new (accuracy in percent)\n" in text and "±" not in text
    assert "64.62" in text


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "ZeroshotCLIP/vit_b16/dtd", 44.0)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file/tables.json", Path("/proc/nothing/tables.json"), tmp_path):
        assert main([str(tmp_path), "--json", str(path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: cannot write {path}: ")


@pytest.mark.parametrize("below", ["", "reproduce"])
def test_reproduced_runs_are_base_to_new_with_a_base_test(tmp_path: Path, below: str) -> None:
    """`reproduce.sh` tests downloaded weights on both halves: no training run has the base half."""
    for stage, accuracy in (("test_base", 82.0), ("test_new", 74.0)):
        put(tmp_path, f"reproduce/base2new/{stage}/dtd/shots_16/MaPLe/vit_b16/seed1", accuracy)
    put(tmp_path, base2new("dtd", "base", 1), 70.0)
    put(tmp_path, base2new("dtd", "new", 1), 60.0)
    put(tmp_path, "base2new/test_base/dtd/shots_16/MaPLe/vit_b16/seed1", 71.0)  # the training's own test counts
    rows, missing = tables(read_runs(tmp_path / below))
    found = {row["method"]: (row["base"].mean, row["new"].mean) for row in rows.pop("base2new")}
    own = {"MaPLe/vit_b16": (70.0, 60.0)}
    assert found == ({"MaPLe/vit_b16": (82.0, 74.0)} if below else own | {"reproduced MaPLe/vit_b16": (82.0, 74.0)})
    assert not rows and not missing


def test_incomplete_runs_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, base2new("dtd", "base", 1), 70.0)
    put(tmp_path, base2new("dtd", "new", 1), 60.0)
    put(tmp_path, base2new("dtd", "base", 2), 99.0)
    put(tmp_path, base2new("dtd", "new", 2), None)
    put(tmp_path, base2new("dtd", "base", 3), 99.0)
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "99" not in out
    assert f"incomplete: {tmp_path / base2new('dtd', 'new', 2)}: no complete results.json" in out
    assert "MaPLe/vit_b16, dtd, 16 shots, seed 3: no result on the new classes" in out
    assert out.split("dtd")[1].split()[:3] == ["70.00", "60.00", f"{2 * 70 * 60 / 130:.2f}"]


def test_transfer_shows_the_source_outside_the_average(tmp_path: Path) -> None:
    put(tmp_path, "imagenet/MaPLe/vit_b16_16shots/seed1", 70.0)
    put(tmp_path, "evaluation/MaPLe/vit_b16_16shots/dtd/seed1", 40.0)
    put(tmp_path, "evaluation/MaPLe/vit_b16_16shots/eurosat/seed1", 50.0)
    put(tmp_path, "evaluation/MaPLe/vit_b16_16shots/imagenet_a/seed1", 48.0)
    put(tmp_path, "evaluation_emoji/MaPLe/vit_b16_16shots/dtd/seed1", 1.0)
    rows, _ = tables(read_runs(tmp_path))
    found = [(row["dataset"], row["accuracy"].mean) for row in rows["cross_dataset"]]
    emoji, imagenet = found[:1], found[1:]
    assert emoji == [("dtd", 1.0)]
    assert imagenet == [("imagenet (source)", 70.0), ("dtd", 40.0), ("eurosat", 50.0), ("Average of 2", 45.0)]
    shifted = [(row["dataset"], row["accuracy"].mean) for row in rows["domain_generalization"]]
    assert shifted == [("imagenet (source)", 70.0), ("imagenet_a", 48.0)]


def test_few_shot_and_zero_shot_trees_and_coops_subfolder(tmp_path: Path) -> None:
    for seed, accuracy in ((1, 60.0), (2, 62.0)):
        put(tmp_path, f"dtd/CoOp/vit_b16_4shots/nctx16_cscFalse_ctpend/seed{seed}", accuracy)
    put(tmp_path, "dtd/CoOp/vit_b16_4shots/nctx4_cscFalse_ctpend/seed1", 50.0)
    put(tmp_path, "dtd/CoOp/vit_b16_16shots/nctx16_cscFalse_ctpend/seed1", 70.0)
    put(tmp_path, "ZeroshotCLIP/vit_b16/dtd", 44.0)
    rows, missing = tables(read_runs(tmp_path))
    few = {(row["method"], row["shots"]): row["accuracy"].mean for row in rows["few_shot"]}
    prefix = "CoOp/vit_b16/nctx"
    assert few == {
        (f"{prefix}16_cscFalse_ctpend", 4): 61.0,
        (f"{prefix}16_cscFalse_ctpend", 16): 70.0,
        (f"{prefix}4_cscFalse_ctpend", 4): 50.0,
    }
    assert [(row["method"], row["accuracy"].mean) for row in rows["zero_shot"]] == [("ZeroshotCLIP/vit_b16", 44.0)]
    assert not missing


def test_json_keeps_full_precision(tmp_path: Path) -> None:
    put(tmp_path / "out", base2new("dtd", "base", 1), 70.123456789)
    put(tmp_path / "out", base2new("dtd", "new", 1), 60.0)
    put(tmp_path / "out", base2new("dtd", "new", 2), None)
    file = tmp_path / "table.json"
    assert main([str(tmp_path / "out"), "--protocol", "base2new", "--dataset", "dtd", "--json", str(file)]) == 0
    content = json.loads(file.read_text(encoding="utf-8"))
    (row,) = content["tables"]["base2new"]
    assert row["base"] == {"mean": 70.123456789, "std": 0.0, "n": 1}
    assert row["seeds"] == [1]
    assert len(content["incomplete"]) == 1


def test_missing_folder_is_a_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == 2
    assert "name the OUTPUT folder" in capsys.readouterr().err
