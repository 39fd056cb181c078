"""What the report prints and writes, in every format."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.published import read_published
from experiments.report.contents import make_report
from experiments.report.latex import as_latex
from experiments.report.markdown import as_markdown
from experiments.report.text import as_text
from tests.experiments.run_folders import base2new, put, put_both
from tests.paths import ROOT

MAPLE, COOP = "MaPLe/vit_b16_c2_ep5_batch4_2ctx", "CoOp/vit_b16_ep100_ctxv1"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Two methods of the published table on DTD, 80.36 / 59.18 and 79.44 / 41.18, and one of another kind."""
    folder = tmp_path / "out"
    for seed in (1, 2, 3):
        put_both(folder, "dtd", seed, 79.0 + seed, 49.0 + seed, MAPLE)
        put_both(folder, "dtd", seed, 77.44 + seed, 39.18 + seed, COOP)
    put_both(folder, "dtd", 1, 90.0, 10.0, "A_trainer&co/c")
    return folder


def report_of(folder: Path, *options: object) -> int:
    return main(["report", str(folder), *map(str, options)])


def test_the_printed_table(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """H of CoOp's averages 79.44 and 41.18: 54.24. MaPLe's new accuracies are 8.18 below the published number."""
    assert report_of(output) == 0
    printed = capsys.readouterr().out
    table = printed[printed.index("Base-to-new") : printed.index("Methods of")]
    assert table == f"Base-to-new generalization, dtd, 16 shots\n{TABLE}\n"
    assert "  CoOp: CoOp/vit_b16_ep100_ctxv1\n" in printed
    assert "[2] Khattak et al., CVPR 2023 (arXiv 2210.03117)" in printed
    assert f"One row per finished run (14): {output / 'results.csv'}\n" in printed


TABLE = """\
method           base                new                 H
---------------  ------------------  ------------------  ------------------
CoOp             79.44 ± 1.00 (3)    41.18 ± 1.00 (3) +  54.24 ± 1.10 (3) +
  published [1]  79.44 (+0.00)       41.18 (+0.00)       54.24 (+0.00)
MaPLe            81.00 ± 1.00 (3) +  51.00 ± 1.00 (3) *  62.59 ± 1.05 (3) *
  published [2]  80.36 (+0.64)       59.18 (-8.18 !)     68.16 (-5.57 !)
A_trainer&co     90.00 *             10.00               18.00
"""


@pytest.mark.parametrize(
    "names", [["dtd"], ["dtd", "eurosat", "ucf101", "sun397", "food101", "a_dataset_with_a_long_name"]]
)
def test_a_terminal_of_100_columns_shows_every_table(tmp_path: Path, names: list[str]) -> None:
    for seed in (1, 2):
        for number, name in enumerate(names):
            put_both(tmp_path, name, seed, 60.0 + number, 50.0 + seed, MAPLE)
            put(tmp_path, f"evaluation/{MAPLE}_16shots/{name}/seed{seed}", 40.0 + number)
            for shots in (1, 2, 4, 8, 16):
                put(tmp_path, f"{name}/{COOP}_{shots}shots/seed{seed}", 40.0 + shots)
    lines = as_text(make_report(tmp_path)).splitlines()
    assert max(map(len, [line for line in lines if "incomplete" not in line and "train.py" not in line])) <= 100
    heads = " ".join(lines)
    assert all(f"{shots} shot" in heads for shots in (1, 2, 4, 8, 16)) and all(name in heads for name in names)


def test_notes_of_runs_are_footnotes(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, half in enumerate(("base", "new"), 1):
        notes = ["2 of 47 classes have fewer images than shots"] * number
        put(output, base2new("dtd", half, 1, "VPT/vit_b16"), 50.0, notes=notes)
    report_of(output)
    printed = capsys.readouterr().out
    assert "\nVPT (a)  " in printed and "\n(a) 2 of 47 classes have fewer images than shots\n" in printed
    assert "(b)" not in printed


def test_control_characters_in_names_are_shown_as_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_both(tmp_path, "d\x1b[31mtd", 1, 50.0, 40.0)
    put_both(tmp_path, "dtd", 1, 50.0, 40.0)
    report_of(tmp_path, "--markdown", tmp_path / "report.md")
    assert "\x1b" not in capsys.readouterr().out + (tmp_path / "report.md").read_text(encoding="utf-8")


def test_markdown(output: Path) -> None:
    text = as_markdown(make_report(output))
    assert "| method | base | new | H |\n| --- | --: | --: | --: |\n" in text
    row = "| MaPLe | <u>81.00</u> ± 1.00 (3) | **51.00** ± 1.00 (3) | **62.59** ± 1.05 (3) |"
    assert f"{row}\n| published \\[2\\] | 80.36 (+0.64) | 59.18 (-8.18 !) | 68.16 (-5.57 !) |\n" in text
    assert "- \\[2\\] Khattak et al., CVPR 2023 (arXiv 2210.03117)\n" in text
    assert "| A\\_trainer&co | **90.00** |" in text


def test_latex_has_a_booktabs_table_with_marked_numbers_and_escaped_names(output: Path) -> None:
    text = as_latex(make_report(output))
    assert (
        r"MaPLe & \underline{81.00} {\scriptsize $\pm$ 1.00 (3)} & \textbf{51.00} {\scriptsize $\pm$ 1.00 (3)} &"
        in text
    )
    assert r"\quad published [2] & 80.36 {\scriptsize (+0.64)} & 59.18 {\scriptsize ($-$8.18 !)} &" in text
    assert r"A\_trainer\&co & \textbf{90.00} & 10.00 & 18.00 \\" in text
    for command in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(command) == 1
    assert text.count(r"\begin{") == text.count(r"\end{") == 2
    assert text.count("{") == text.count("}")


def test_latex_compiles(tmp_path: Path) -> None:
    program = shutil.which("tectonic") or shutil.which("pdflatex")
    if not program:
        pytest.skip("there is no TeX: neither tectonic nor pdflatex")
    output = tmp_path / "out"
    for number, config in enumerate((MAPLE, COOP, "a&b%c$d#e_f{g}h~i^j\\k/x", "ä<é>|\"'ß…±/γάτα", "p`q/[x]")):
        for dataset in ("dtd", "50%_&c"):
            put_both(output, dataset, 1, 80.0 - number, 50.0, config)
            put(output, f"evaluation/{config}_16shots/{dataset}/seed1", 50.0, notes=["100 % of {them} & more_\\"])
    assert report_of(output, "--latex", tmp_path / "tables.tex") == 0
    document = "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}\\input{tables}\\end{document}"
    (tmp_path / "paper.tex").write_text(document)
    options = [] if program.endswith("tectonic") else ["-interaction=nonstopmode", "-halt-on-error"]
    done = subprocess.run([program, *options, "paper.tex"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000
    assert "Overfull" not in done.stdout, "no table is wider than the page"


def test_json_keeps_full_precision(output: Path, tmp_path: Path) -> None:
    put(tmp_path / "one", base2new("dtd", "base", 1), 70.123456789)
    put(tmp_path / "one", base2new("dtd", "new", 1), 60.0)
    put(tmp_path / "one", base2new("dtd", "new", 2), None)
    file = tmp_path / "table.json"
    assert report_of(tmp_path / "one", "--protocol", "base2new", "--dataset", "dtd", "--json", file) == 0
    content = json.loads(file.read_text(encoding="utf-8"))
    (table,) = content["tables"]
    base = table["cells"][0]
    assert (base["mean"], base["deviation"], base["n"]) == (70.123456789, None, 1)
    assert base["seeds"] == {"1": 70.123456789}
    assert len(content["incomplete"]) == 1


def test_only_a_protocol_or_a_dataset_and_all_runs_in_the_csv(output: Path, tmp_path: Path, capsys) -> None:
    put(output, "ZeroshotCLIP/vit_b16/eurosat", 44.0)
    assert report_of(output, "--dataset", "eurosat", "--results", tmp_path / "runs.csv") == 0
    printed = capsys.readouterr().out
    assert "Zero-shot, all classes" in printed and "Base-to-new" not in printed
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 1 + 14 + 1 and not (output / "results.csv").exists()
    report_of(output, "--protocol", "base2new")
    printed = capsys.readouterr().out
    assert "Base-to-new" in printed and "Zero-shot" not in printed


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, "ZeroshotCLIP/vit_b16/dtd", 44.0)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file/tables.json", Path("/proc/nothing/tables.json"), tmp_path):
        for option in ("--json", "--markdown", "--csv", "--latex", "--results"):
            assert report_of(tmp_path, option, path) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"error: {path} cannot be written ")


def test_nothing_to_report_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report_of(tmp_path / "none") == 2
    assert "name the OUTPUT folder" in capsys.readouterr().err
    (tmp_path / "a/folder").mkdir(parents=True)
    assert report_of(tmp_path, "--html", tmp_path / "page.html") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: no runs in {tmp_path}: expected folders such as base2new/train_base/")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_former_script_prints_the_same(output: Path) -> None:
    commands = [["scripts/results.py"], ["-m", "experiments", "report"]]
    done = [
        subprocess.run(
            [sys.executable, *command, str(output)],
            **{"cwd": ROOT, "capture_output": True, "text": True, "encoding": "ascii", "timeout": 60},
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
        for command in commands
    ]
    assert [of.returncode for of in done] == [0, 0], done[0].stderr
    assert done[0].stdout == done[1].stdout and r"81.00 \xb1 1.00 (3)" in done[0].stdout


def test_the_command_imports_pandas_only_when_it_reports() -> None:
    packages = "{'pandas', 'numpy', 'matplotlib', 'jinja2', 'torch'}"
    code = f"import sys, experiments.__main__; print(*sorted({packages} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


def test_the_numbers_of_the_fixture_are_published() -> None:
    numbers = read_published()
    assert numbers["base2new", "MaPLe", "dtd", "base", 16, "ViT-B/16"].value == 80.36
    assert numbers["base2new", "CoOp", "dtd", "new", 16, "ViT-B/16"].value == 41.18
