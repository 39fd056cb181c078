"""Features of images from the frozen image tower.

Letters: N images, B images of a batch, V random views of each, E joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from yacs.config import CfgNode

from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import Datum
from dassl.data.loader import Loader, item_seed
from dassl.data.transforms import build_transform
from dassl.utils.progress import progress

Encode = Callable[[Tensor], Tensor]  # features (B, E) of images (B, 3, H, W)


@torch.no_grad()
def compute_features(cfg: CfgNode, encode: Encode, items: Sequence[Datum], views: int = 0) -> Tensor:
    """Features of images, on the CPU.

    Args:
        encode: the frozen image tower.
        items: the images; the features are in their order.
        views: 0 for the test transform, (N, E); or the number of random views of the training transform, which
            depend on SEED alone, (V, N, E).
    """
    if not views:
        return _encode(encode, _loader(cfg, items, is_train=False), "features")
    loader = _loader(cfg, items, is_train=True)
    loader.items.seeded = True
    of_views = []
    for view in range(views):
        with torch.random.fork_rng(devices=[]):  # the loader draws one number, which all of a view depends on
            torch.manual_seed(item_seed(cfg.SEED, view))
            of_views.append(_encode(encode, loader, f"features, view {view + 1}/{views}"))
    return torch.stack(of_views)


def _loader(cfg: CfgNode, items: Sequence[Datum], is_train: bool) -> Loader:
    """All items in order, through the test or the training transform."""
    size, transform = cfg.DATALOADER.TEST.BATCH_SIZE, build_transform(cfg, is_train=is_train)
    return build_data_loader(cfg, data_source=items, batch_size=size, tfm=transform, is_train=False)


def _encode(encode: Encode, loader: Loader, what: str) -> Tensor:
    """(N, E) of all images of a loader."""
    return torch.cat([encode(batch["img"]).cpu() for batch in progress(loader, what, len(loader))])
