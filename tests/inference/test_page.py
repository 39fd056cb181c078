"""docs/INFERENCE.md: its recipes are run word by word."""

import io
import re
import shlex
from pathlib import Path

import pytest

import inference
from inference.__main__ import COMMANDS, main
from tests.inference.conftest import Made
from tests.paths import ROOT

PAGE = (ROOT / "docs/INFERENCE.md").read_text(encoding="utf-8")
RUN = "output/base2new/train_base/emoji/shots_16/MaPLe/vit_micro/seed1"
COMMAND_LINES = [
    line.strip()
    for line in PAGE.splitlines()
    if line.startswith("    ") and re.search(r"python -m inference (predict|cost)", line)
]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("datasets", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "names.txt").write_text("bird\ncat\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def run_block(number: int, run: Path) -> None:
    block = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[number]
    exec(compile(block.replace(RUN, str(run)), "INFERENCE.md", "exec"), {})


def test_python(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    run_block(0, made())
    assert "['bird', 'guinea pig'] tensor([[" in capsys.readouterr().out


@pytest.mark.slow
def test_python_with_an_exported_file(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime (bash scripts/setup.sh onnx)")
    run = made()
    assert main(["export", str(run), "--output", "exported"]) == 0
    capsys.readouterr()
    run_block(1, run)
    assert capsys.readouterr().out.strip() in inference.load(run).classnames


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMAND_LINES)
def test_commands(line: str, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures, _, command = line.rpartition("| ")
    if pictures:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"datasets/emoji_data/images/bird/1f985_0.webp")))
    if "maple-emoji" in command:
        assert main(["export", str(made()), "--push", "--output", "maple-emoji"]) == 0
    words = shlex.split(command.replace("$RUN", shlex.quote(str(made()))))
    assert words[:3] == ["python", "-m", "inference"]
    assert main([*words[3:], *(["--seconds", "0"] if words[3] == "cost" else [])]) == 0


def test_every_command_is_described() -> None:
    assert len(COMMAND_LINES) > 6 and f"RUN={RUN}\n" in PAGE
    assert set(re.findall(r"\| `python -m inference (\w+)", PAGE)) == set(COMMANDS)
