"""How much of a text tower's work fits into memory at once."""

from __future__ import annotations

import os
from pathlib import Path

import torch

# fp32 numbers that one token of width D keeps alive at the peak of a block (qkv, attention, MLP), and for each block
# where the backward pass needs them.
PEAK_FLOATS = 24
KEPT_FLOATS = 22
# Linux: what a container may use, in bytes, or "max".
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
# More tokens in one pass than this gain no speed.
MOST_TOKENS = 32768


def available_bytes(device: torch.device) -> int:
    """Free memory of a GPU, including what PyTorch reserves for reuse. On a CPU a quarter of all memory.

    Neither counts what earlier steps used, so that a run's arithmetic is cut the same way in every step.
    """
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CONTAINER_LIMIT.read_text().strip() if CONTAINER_LIMIT.exists() else "max"
    return min(memory, int(limit) if limit.isdigit() else memory) // 4


def tokens_that_fit(available: int, width: int, layers: int, backward: bool) -> int:
    """Tokens (of `width` numbers) that half of `available` bytes can take through `layers` blocks at once."""
    floats = (PEAK_FLOATS + KEPT_FLOATS * layers * backward) * width
    return max(1, min(available // 2 // (4 * floats), MOST_TOKENS))
