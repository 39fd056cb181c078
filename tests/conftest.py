"""Fixtures that several folders of tests use."""

import pytest
import torch

from dassl import torchvision_import  # noqa: F401  (before any test imports torchvision)


@pytest.fixture(autouse=True)
def _two_threads():
    torch.set_num_threads(2)
