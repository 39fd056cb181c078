"""The report's page in a real browser: nothing in the console, sorting, details, sizes, light and dark."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.report.contents import make_report
from experiments.report.page import page
from tests.browser import Browser, find_chromium
from tests.experiments.report_runs import make_runs

pytestmark = pytest.mark.slow
PHONE, DESKTOP = 390, 1280
TABLE = "document.querySelector('#base2new table')"
FIRST_CELL = "#base2new td.cell button"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    path.write_text(page(make_report(make_runs(folder / "output"))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        pytest.skip("needs Chromium (Debian: apt install chromium)")
    with Browser(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(autouse=True)
def _nothing_goes_wrong(browser: Browser, file: Path) -> Iterator[None]:
    """No error or warning in the console, and no request but that for the page."""
    browser.problems.clear()
    browser.requests.clear()
    yield
    assert browser.evaluate("1 + 1") == 2  # what happened before has been reported by now
    assert not browser.problems
    assert set(browser.requests) == {file.as_uri()}


def shown(browser: Browser) -> bool:
    return browser.evaluate("!document.getElementById('details').hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_readable(browser: Browser, file: Path, width: int, scheme: str) -> None:
    """Nothing is cut off: the page is no wider than the screen, what is wide scrolls; texts of plots have a size."""
    browser.open(file, width, scheme=scheme)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    plots = browser.evaluate(
        "[...document.querySelectorAll('.plots svg')].map(e => [e.getBoundingClientRect().width, e.getBBox().width])"
    )
    assert len(plots) > 10 and all(280 <= on_screen <= width and drawn > 50 for on_screen, drawn in plots)
    sizes = browser.evaluate(
        "[...document.querySelectorAll('.plots svg text')].map(e => parseFloat(getComputedStyle(e).fontSize)"
        " * e.ownerSVGElement.getBoundingClientRect().width / e.ownerSVGElement.viewBox.baseVal.width)"
    )
    assert min(sizes) >= 8
    contrast = browser.evaluate(
        "(style => [style.color, style.backgroundColor])(getComputedStyle(document.body))"
        ".map(color => color.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 3)"
    )
    assert (contrast[0] > 200 and contrast[1] < 50) if scheme == "dark" else (contrast[0] < 50 and contrast[1] > 200)


@pytest.mark.parametrize("how", ["click", "key"])
def test_tables_sort(browser: Browser, file: Path, how: str) -> None:
    browser.open(file, DESKTOP)
    heading = f"{TABLE}.tHead.rows[0].cells[1]"

    def values() -> list[float]:
        return browser.evaluate(f"[...{TABLE}.tBodies[0].rows].map(row => Number(row.cells[1].dataset.value))")

    def sort() -> str:
        if how == "click":
            browser.point("#base2new thead th:nth-child(2) button", click=True)
        else:
            browser.evaluate(f"{heading}.firstElementChild.focus()")
            browser.press("Enter")
        return browser.evaluate(f"{heading}.getAttribute('aria-sort')")

    before = values()
    assert before not in (sorted(before), sorted(before, reverse=True))
    assert sort() == "descending" and values() == sorted(before, reverse=True)
    assert sort() == "ascending" and values() == sorted(before)
    names = f"[...{TABLE}.tBodies[0].rows].map(row => row.cells[0].innerText)"
    browser.point("#base2new thead th button", click=True)
    assert browser.evaluate(f"{heading}.getAttribute('aria-sort')") == "none"
    assert browser.evaluate(names) == sorted(browser.evaluate(names), key=str.lower)


def test_details_on_hover(browser: Browser, file: Path) -> None:
    browser.open(file, DESKTOP)
    browser.point(FIRST_CELL)
    assert shown(browser)
    text = browser.evaluate("document.getElementById('details').innerText")
    assert "ZeroshotCLIP, base: 60.00" in text and "seed 1" in text
    assert "base2new/train_base/dtd/shots_16/ZeroshotCLIP/vit_b16/seed1" in text
    browser.point("h1")
    browser.wait_for("document.getElementById('details').hidden")


def test_details_by_key(browser: Browser, file: Path) -> None:
    browser.open(file, DESKTOP)
    browser.evaluate("document.querySelectorAll('#base2new thead button')[3].focus()")
    browser.press("Tab")  # from the last heading to the first number
    assert shown(browser)
    browser.press("Enter")
    assert browser.evaluate("document.activeElement.id") == "details"
    browser.press("Escape")
    assert not shown(browser)
    assert browser.evaluate(f"document.activeElement === document.querySelector('{FIRST_CELL}')")


def test_details_on_a_phone(browser: Browser, file: Path) -> None:
    browser.open(file, PHONE)
    browser.point(FIRST_CELL, click=True)
    assert shown(browser)
    place = browser.evaluate(
        "(r => [r.left, r.right, r.bottom])(document.getElementById('details').getBoundingClientRect())"
    )
    assert place == [0, PHONE, 900]
    browser.point("#close", click=True)
    assert not shown(browser)


def test_details_show_notes_and_commands_as_text(browser: Browser, file: Path) -> None:
    """What a run's files hold is never markup."""
    browser.open(file, DESKTOP)
    row = f"[...{TABLE}.tBodies[0].rows].find(row => row.cells[0].innerText === 'MaPLe')"
    browser.evaluate(f"{row}.cells[1].firstElementChild.click()")
    text = browser.evaluate("document.getElementById('details').innerText")
    assert "</script><script>alert('note')</script>" in text and "python train.py --run" in text


def test_every_section_opens_for_print(browser: Browser, file: Path) -> None:
    browser.open(file, DESKTOP)
    browser.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate("[...document.querySelectorAll('details')].every(each => each.open)")
