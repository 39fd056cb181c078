"""Top-k accuracy."""

from collections.abc import Sequence

import torch

__all__ = ["compute_accuracy"]


def compute_accuracy(
    output: torch.Tensor | tuple | list, target: torch.Tensor, topk: Sequence[int] = (1,)
) -> list[torch.Tensor]:
    """Return the percentage of samples whose label is among the k highest scores, as a tensor (1,) for each k.

    Args:
        output: scores (B, K); if it is a tuple or list, its first element is used.
        target: labels (B,).
    """
    scores = output[0] if isinstance(output, (tuple, list)) else output
    _, pred = scores.topk(max(topk), dim=1)  # (B, max k)
    hits = pred.eq(target.view(-1, 1))  # (B, max k)
    return [hits[:, :k].float().sum().view(1) * (100.0 / target.shape[0]) for k in topk]
