"""How much work is done at once depends on the memory of the machine, not on what earlier steps used."""

import os

import pytest
import torch

from trainers import memory
from trainers.memory import KEPT_FLOATS, MOST_TOKENS, PEAK_FLOATS, available_bytes, tokens_that_fit


def test_memory_that_pytorch_holds_for_reuse_is_free(monkeypatch):
    """Of 10 bytes free on the GPU and 6 held by PyTorch, of which 2 are in use, 14 are available."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 6)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2)
    assert available_bytes(torch.device("cuda")) == 14


@pytest.mark.parametrize(("limit", "expected"), [(None, 1024), ("max\n", 1024), ("800\n", 200), ("9000\n", 1024)])
def test_a_quarter_of_the_cpu_memory_is_available(monkeypatch, tmp_path, limit, expected):
    """Of 4 pages of 1,024 bytes, or of the container's limit if that is lower."""
    pages = {"SC_PAGE_SIZE": 1024, "SC_PHYS_PAGES": 4}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    monkeypatch.setattr(memory, "CONTAINER_LIMIT", tmp_path / "memory.max")
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit)
    assert available_bytes(torch.device("cpu")) == expected


def test_tokens_take_half_of_the_memory():
    """A token needs the peak of its block and what every block keeps for the backward pass, in fp32 (4 bytes each)."""
    per_token = 4 * 512 * (PEAK_FLOATS + 12 * KEPT_FLOATS)
    assert tokens_that_fit(2 * 100 * per_token, 512, 12, backward=True) == 100
    assert tokens_that_fit(2 * 100 * 4 * 512 * PEAK_FLOATS, 512, 12, backward=False) == 100
    assert tokens_that_fit(1, 512, 12, backward=True) == 1
    assert tokens_that_fit(2**50, 512, 12, backward=True) == MOST_TOKENS
