"""Nothing in the project can execute what a user's file says: no such call appears, under any name."""

import ast
import subprocess
from collections.abc import Iterator

import pytest

from tests.paths import ROOT

FORBIDDEN = {
    "eval": "builtin",
    "exec": "builtin",
    "__import__": "builtin",
    "compile": "builtin",
    "builtins.eval": "call",
    "builtins.exec": "call",
    "os.system": "call",
    "os.popen": "call",
    "torch.jit.load": "call",
    "torch.jit._serialization.load": "call",
    "torch.package": "module",
    "torch.hub": "module",
    "pickle": "module",
    "_pickle": "module",
    "cPickle": "module",
    "dill": "module",
    "cloudpickle": "module",
    "joblib": "module",
    "marshal": "module",
    "shelve": "module",
    "yaml.load": "call",
    "yaml.load_all": "call",
    "yaml.full_load": "call",
    "yaml.full_load_all": "call",
    "yaml.unsafe_load": "call",
    "yaml.unsafe_load_all": "call",
    "yaml.UnsafeLoader": "call",
    "yaml.FullLoader": "call",
    "yaml.Loader": "call",
    "numpy.loads": "call",
    "pandas.read_pickle": "call",
}
# Functions that are safe with one value of one argument
ARGUMENTS = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}
SAFE_UNLESS_GIVEN = {"numpy.load"}


def names_in(tree: ast.Module) -> dict[str, str]:
    """What each imported name stands for: ``from torch import jit as j`` gives {"j": "torch.jit"}."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    for node in ast.walk(tree):  # load = torch.jit.load
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            value = dotted(node.value, names)
            if value and "." in value and value.split(".")[0] in {name.split(".")[0] for name in names.values()}:
                names.setdefault(node.targets[0].id, value)
    return names


def dotted(node: ast.AST, names: dict[str, str]) -> str | None:
    """The full name of an expression: ``j.load`` → "torch.jit.load"."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        base = dotted(node.value, names)
        return None if base is None else f"{base}.{node.attr}"
    if (
        isinstance(node, ast.Call)
        and dotted(node.func, names) in ("getattr", "importlib.import_module")
        and all(isinstance(argument, ast.Constant) for argument in node.args[-1:])
    ):
        base = dotted(node.args[0], names) if len(node.args) > 1 else ""
        return ".".join(filter(None, (base, str(node.args[-1].value))))  # type: ignore[attr-defined]
    return None


def forbidden(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    names = names_in(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                modules = [str(node.module), *(f"{node.module}.{name}" for name in modules)] if not node.level else []
            yield from (name for name in modules if FORBIDDEN.get(name) in ("module", "call"))
        elif isinstance(node, ast.Name | ast.Attribute):
            name = dotted(node, names)
            if isinstance(node, ast.Name) and node.id not in names:
                if FORBIDDEN.get(node.id) == "builtin":
                    yield node.id
            elif FORBIDDEN.get(name or "") == "call":
                yield str(name)
        elif isinstance(node, ast.Call):
            if FORBIDDEN.get(dotted(node, names) or "") in ("module", "call"):
                yield dotted(node, names) or ""
            name = dotted(node.func, names) or ""
            if not isinstance(node.func, ast.Name | ast.Attribute) and name in FORBIDDEN:
                yield name
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if name in ARGUMENTS:
                argument, safe = ARGUMENTS[name]
                value = given.get(argument)
                safe_value = isinstance(value, ast.Constant) and value.value is safe
                if not safe_value and not (value is None and name in SAFE_UNLESS_GIVEN and None not in given):
                    yield f"{name} without {argument}={safe}"
            shell = given.get("shell")
            if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
                yield "shell=True"


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.jit.load(p)",
        "import torch as t\nt.jit.load(p)",
        "from torch import jit\njit.load(p)",
        "from torch.jit import load",
        "from torch.jit import load as read\nread(p)",
        "import torch.jit as j\nj.load(p)",
        "import torch\nload = torch.jit.load\nload(p)",
        "import torch\nget = getattr(torch.jit, 'load')\nget(p)",
        "import torch\ngetattr(torch.jit, 'load')(p)",
        "import pickle\npickle.loads(b)",
        "from pickle import Unpickler",
        "def f():\n    import _pickle as p",
        "import importlib\nimportlib.import_module('marshal').loads(b)",
        "import torch\ntorch.load(p)",
        "import torch\ntorch.load(p, weights_only=False)",
        "import torch\ntorch.load(p, weights_only=flag)",
        "from torch import load\nload(p)",
        "import yaml\nyaml.load(t, Loader=yaml.SafeLoader)",
        "import yaml\nyaml.unsafe_load(t)",
        "from yaml import full_load",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "import numpy as np\nnp.load(p, **options)",
        "eval(text)",
        "run = eval",
        "exec(code)",
        "import builtins\nbuiltins.exec(code)",
        "import os\nos.system(c)",
        "from os import system",
        "import subprocess\nsubprocess.run(c, shell=True)",
        "import subprocess\nsubprocess.Popen(c, shell=flag)",
        "import shelve",
    ],
)
def test_each_kind_is_seen(source: str) -> None:
    assert list(forbidden(source))


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(p, map_location='cpu', weights_only=True)",
        "import re\nre.compile(p)",
        "model.eval()",
        "import numpy as np\nnp.load(p)\nnp.load(p, allow_pickle=False)",
        "import yaml\nyaml.safe_load(t)",
        "import subprocess\nsubprocess.run(c, shell=False)",
        "import torch\ntorch.jit.script(m)",
    ],
)
def test_others_are_not(source: str) -> None:
    assert not list(forbidden(source))


def test_nothing_of_the_project_executes_a_file() -> None:
    """Tests are left out: they write such files."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True)
    tracked = listed.stdout.split() if listed.returncode == 0 else []
    folders = ("clip", "dassl", "datasets", "trainers", "experiments", "scripts", "benchmarks")
    paths = [ROOT / name for name in tracked if not name.startswith("tests/")]
    paths = paths or [ROOT / "train.py", *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    assert len(paths) > 100
    found = {str(path.relative_to(ROOT)): list(forbidden(path.read_text(encoding="utf-8"))) for path in paths}
    assert not {path: calls for path, calls in found.items() if calls}
