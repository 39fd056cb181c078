"""Tiny models on a machine that others use too: a second thread would mostly wait."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread(_same_threads):
    torch.set_num_threads(1)
