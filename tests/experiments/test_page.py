"""The report's page: complete without a network, escaped, with every plot; its numbers against hand computation."""

import html.parser
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from experiments.__main__ import main
from experiments.report import classes, plots
from experiments.report.contents import make_report
from experiments.report.drawing import Line, Point, bars, curves
from experiments.report.page import page
from tests.experiments.report_runs import HOSTILE, MAPLE, NOTE, make_runs
from tests.experiments.run_folders import put_both

EMPTY = {"meta", "br", "wbr", "link", "img", "input", "hr"}  # elements without an end tag


class Reader(html.parser.HTMLParser):
    """Elements with their attributes and text; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[dict[str, str]] = []
        self.open: list[dict[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {tag} {attrs}"
        element = {"tag": tag, "text": "", **{name: value or "" for name, value in attrs}}
        self.elements.append(element)
        if tag not in EMPTY:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in EMPTY:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element["text"] += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        wanted = {"tag": tag, **attributes}
        return [element for element in self.elements if wanted.items() <= element.items()]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("output"))


@pytest.fixture(scope="module")
def text(output: Path) -> str:
    return page(make_report(output))


@pytest.fixture(scope="module")
def read(text: str) -> Reader:
    return Reader(text)


def section(read: Reader, name: str) -> Reader:
    """The elements of one section."""
    found = object.__new__(Reader)
    start = next(i for i, element in enumerate(read.elements) if element.get("id") == name)
    after = (i for i, element in enumerate(read.elements) if i > start and element["tag"] == "section")
    found.elements = read.elements[start : next(after, len(read.elements))]
    return found


# ---- a page of its own -----------------------------------------------------------------------------------------


def test_the_page_asks_for_nothing(text: str, read: Reader) -> None:
    for element in read.elements:
        assert element["tag"] not in ("link", "img", "iframe", "object", "image", "base", "form")
        for name, value in element.items():
            if name in ("src", "href", "xlink:href", "action", "srcset", "data", "poster"):
                assert value.startswith("#"), element
    assert set(re.findall(r"url\(([^)#]*)", text)) <= {""}
    assert "@import" not in text and "@font-face" not in text
    (policy,) = [element["content"] for element in read.all("meta") if "http-equiv" in element]
    assert policy.startswith("default-src 'none'; ")
    addresses = set(re.findall(r"https?://[^\"'\s<]+", text))
    assert addresses <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}  # names, not addresses


def test_texts_of_users_are_escaped(text: str, read: Reader) -> None:
    assert len(read.all("script")) == 2 and "alert(" not in read.all("script")[1]["text"]
    assert read.all("td", text=HOSTILE), "the class is named in a table of confused pairs"
    assert any("VPT/a$b$<i>" in element["text"] for element in read.all("text")), "and in a plot, without a formula"
    assert not read.all("i")
    data = json.loads(read.all("script", id="data")[0]["text"])
    assert data["notes"] == [NOTE]
    assert "\x1b" not in text


def test_tables_and_plots_say_what_they_are(read: Reader) -> None:
    assert len(read.all("caption")) == len(read.all("table"))
    assert all(element.get("scope") in ("col", "row") for element in read.all("th"))
    for plot in read.all("div", role="img"):
        assert len(plot["aria-label"]) > 10
    ids = [element["id"] for element in read.elements if element["tag"] not in ("path", "clippath") and "id" in element]
    assert len(ids) == len(set(ids))


def test_every_plot_is_there(read: Reader) -> None:
    titles = {
        name: [element["text"] for element in section(read, name).all("figcaption")]
        for name in ("base2new", "few_shot", "ablations", "classes", "learning", "cost")
    }
    assert titles == {
        "base2new": ["average of 2 datasets, 16 shots", "dtd, 16 shots", "eurosat, 16 shots"],
        "few_shot": ["dtd", "Legend"],
        "ablations": ["PROMPT_DEPTH: IVLP/vit_b16, average of 2 datasets, 16 shots", "Legend"],
        "classes": ["dtd, new classes"],
        "learning": ["dtd, all classes", "Legend", "dtd, base classes", "eurosat, base classes"],
        "cost": ["learned parameters", "seconds of a training", "peak memory (GiB)"],
    }
    assert len(read.all("svg")) == sum(map(len, titles.values()))


# ---- numbers ---------------------------------------------------------------------------------------------------


def test_a_cell_beside_the_published_number(read: Reader) -> None:
    """Base 78, 79, 80: 79 ± 1, 1.36 below the published 80.36; new 69.9, 70, 70.1: 70 ± 0.1, 10.82 above 59.18."""
    by_seeds = {
        element["data-seeds"]: element for element in section(read, "base2new").all("td") if "data-seeds" in element
    }
    base, new = by_seeds["1:78.00 2:79.00 3:80.00"], by_seeds["1:69.90 2:70.00 3:70.10"]
    cells = {element["text"].strip() for element in section(read, "base2new").all("td")}
    sources = [element["text"] for element in section(read, "sources").all("li")]
    number = 1 + sources.index("Khattak et al., CVPR 2023 (arXiv 2210.03117)")
    assert f"79.00 ± 1.00 (3)80.36[{number}] −1.36" in cells
    assert f"70.00 ± 0.10 (3)59.18[{number}] +10.82 ▲ outside of twice the deviation" in cells
    assert base["data-value"] == "79.0" and float(new["data-value"]) == pytest.approx(70.0)
    runs = json.loads(read.all("script", id="data")[0]["text"])["runs"]
    assert sorted(f"base2new/train_base/eurosat/shots_16/{MAPLE}/seed{seed}" for seed in (1, 2, 3)) == [
        runs[int(number)][0] for number in base["data-runs"].split()
    ]
    assert runs[int(base["data-runs"].split()[1])][1] == f"python train.py --run '{MAPLE} 2'"


def test_classes_against_the_baseline(output: Path) -> None:
    """Of a's 3 images zero-shot gets 1 right, MaPLe's two seeds 2 and 3 of 3: 5/6. Of b's one: 1/1, and 1/2."""
    report = make_report(output)
    names = plots.short_names(report.frame)
    ((found,), left) = classes.class_gains(report.frame, output, names)
    assert (found.title, found.baseline, found.best, left) == ("dtd, new classes", "ZeroshotCLIP", "MaPLe", 0)
    (gains,) = found.methods
    assert gains.accuracy == pytest.approx(100 * 6 / 8)
    assert (gains.better, gains.worse) == (1, 1)
    assert gains.most == ("nan", pytest.approx(100 * (5 / 6 - 1 / 3)))
    assert gains.least == (HOSTILE, pytest.approx(-50))
    assert [(pair.true, pair.predicted) for pair in found.confusions] == [(HOSTILE, "nan"), ("nan", HOSTILE)]
    assert [pair.share for pair in found.confusions] == [pytest.approx(50), pytest.approx(100 / 6)]
    assert [pair.baseline for pair in found.confusions] == [0, pytest.approx(200 / 3)]


