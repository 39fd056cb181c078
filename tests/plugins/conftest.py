"""Models here are so small that a second thread only waits."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread(_two_threads):
    torch.set_num_threads(1)
