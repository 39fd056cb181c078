"""What a run depends on besides its configuration: versions, devices, random seeds."""

import platform
import random
import sys

import numpy as np
import PIL
import torch

from dassl.utils.cpu import cores
from dassl.utils.device import device_name, device_named

__all__ = ["collect_env_info", "describe_device", "set_random_seed"]


def set_random_seed(seed: int) -> None:
    """Seed the generators of Python, numpy and torch (on every device)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def collect_env_info() -> str:
    """Return the versions and devices of this machine, as several lines."""
    from dassl.torchvision_import import import_torchvision  # seeds alone need no torchvision

    cuda = torch.version.cuda or "not built in"
    lines = [
        f"Python: {platform.python_version()} ({sys.executable})",
        f"Platform: {platform.platform()}",
        f"Cores: {cores()}",
        f"PyTorch: {torch.__version__} (CUDA {cuda}, {torch.get_num_threads()} threads)",
        f"torchvision: {import_torchvision().__version__}",
        f"numpy: {np.__version__}",
        f"Pillow: {PIL.__version__}",
    ]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        lines.append(f"GPU {index}: {properties.name}, {properties.total_memory / 2**30:.1f} GiB")
    if torch.backends.mps.is_available():
        lines.append(f"Apple GPU: {device_name(torch.device('mps'))}")
    return "\n".join(lines)


def describe_device(use_cuda: bool, name: str = "auto") -> str:
    """Return the device that a run uses with this ``USE_CUDA`` and ``DEVICE``, and why, as one line.

    Raises:
        ValueError: there is no such device.
    """
    if name != "auto":
        return f"Device: {device_name(device_named(name))} (DEVICE is {name})"
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        return f"Device: GPU ({name})" if use_cuda else f"Device: CPU (USE_CUDA is False; there is a GPU, {name})"
    if not use_cuda:
        return "Device: CPU (USE_CUDA is False)"
    if torch.backends.mps.is_available():
        return "Device: CPU (DEVICE mps, or the flag --device mps, uses the Apple GPU)"
    if torch.version.cuda or torch.version.hip:
        return "Device: CPU (no GPU was found: is there one, with a driver, in CUDA_VISIBLE_DEVICES?)"
    return f"Device: CPU (PyTorch {torch.__version__} is built without support for GPUs)"
