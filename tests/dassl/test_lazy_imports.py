"""What importing costs: the torch-free modules import no heavy package, and dassl.utils serves its names lazily."""

import subprocess
import sys
import time

import pytest

import dassl.utils
from tests.paths import ROOT

HEAVY = ("torch", "torchvision", "numpy", "PIL", "scipy", "sklearn", "gdown", "huggingface_hub", "filelock", "tqdm")
LIGHT = (
    "dassl",
    "dassl.config",
    "dassl.config.merge",
    "dassl.utils",
    "dassl.utils.console",
    "dassl.utils.download",
    "dassl.utils.files",
    "dassl.utils.logger",
    "dassl.utils.names",
    "dassl.utils.registry",
    "dassl.utils.results",
)


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def imported_with(code: str) -> set[str]:
    return set(python(f"{code}\nimport sys\nprint(*sys.modules)").split())


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_no_heavy_package(module: str) -> None:
    assert not imported_with(f"import {module}") & set(HEAVY)


def test_light_names_of_utils_import_no_heavy_package() -> None:
    code = "from dassl.utils import Registry, check_availability, read_json, read_results, setup_logger, write_json"
    assert not imported_with(code) & set(HEAVY)


def test_configuration_and_results_start_well_under_a_second() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        python("import dassl, dassl.config, dassl.utils.results")
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.8  # 0.1 s on a free core; torch alone takes longer than this


def test_seeds_and_checkpoints_do_not_import_torchvision() -> None:
    assert "torchvision" not in imported_with("from dassl.utils import set_random_seed, load_checkpoint")


@pytest.mark.slow
@pytest.mark.parametrize("module", ["dassl.data", "dassl.engine", "dassl.data.datasets", "dassl.modeling"])
def test_packages_that_use_torchvision_make_it_importable_first(module: str) -> None:
    found = imported_with(f"import {module}")
    assert {"dassl.torchvision_import", "torchvision"} <= found


WITHOUT_COMPILER = """
import sys
import dassl.data.transforms
from clip.search import load_model
load_model("ViT-Micro/8")
assert not {"torch._dynamo", "torch._dynamo.utils", "sympy", "sklearn"} & set(sys.modules)

import torch, torchvision.ops
found = sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
import torch._dynamo.utils
assert found == torch._dynamo.utils.is_compile_supported("cpu")
assert torch.compile(torch.sin, backend="eager")(torch.zeros(1)) == 0
assert len(list(torchvision.models.resnet18().parameters())) == 62
"""
NEEDS_MORE = """
import sys, torch
from dassl import torchvision_import as t
for name in [name for name in sys.modules if name.startswith("torchvision.ops")] + ["torchvision"]:
    del sys.modules[name]
stand_in = t._without_compiler
def fails():
    with stand_in():
        yield
        from torch._dynamo.utils import something_else
t._without_compiler = t.contextmanager(fails)
assert t.import_torchvision().ops.roi_align and t.import_torchvision() is sys.modules["torchvision"]
import torch._dynamo
assert torch._dynamo.__file__
"""


@pytest.mark.slow
def test_torchvision_comes_without_the_compiler_which_works_when_it_is_needed() -> None:
    python(WITHOUT_COMPILER)


@pytest.mark.slow
def test_a_torchvision_that_needs_more_of_the_compiler_is_imported_with_it() -> None:
    python(NEEDS_MORE)


def test_utils_names_are_those_of_its_modules() -> None:
    modules = [getattr(dassl.utils, name) for name in dassl.utils._NAMES]
    assert dassl.utils.__all__ == sorted(name for module in modules for name in module.__all__)
    for module in modules:
        assert all(getattr(dassl.utils, name) is getattr(module, name) for name in module.__all__)
    assert set(dassl.utils.tools.__all__) <= set(dassl.utils.__all__) <= set(dir(dassl.utils))


def test_star_import_and_submodules_as_attributes() -> None:
    code = "from dassl.utils import *\nimport dassl.utils as utils\n"
    code += "print(set_random_seed.__module__, AverageMeter().count, utils.tools.read_json is read_json)"
    assert python(code).split() == ["dassl.utils.environment", "0", "True"]
    with pytest.raises(AttributeError, match=r"module 'dassl\.utils' has no attribute 'no_such_name'"):
        dassl.utils.no_such_name  # noqa: B018
