"""docs/PLUGINS.md lists the parts of dassl/ that exist for plug-ins only: they exist, and nothing of ours uses them."""

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from yacs.config import CfgNode

from dassl.config import get_cfg_default
from tests.paths import ROOT

LIST = (ROOT / "docs" / "PLUGINS.md").read_text(encoding="utf-8").partition("for plug-ins only\n")[2]
NAMES = re.findall(r"^\| `(dassl\.[\w.]+)` \|", LIST, re.MULTILINE)
NODES = re.findall(r"`((?:TRAINER|MODEL)\.\w+)`", LIST)
OURS = [*sorted((ROOT / "trainers").glob("*.py")), *sorted((ROOT / "datasets").rglob("*.py")), ROOT / "train.py"]


def identifiers(path: Path) -> Iterator[str]:
    """All names and attributes that a file uses, and each part and the whole of what it imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield from (node.name, *node.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


USED = {name for path in OURS for name in identifiers(path)}


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is a module without modules in it
        return False


def test_the_list_is_read() -> None:
    assert {"dassl.modeling", "dassl.engine.TrainerXU", "dassl.optim.radam"} < set(NAMES)
    assert len(set(NAMES)) == len(NAMES) and len(set(NODES)) == len(NODES) == 15


@pytest.mark.parametrize("name", NAMES)
def test_a_listed_part_exists_and_is_not_used(name: str) -> None:
    if is_module(name):
        assert not [used for used in USED if used == name or used.startswith(f"{name}.")]
        return
    *path, last = name.split(".")
    value = importlib.import_module(".".join(path[:2]))
    for part in (*path[2:], last):
        value = getattr(value, part)
    assert callable(value)
    assert last not in USED


def test_the_listed_nodes_are_all_trainer_nodes_of_dassl() -> None:
    tree = get_cfg_default()
    assert {f"TRAINER.{name}" for name, node in tree.TRAINER.items() if isinstance(node, CfgNode)} == {
        node for node in NODES if node.startswith("TRAINER.")
    }
    assert all(isinstance(tree[section][name], CfgNode) for section, name in (node.split(".") for node in NODES))
    assert not {node.split(".")[1] for node in NODES} & USED