def test_classes_from_results_without_predictions(tmp_path: Path) -> None:
    for trainer, correct in (("ZeroshotCLIP", 1), ("MaPLe", 3)):
        put_both(tmp_path, "dtd", 1, 50.0, 50.0, f"{trainer}/c")
        for stage in ("train_base", "test_new"):
            file = tmp_path / f"base2new/{stage}/dtd/shots_16/{trainer}/c/seed1/results.json"
            entry = {"label": 0, "classname": "cat", "correct": correct, "total": 4}
            file.write_text(json.dumps(json.loads(file.read_text()) | {"per_class": [entry, "nonsense"]}))
    report = make_report(tmp_path)
    found, _ = classes.class_gains(report.frame, tmp_path, plots.short_names(report.frame))
    assert [(of.title, of.methods[0].most, of.confusions) for of in found] == [
        ("dtd, base classes", ("cat", 50.0), []),
        ("dtd, new classes", ("cat", 50.0), []),
    ]


def test_the_setting_is_named_where_there_are_no_predictions(tmp_path: Path) -> None:
    put_both(tmp_path, "dtd", 1, 50.0, 50.0)
    (tmp_path / "base2new/train_base/dtd/shots_16/MaPLe/vit_b16/seed1/predictions.csv").write_text("a,b\n1,2\n")
    (tmp_path / "base2new/train_base/dtd/shots_16/MaPLe/vit_b16/seed1/history.jsonl").write_text('{"epoch": 1}\n[]')
    read = Reader(page(make_report(tmp_path)))
    assert any("TEST.PREDICTIONS True" in element["text"] for element in section(read, "classes").all("p"))
    assert not read.all("section", id="learning") and not read.all("section", id="missing")


def test_a_missing_run_has_its_command(read: Reader) -> None:
    lines = [element["text"] for element in section(read, "missing").all("li")]
    assert any("seed4: no complete results.json" in line and "python train.py" in line for line in lines)


def test_the_points_of_an_ablation(output: Path) -> None:
    """Depth 1, 3, 9 with seeds 1 and 2: 70 + depth + 1.5, as in the words of the plot."""
    description = plots.ablations(make_report(output).tables).plots[0].description
    for name in ("base", "new", "harmonic mean"):
        assert f"{name}: 72.50 at 1, 74.50 at 3, 80.50 at 9" in description


# ---- plots -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["$x_1$", "a & <b>", "\udcff\n\x00", "日本", "x" * 300, "#a1b2d0"])
def test_any_name_can_be_drawn(name: str, recwarn: pytest.WarningsRecorder) -> None:
    points = [Point(1, 2.0, 0.5, (1.5, 2.5)), Point(4, float("nan")), Point(16, 3.0)]
    for plot in (
        bars(name, {name: {name: points[0]}}, name),
        bars(name, {name: {"gain": Point(0, -2.0)}, "b": {"gain": Point(0, 0.0)}}, "points"),
        curves(name, [Line(name, 71, points)], name, name, [Line("level", 1, [Point(0, 2.0)])], "log2"),
    ):
        svg = ElementTree.fromstring(plot.svg)
        assert svg.get("viewBox") and svg.get("width") is None
        assert not svg.findall(".//{*}metadata") and not svg.findall(".//{*}style")
    assert not list(recwarn)


def test_sections_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "MOST", 2)
    for number in range(4):
        put_both(tmp_path, f"data{number}", 1, 50.0, 50.0)
    found = plots.base2new(make_report(tmp_path).tables)
    assert len(found.plots) == 2 and found.notes == ["Not drawn: 3 more tables, see the tables."]


def test_the_command_writes_the_same_page_again(output: Path, text: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert main(["report", str(output), "--html", str(file), "--results", str(tmp_path / "runs.csv")]) == 0
    assert file.read_text(encoding="utf-8") == text
