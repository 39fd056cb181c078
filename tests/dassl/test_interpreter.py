"""A Python that cannot run the project says so in one line, at every entry."""

import ast
import re
import subprocess
import sys

import pytest

from dassl.interpreter import PACKAGES, missing_package
from tests.paths import ROOT

ENTRIES = {
    "train": ["train.py", "--trainer", "MaPLe"],
    "datasets": ["-m", "datasets", "list"],
    "experiments": ["-m", "experiments.start", "script.sh", str(ROOT), "base2new_train", "maple", "dtd", "1"],
    "results": ["scripts/results.py", "output"],
}


def run(*words: str) -> str:
    """What a command that must fail with status 2 prints to stderr."""
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    return done.stderr


@pytest.mark.parametrize("entry", ENTRIES)
def test_without_the_packages(entry: str) -> None:
    """-S leaves site-packages out, as in the system's Python."""
    (line,) = run("-S", *ENTRIES[entry]).splitlines()
    assert re.fullmatch(r"error: \S+ has no package '\w+'\. Run `bash scripts/setup.sh`, .*requirements.txt.*", line)


@pytest.mark.parametrize("entry", ENTRIES)
def test_too_old(entry: str) -> None:
    """A Python that the project calls too old."""
    words = ENTRIES[entry]
    start = (
        f"run_module('{words[1]}', run_name='__main__')"
        if words[0] == "-m"
        else f"run_path('{words[0]}', {{}}, '__main__')"
    )
    argv = ["-m", *words[2:]] if words[0] == "-m" else words
    code = f"import sys; sys.path.insert(0, '.'); import dassl.interpreter as i; i.OLDEST = (9, 9); sys.argv = {argv}; "
    (line,) = run("-c", code + f"import runpy; runpy.{start}").splitlines()
    assert re.match(r"error: \S+ is Python 3\.\d+, 9\.9 or newer is needed\. Run `bash scripts/setup.sh`", line)


@pytest.mark.parametrize(
    "path",
    ["dassl/__init__.py", "dassl/interpreter.py", "train.py", "experiments/__init__.py", "experiments/start.py"],
)
def test_an_old_python_reads_what_it_imports_first(path: str) -> None:
    ast.parse((ROOT / path).read_text(encoding="utf-8"), feature_version=(3, 8))


def test_the_packages_are_those_of_pyproject() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    names = re.findall(r'^    "([\w-]+)>=', text.split("dependencies = [")[1].split("]")[0], flags=re.MULTILINE)
    imported = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
    assert {imported.get(name, name) for name in names} == PACKAGES


def test_other_modules_are_not_taken_for_packages() -> None:
    try:
        try:
            import no_such_plug_in  # noqa: F401
        except ImportError as error:
            raise ImportError("trainers/mine.py could not be imported") from error
    except ImportError as error:
        assert missing_package(error) is None
        error.__cause__ = ModuleNotFoundError("No module named 'scipy.io'", name="scipy.io")
        assert "no package 'scipy'" in str(missing_package(error))
