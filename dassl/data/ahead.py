"""Batches on a GPU, each copied while it still computes what came before."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from dassl.utils.device import sent

__all__ = ["copied_ahead"]

AHEAD = 2  # batches that the host may be ahead of the GPU, so that copies do not fill its memory


def copied_ahead(batches: Iterable[Any], device: torch.device) -> Iterable[Any]:
    """The batches with their images on ``device``. Without CUDA: the batches as they are.

    A batch is taken from the loader when it is asked for, no earlier, so that random numbers are drawn in the same
    order as without a GPU. By then the device still computes the step before, as long as that one does not wait for its
    result; the copy runs beside it, on a stream of its own, from pinned memory.

    Images are what is of a floating-point type, however nested: views, labelled and unlabelled batches. Labels and
    indices are a few bytes and stay on the host, where a trainer may use them as numbers.
    """
    return _copied(batches, device) if device.type == "cuda" else batches


def _copied(batches: Iterable[Any], device: torch.device) -> Iterator[Any]:
    copies, unfinished = torch.cuda.Stream(device), deque[torch.cuda.Event]()
    for batch in batches:
        computes = torch.cuda.current_stream(device)
        with torch.cuda.stream(copies):
            batch = _moved(batch, device, computes)
        computes.wait_stream(copies)
        yield batch
        done = torch.cuda.Event(blocking=True)
        done.record(computes)
        unfinished.append(done)
        if len(unfinished) > AHEAD:
            unfinished.popleft().synchronize()


def _moved(part: Any, device: torch.device, user: torch.cuda.Stream) -> Any:
    """A batch or a part of it on the device, whose memory is not used again before ``user`` is done with it."""
    if isinstance(part, torch.Tensor):
        if not part.is_floating_point() or part.device.type != "cpu":
            return part
        moved = sent(part, device)
        moved.record_stream(user)
        return moved
    if isinstance(part, dict):
        return {name: _moved(value, device, user) for name, value in part.items()}
    if type(part) in (list, tuple):
        return type(part)(_moved(value, device, user) for value in part)
    return part
