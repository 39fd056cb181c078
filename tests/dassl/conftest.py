"""Models here are so small that a second thread only waits."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread_again(_same_threads):
    torch.set_num_threads(1)
