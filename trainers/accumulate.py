"""A training step whose batch is computed in pieces, one after the other (TRAIN.ACCUMULATE).

Letters: B images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def split_batch(batch: Mapping[str, Any], pieces: int) -> list[dict[str, Any]]:
    """A batch of B images as at most `pieces` batches, whose sizes differ by one at most; the larger ones are first.

    Args:
        batch: entries are tensors (B, …), lists of B values, and lists of tensors (B, …), one for each view.
    """
    size = len(batch["label"])
    parts: list[dict[str, Any]] = []
    for rows in torch.arange(size).tensor_split(min(pieces, size)):
        some = slice(int(rows[0]), int(rows[-1]) + 1)
        parts.append({key: _rows(value, some, size) for key, value in batch.items()})
    return parts


def _rows(value: Any, some: slice, size: int) -> Any:
    if isinstance(value, list | tuple) and value and all(isinstance(view, Tensor) for view in value):
        return [view[some] for view in value]
    many = isinstance(value, list | tuple) or (isinstance(value, Tensor) and value.dim() > 0)
    return value[some] if many and len(value) == size else value


def accumulated_step(
    trainer: Any, batch: Mapping[str, Any], pieces: int
) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
    """One optimizer step on a batch that is computed in pieces: logits (B, K), labels (B,), loss terms and their sum.

    A term of the batch is the mean of the pieces' terms, weighted with their share of the images. That is the same for
    a term that is a mean over images, and for one that does not depend on them. Of a trainer that `draws_once`, every
    piece gets the same draw.

    Args:
        trainer: a `ClipTrainer`.
    """
    size, logits, labels = len(batch["label"]), [], []
    total: dict[str, Tensor] = {}
    drawn_from = torch.get_rng_state() if trainer.draws_once else None

    def terms_of_pieces() -> Iterator[dict[str, Tensor]]:
        for part in split_batch(batch, pieces):
            if drawn_from is not None:
                torch.set_rng_state(drawn_from)
            image, label = trainer.parse_batch_train(part)
            with trainer.precision.autocast():
                of_part, terms = trainer.losses(image, label)
            terms = {name: len(label) / size * term for name, term in terms.items()}
            logits.append(of_part.detach())
            labels.append(label)
            for name, term in terms.items():
                total[name] = total.get(name, 0) + term.detach()
            yield terms

    loss = trainer.update_in_pieces(terms_of_pieces())
    return torch.cat(logits), torch.cat(labels), total, loss
