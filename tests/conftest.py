"""Fixtures that several folders of tests use, and the files of tests that count as slow."""

import os
from pathlib import Path

import pytest
import torch

from dassl import torchvision_import  # noqa: F401  (before any test imports torchvision)

BESIDE_OTHERS = "PYTEST_XDIST_WORKER" in os.environ
THREADS = 1 if BESIDE_OTHERS else 2
# Of the processes that tests start; here, trainers leave the number that a test sets
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))


@pytest.fixture(autouse=True)
def _same_threads():
    torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True, scope="session")
def _own_features(tmp_path_factory):
    """Runs keep features of images in a folder of the tests, not in the repository's."""
    os.environ["FEATURES"] = str(tmp_path_factory.mktemp("features"))
    yield
    del os.environ["FEATURES"]


# Files whose tests take five seconds or more together, besides single tests with the mark
SLOW_FILES = {
    "trainers/test_fake_cuda.py",
    *("benchmarks/test_listing.py", "dassl/test_utils.py", "datasets/test_tool.py", "test_console.py"),
    *("clip/test_weights_layouts.py", "dassl/data/test_loader.py", "dassl/test_damaged_resume.py"),
    *("dassl/test_lazy_imports.py", "dassl/test_resume.py", "dassl/test_safe_load.py", "datasets/test_advice.py"),
    *("datasets/test_prepare.py", "datasets/test_published_layouts.py", "experiments/test_launch.py"),
    *("experiments/test_settings.py", "plugins/test_own_config.py", "test_scripts.py", "trainers/test_methods.py"),
    *("trainers/test_published_draws.py", "trainers/test_toys.py", "experiments/test_ray.py"),
    *("experiments/test_page_in_browser.py", "experiments/test_slurm.py", "trainers/test_every_method.py"),
    *("trainers/test_on_base.py", "trainers/test_prograd.py", "trainers/test_promptsrc.py"),
    *("trainers/test_features.py", "trainers/test_accumulate.py", "trainers/test_graphs.py"),
    *("trainers/test_checkpoint_towers.py", "benchmarks/test_models.py", "clip/test_other_clips.py"),
    *("dassl/test_resume_data.py", "dassl/test_ranges.py", "inference/test_export.py", "inference/test_load.py"),
    *("inference/test_predict.py", "inference/test_bundle.py", "test_methods_page.py", "test_train_cli.py"),
    *("test_configs.py", "trainers/test_dept.py", "trainers/test_other_backbones.py"),
}


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marks
def pytest_collection_modifyitems(items):
    folder = Path(__file__).parent
    for item in items:
        if item.path.relative_to(folder).as_posix() in SLOW_FILES:
            item.add_marker("slow")
