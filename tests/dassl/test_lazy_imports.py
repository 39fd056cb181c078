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
