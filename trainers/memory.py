"""How many tokens of a text tower's forward pass fit into memory at once."""

from __future__ import annotations

import os
from pathlib import Path

import torch

# fp32 numbers per token and unit of width: alive at the peak of a block (qkv, attention, MLP), and kept by each block
# for the backward pass.
PEAK_FLOATS = 24
KEPT_FLOATS = 22
# Linux: the memory limit of a container in bytes, or "max".
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
# More tokens than this in one pass are not faster.
MOST_TOKENS = 32768


def available_bytes(device: torch.device) -> int:
    """Free memory of a GPU, including what PyTorch's allocator holds for reuse, or a quarter of the CPU memory.

    An Apple GPU may use what Metal recommends as the most. None of these depends on the memory that earlier steps used,
    so that every step of a run is split in the same way.
    """
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = CONTAINER_LIMIT.read_text().strip() if CONTAINER_LIMIT.exists() else "max"
    return min(memory, int(limit) if limit.isdigit() else memory) // 4


def tokens_that_fit(available: int, width: int, layers: int, backward: bool) -> int:
    """Tokens (of `width` numbers) that half of `available` bytes hold in one pass through `layers` blocks."""
    floats = (PEAK_FLOATS + KEPT_FLOATS * layers * backward) * width
    return max(1, min(available // 2 // (4 * floats), MOST_TOKENS))
