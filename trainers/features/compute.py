"""Computing features of images with the frozen image tower, and what they depend on.

Letters: N images, B images of a batch, V random views of each, E joint width.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from dassl.config import setting
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import Datum
from dassl.data.loader import Loader, item_seed
from dassl.data.transforms import build_transform
from dassl.utils.progress import progress

from .keys import Key, key_of_images, key_of_loader, key_of_tower, key_of_views
from .store import DEFAULT_FOLDER, FeatureStore, given_folder

Encode = Callable[[Tensor], Tensor]  # features (B, E) of images (B, 3, H, W)


class RunFeatures:
    """Features of images from the frozen image tower of a run, which are stored where they can be found again.

    Args:
        tower: the image tower; `encode` of the methods is its forward pass, without gradients.
        precision, device: what it computes in, and on.
        root: the folder of the data set.
        frozen: whether nothing is learned in the tower; otherwise nothing is stored.
    """

    def __init__(
        self, cfg: CfgNode, tower: nn.Module, precision: str, device: torch.device, root: str, frozen: bool = True
    ):
        self.cfg, self.tower, self.precision, self.device, self.root = cfg, tower, precision, device, root
        folder = given_folder() or (given_folder(DEFAULT_FOLDER) if cfg.OUTPUT_DIR else None)
        on = frozen and setting(cfg, "DATALOADER.FEATURES") == "on"
        self.store = FeatureStore(folder) if on and folder else None

    def of_loader(self, encode: Encode, loader: Loader) -> Tensor:
        """(N, E) on the CPU, of the images of an evaluation loader. No random number is drawn."""
        found = self.kept_of_loader(encode, loader)
        return features_of_loader(encode, loader) if found is None else found[0]

    def kept_of_loader(self, encode: Encode, loader: Loader) -> tuple[Tensor, bool] | None:
        """The same, and whether they were stored before; None, without computing them, if they cannot be stored."""
        return self._kept(key_of_loader(loader), loader.items.data_source, partial(features_of_loader, encode, loader))

    def of_views(self, encode: Encode, items: Sequence[Datum], views: int) -> Tensor:
        """(V, N, E) on the CPU, of random views of the training transform, which depend on SEED alone."""
        compute = partial(features_of_views, self.cfg, encode, items, views)
        found = self._kept(key_of_views(self.cfg, views), items, compute)
        return compute() if found is None else found[0]

    def _kept(
        self, key: Key | None, items: Sequence[Datum], compute: Callable[..., Tensor]
    ) -> tuple[Tensor, bool] | None:
        if self.store is None or key is None:
            return None

        def images() -> Key | None:
            return key_of_images(items, self.root, self.cfg.DATASET.NAME)

        if (before := images()) is None:
            return None
        key = {**key, **before, **key_of_tower(self.tower, self.precision, self.device)}
        name = self.cfg.MODEL.BACKBONE.NAME
        backbone = os.path.basename(name) if os.path.isfile(name) else name
        return self.store.fetch(key, backbone, compute, lambda: images() == before)


class FeatureBatches:
    """The batches of an evaluation loader with features (B, E) in place of images, which are not read.

    Args:
        features: (N, E), of the loader's images.
    """

    def __init__(self, features: Tensor, loader: Loader):
        self.features, self.loader = features, loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if self.loader.generator is None:  # with TRAIN.RANDOMNESS published, the loader would draw a number
            torch.empty((), dtype=torch.int64).random_()
        items, size = self.loader.items.data_source, self.loader.batch_size or 1
        for start in range(0, len(items), size):
            some = items[start : start + size]
            yield {
                "features": self.features[start : start + size],
                "label": torch.tensor([item.label for item in some]),
                "impath": [item.impath for item in some],
            }


# ---- computing -------------------------------------------------------------------------------------------------


def evaluation_loader(cfg: CfgNode, items: Sequence[Datum]) -> Loader:
    """All items in order, through the test transform, in the batches of a test."""
    return _loader(cfg, items, is_train=False)


def _loader(cfg: CfgNode, items: Sequence[Datum], is_train: bool) -> Loader:
    size, transform = cfg.DATALOADER.TEST.BATCH_SIZE, build_transform(cfg, is_train=is_train)
    return build_data_loader(cfg, data_source=items, batch_size=size, tfm=transform, is_train=False)


@torch.no_grad()
def features_of_loader(encode: Encode, loader: Loader, alive: Callable[[], None] = lambda: None) -> Tensor:
    """(N, E) on the CPU, of the images of an evaluation loader. No random number is drawn.

    Args:
        encode: the frozen image tower.
        alive: called after each batch.
    """
    with torch.random.fork_rng(devices=[]):
        return _encode(encode, loader, "image features", alive)


@torch.no_grad()
def features_of_views(
    cfg: CfgNode, encode: Encode, items: Sequence[Datum], views: int, alive: Callable[[], None] = lambda: None
) -> Tensor:
    """(V, N, E) on the CPU: random views of the training transform, which depend on SEED alone."""
    loader = _loader(cfg, items, is_train=True)
    loader.items.seeded = True
    of_views = []
    for view in range(views):
        with torch.random.fork_rng(devices=[]):  # the loader draws one number, which all of a view depends on
            torch.manual_seed(item_seed(cfg.SEED, view))
            of_views.append(_encode(encode, loader, f"image features, view {view + 1}/{views}", alive))
    return torch.stack(of_views)


def _encode(encode: Encode, loader: Loader, what: str, alive: Callable[[], None]) -> Tensor:
    """(N, E) of all images of a loader."""
    features = []
    for batch in progress(loader, what, len(loader)):
        features.append(encode(batch["img"]).cpu())
        alive()
    return torch.cat(features)
