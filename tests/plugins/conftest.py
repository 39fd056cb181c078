"""What every test of plug-ins needs."""

import pytest
import torch

from dassl.engine import TRAINER_REGISTRY


@pytest.fixture(autouse=True)
def _one_thread(_same_threads):
    """Models here are so small that a second thread only waits."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _registry_as_it_was(monkeypatch: pytest.MonkeyPatch):
    """The names that plug-ins register leave the registry again."""
    monkeypatch.setattr(TRAINER_REGISTRY, "_obj_map", dict(TRAINER_REGISTRY._obj_map))
