"""How much work is done at once follows from the memory, not from what earlier steps left behind."""

import torch

from trainers.memory import KEPT_FLOATS, MOST_TOKENS, PEAK_FLOATS, available_bytes, tokens_that_fit


def test_memory_that_pytorch_holds_for_reuse_is_free(monkeypatch):
    """Of 10 bytes free on the GPU and 6 held by PyTorch, of which 2 are in use, 14 are available."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 6)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2)
    assert available_bytes(torch.device("cuda")) == 14


def test_the_cpu_s_share_is_always_the_same():
    assert available_bytes(torch.device("cpu")) == available_bytes(torch.device("cpu")) > 2**20


def test_tokens_take_half_of_the_memory():
    """Of fp32 numbers, 4 bytes each, a row needs its block's peak, and what every block keeps for the backward pass."""
    a_row = 4 * 512 * (PEAK_FLOATS + 12 * KEPT_FLOATS)
    assert tokens_that_fit(2 * 100 * a_row, 512, 12, backward=True) == 100
    assert tokens_that_fit(2 * 100 * 4 * 512 * PEAK_FLOATS, 512, 12, backward=False) == 100
    assert tokens_that_fit(1, 512, 12, backward=True) == 1
    assert tokens_that_fit(2**50, 512, 12, backward=True) == MOST_TOKENS
