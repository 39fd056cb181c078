"""Which package may import which, checked on every import statement."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.paths import ROOT

PROJECT = {"dassl", "clip", "datasets", "trainers", "inference", "configs", "experiments", "scripts", "train"}
PROJECT |= {"tests", "benchmarks"}
ALLOWED = {
    "dassl": set(),
    "clip": set(),
    "datasets": {"dassl"},
    "trainers": {"dassl", "clip"},
    "experiments": {"dassl"},
    "inference": {"dassl", "clip", "datasets", "trainers", "train"},
    "scripts": {"experiments"},
}
# The one exception: clip/ shares dassl's helpers for downloads, files, images and names instead of duplicating them.
CLIP_MAY_ALSO = {f"dassl.utils.{name}" for name in ("download", "files", "images", "names", "safe_load")}
# Modules of trainers/ may import shared modules of trainers/, but no methods (the files that register a trainer).
METHODS = {
    path.stem for path in (ROOT / "trainers").glob("*.py") if "@TRAINER_REGISTRY.register" in path.read_text("utf-8")
}
# scripts/demo pretrains the demonstration model, so it builds a CLIP
MAY_ALSO = {"scripts/demo": {"clip"}}
PRECISION = Path("trainers/precision.py")  # the only file that moves or casts a model


def sources(folder: str) -> list[Path]:
    return [path.relative_to(ROOT) for path in sorted((ROOT / folder).rglob("*.py"))]


def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def import_statements(path: Path) -> Iterator[list[str]]:
    """Absolute dotted names of each import statement of a file: ``from a import b`` gives a and a.b."""
    package = path.parent.parts
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield [module, *(f"{module}.{alias.name}" for alias in node.names)]


def imported(path: Path) -> Iterator[str]:
    """Absolute dotted names of all imports of a file, including those inside functions."""
    for names in import_statements(path):
        yield from names


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_folder_imports_only_what_the_table_allows(folder: str) -> None:
    wrong = []
    for path in sources(folder):
        extra = next((more for part, more in MAY_ALSO.items() if path.is_relative_to(part)), set())
        allowed = {folder} | ALLOWED[folder] | extra
        for name in imported(path):
            top = name.split(".")[0]
            shared = folder == "clip" and any(f"{name}.".startswith(f"{module}.") for module in CLIP_MAY_ALSO)
            if top in PROJECT and top not in allowed and not shared:
                wrong.append(f"{path} imports {name}")
    assert not wrong, wrong


@pytest.mark.parametrize("folder", ["dassl", "clip"])
def test_library_folders_have_no_third_party_import_beyond_the_requirements(folder: str) -> None:
    """The import names of pyproject's dependencies."""
    known = {"PIL", "clip", "dassl", "filelock", "ftfy", "gdown", "huggingface_hub", "numpy", "regex", "safetensors"}
    known |= {"scipy", "sklearn", "tabulate", "tensorboard", "torch", "torchvision", "tqdm", "voluptuous"}
    known |= {"yacs", "yaml"}
    for path in sources(folder):
        unknown = {name.split(".")[0] for name in imported(path)} - known - set(sys.stdlib_module_names)
        assert not unknown, f"{path} imports {unknown}"


def test_methods_do_not_import_each_other() -> None:
    for path in sources("trainers"):
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "trainers" and len(parts) > 1 and parts[1] != path.stem:
                assert parts[1] not in METHODS, f"{path} imports {name}: move what two methods share to a shared module"


def module_name(path: Path) -> str:
    """``clip/__init__.py`` → ``clip``, ``clip/text.py`` → ``clip.text``."""
    return ".".join(path.parent.parts if path.stem == "__init__" else path.with_suffix("").parts)


def import_graph(folder: str) -> dict[str, set[str]]:
    """{module: modules of the package that it imports, including inside functions and for type checking only}."""
    files = {module_name(path): path for path in sources(folder)}
    graph: dict[str, set[str]] = {module: set() for module in files}
    for module, path in files.items():
        for names in import_statements(path):
            known = files.keys() & set(names)
            # `from package import module` runs the package's __init__ but takes nothing from it
            graph[module] |= {name for name in known if not any(other.startswith(f"{name}.") for other in known)}
    return graph


@pytest.mark.parametrize("folder", ["clip", "dassl", "datasets", "inference", "trainers"])
def test_no_circular_imports_inside_a_package(folder: str) -> None:
    try:
        TopologicalSorter(import_graph(folder)).prepare()
    except CycleError as error:
        raise AssertionError(f"circular imports: {' -> '.join(reversed(error.args[1]))}") from None


def test_nothing_imports_tests_or_benchmarks() -> None:
    for folder in (*ALLOWED, "train.py"):
        paths = [Path(folder)] if folder.endswith(".py") else sources(folder)
        for path in paths:
            assert not {name.split(".")[0] for name in imported(path)} & {"tests", "benchmarks"}, path


def test_no_method_is_named_below_the_trainers() -> None:
    """clip/ takes prompts as data: no identifier names a method. (`VPT` and `VPT_shallow` are parameter names that
    published checkpoints fix.)"""
    for path in sources("clip"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Name | ast.Attribute | ast.arg | ast.FunctionDef | ast.ClassDef):
                word = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", None)
                word = str(word or getattr(node, "name", ""))
                parts = re.split("_|(?<=[a-z])(?=[A-Z])", word.replace("CoOp", "Coop").replace("MaPLe", "Maple"))
                assert not {"maple", "coop", "cocoop", "ivlp"} & {part.lower() for part in parts}, f"{path}: {word}"


def test_models_are_moved_and_cast_in_one_place() -> None:
    wrong = [
        f"{path}:{node.lineno}"
        for folder in ("clip", "trainers", "dassl", "datasets", "inference")
        for path in sources(folder)
        if path != PRECISION
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("half", "cuda")
    ]
    assert not wrong, f".half() or .cuda() outside {PRECISION}: {wrong}"


def test_train_py_does_not_import_torch() -> None:
    assert not any(name.startswith("torch") for name in imported(Path("train.py")))
