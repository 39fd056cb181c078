"""`python -m inference demo` in a real browser: a picture is dropped, class names are edited, scores are shown."""

import base64
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.request import urlopen

import pytest

import inference
from inference.__main__ import main
from tests.browser import Browser, find_chromium
from tests.inference.conftest import Made
from tests.paths import ROOT

BIRD = sorted((ROOT / "datasets/emoji_data/images/bird").glob("*.webp"))[2]
DROP = """(() => {
  const data = new DataTransfer(), bytes = Uint8Array.from(atob(%s), c => c.charCodeAt(0))
  data.items.add(new File([bytes], 'bird.webp', {type: 'image/webp'}))
  const input = document.querySelector('input[type=file]')
  input.files = data.files
  input.dispatchEvent(new Event('change', {bubbles: true}))
})()"""
EDIT = """(() => {
  const box = document.querySelector('textarea')
  box.focus()
  box.value = 'guinea pig\\nbird'
  box.dispatchEvent(new Event('input', {bubbles: true}))
  box.blur()
})()"""


def test_without_gradio(made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["demo", str(made())]) == 2
    assert "the demo needs gradio" in capsys.readouterr().err


@pytest.fixture
def address(made: Made) -> Iterator[str]:
    """Of the demo of a MaPLe run, which is served until the test ends."""
    if find_spec("gradio") is None:
        pytest.skip("needs gradio (pip install 'gradio>=6')")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "inference", "demo", str(made()), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for _ in range(200):
            if process.poll() is not None:
                break
            try:
                urlopen(f"http://127.0.0.1:{port}", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        assert process.poll() is None, process.communicate()[0]
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_in_a_browser(address: str, made: Made, tmp_path: Path) -> None:
    program = find_chromium()
    if program is None:
        pytest.skip("needs Chromium (Debian: apt install chromium)")
    classifier = inference.load(made())
    with Browser(program, tmp_path / "profile", patience=150) as browser:
        browser.send("Page.navigate", url=address)
        browser.wait_for("!!document.querySelector('input[type=file]') && !!document.querySelector('textarea')")
        assert browser.evaluate("document.querySelector('textarea').value").split("\n") == classifier.classnames

        for script, expected in (
            (DROP % json.dumps(base64.b64encode(BIRD.read_bytes()).decode()), classifier),
            (EDIT, classifier.with_classes(["guinea pig", "bird"])),
        ):
            browser.evaluate(script)
            for one in expected.predict(BIRD)[0]:
                browser.wait_for(f"document.body.innerText.includes({json.dumps(one.classname)})")
                browser.wait_for(f"document.body.innerText.includes('{100 * one.score:.0f}%')")
        elsewhere = [url for url in browser.requests if not url.startswith((address, "data:", "blob:", "about:"))]
        assert not elsewhere, "asks for nothing from other machines"
