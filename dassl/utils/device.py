"""The device of a run: which one the settings ask for, whether it is there, and what torch knows about it.

This is the only place that chooses a device. What the kinds of devices have under different names, or not at all, is
asked for here, too.
"""

import os
import platform
import sys
from typing import Any

import torch

from dassl.config.defaults import setting
from dassl.utils.names import DEVICES, closest_device, is_device

__all__ = [
    "activate",
    "choose_device",
    "device_name",
    "device_named",
    "empty_cache",
    "peak_memory_bytes",
    "reset_peak_memory",
    "sent",
    "synchronize",
]


def choose_device(cfg: Any) -> torch.device:
    """The device of a configuration: DEVICE, whatever USE_CUDA is; or the GPU if there is one and both leave it open.

    An Apple GPU is used only where DEVICE names it: no run of this project on one has been measured.

    Raises:
        ValueError: see :func:`device_named`.
    """
    name = setting(cfg, "DEVICE")
    return device_named("cpu" if name == "auto" and not cfg.USE_CUDA else name)


def device_named(name: str) -> torch.device:
    """The device of a name: auto (a GPU of CUDA if there is one, else the CPU), cpu, cuda, cuda:N, mps.

    Raises:
        ValueError: an unknown name, or there is no such device here; the message says what there is.
    """
    if not is_device(name):
        raise ValueError(
            f"device '{name}' is not available{closest_device(name)} It should be one of: {', '.join(DEVICES)}"
        )
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    problem = _without_cuda(name) if name.startswith("cuda") else _without_mps() if name == "mps" else ""
    if problem:
        raise ValueError(f"device is {name}, but PyTorch finds no {problem}")
    return torch.device(name)


def _without_cuda(name: str) -> str:
    """What is missing for a GPU of CUDA, and what to do; "" if it is there."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.cuda.is_available():
        if not (torch.version.cuda or torch.version.hip):
            why = f"PyTorch {torch.__version__} is built without CUDA. Install one that is built with it"
        elif visible is not None:
            why = f"CUDA_VISIBLE_DEVICES is '{visible}'. Does it hide the GPUs? Unset it"
        else:
            why = "nvidia-smi shows whether there is one, with a driver"
        return f"GPU: {why}, or use cpu"
    count, number = torch.cuda.device_count(), int(name.partition(":")[2] or 0)
    if number < count:
        return ""
    there = "one GPU, cuda:0" if count == 1 else f"{count} GPUs, cuda:0 to cuda:{count - 1}"
    renumbered = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is '{visible}', whose GPUs are counted from 0)"
    return f"GPU of that number: there {'is' if count == 1 else 'are'} {there}{renumbered}"


def _without_mps() -> str:
    """What is missing for an Apple GPU, and what to do; "" if it is there."""
    if torch.backends.mps.is_available():
        return ""
    if not torch.backends.mps.is_built():
        why = f"PyTorch {torch.__version__} is built without MPS, which needs macOS on a Mac with an Apple GPU"
    else:
        why = f"macOS {platform.mac_ver()[0]} is too old for it, or this Mac has none that Metal supports"
    return f"Apple GPU: {why}. Use cpu"


def activate(device: torch.device) -> None:
    """Make a GPU the current one, which `.cuda()` and queries that name no device mean, and reset its peak memory."""
    if device.type == "cuda":
        torch.cuda.init()  # the memory of a GPU that is not initialized cannot be asked for
        if device.index is not None:
            torch.cuda.set_device(device)
    reset_peak_memory(device)


def device_name(device: torch.device) -> str:
    """Name of the GPU, or cpu with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        name = getattr(torch.backends.mps, "get_name", platform.machine)()  # PyTorch 2.6 does not have it
        return f"mps ({name})"
    return f"cpu ({torch.get_num_threads()} threads)"


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of a batch on the device. With CUDA the host does not wait for the copy.

    Elsewhere it does: without pinned memory the batch may be freed before the copy is done.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def empty_cache(device: torch.device) -> None:
    """Give the memory back that PyTorch keeps for later tensors of a GPU."""
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()


def reset_peak_memory(device: torch.device) -> None:
    """Count the peak of a GPU's memory from now on. Those of an Apple GPU and of the process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int:
    """The peak memory of this process: allocated on the GPU, or resident on a CPU.

    MPS counts no peak: it is what Metal has allocated by now, which includes what PyTorch keeps for later tensors.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
