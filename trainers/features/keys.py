"""What features of images depend on, as plain values: the keys of the store.

Letters: B images of a batch, V random views of each image.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import PIL
import torch
import torchvision
import torchvision.transforms as T
from torch import nn
from torch.utils.data import SequentialSampler
from yacs.config import CfgNode

import clip.layout
import clip.resnet
import clip.transformer
import dassl.data.transforms.transforms
import dassl.utils.images
from dassl.config import setting
from dassl.data.data_manager import DatasetWrapper
from dassl.data.datasets import Datum
from dassl.data.loader import Loader
from dassl.data.transforms import normalization
from dassl.engine.state import fingerprint
from dassl.utils import device_name

Key = dict[str, Any]

# The code that makes features of a file: with other code, they are computed again
CODE = (clip.layout, clip.resnet, clip.transformer, dassl.data.transforms.transforms, dassl.utils.images)
# Transforms that are not random and whose repr has all of their parameters
PLAIN_STEPS = (T.Resize, T.CenterCrop, T.ToTensor, T.Normalize)


def key_of_loader(loader: Loader) -> Key | None:
    """What the images of an evaluation loader are: their transform and their batches; None unless that is known."""
    items, dataset = loader.items, loader.items.dataset
    steps = getattr(getattr(dataset, "transform", None), "transforms", [None])
    plain = type(loader) is Loader and type(dataset) is DatasetWrapper and type(loader.sampler) is SequentialSampler
    if not plain or items.is_train or items.skip_bad or not all(type(step) in PLAIN_STEPS for step in steps):
        return None
    transform = [repr(step) for step in steps]
    upright = bool(setting(dataset.cfg, "INPUT.EXIF_ORIENTATION"))
    return {"transform": transform, "upright": upright, "batch_size": loader.batch_size, "views": 0}


def key_of_views(cfg: CfgNode, views: int) -> Key | None:
    """What the random views of images are; None if they cannot be repeated."""
    published = setting(cfg, "TRAIN.RANDOMNESS") == "published"
    if cfg.SEED < 0 or setting(cfg, "DATASET.ON_BAD_IMAGE") == "skip":
        return None
    drawn = {"seed": cfg.SEED, "workers": cfg.DATALOADER.NUM_WORKERS if published else None}
    size = cfg.DATALOADER.TEST.BATCH_SIZE
    transform = {**cfg.INPUT, "normalize": repr(normalization(cfg))}
    return {"transform": transform, "batch_size": size, "views": views, **drawn}


def key_of_tower(tower: nn.Module, precision: str, device: torch.device) -> Key:
    """What the image tower is and computes in.

    Bits of a product of matrices depend on the number of its rows (the batch), on the number of threads and on the
    instructions that the processor has; those of libraries are taken to depend on their versions.
    """
    if device.type == "cuda":
        cuda = [torch.version.cuda, torch.backends.cudnn.version(), torch.get_float32_matmul_precision()]
        computer = [device_name(device), *cuda]
    elif device.type == "mps":
        computer = [device_name(device), platform.mac_ver()[0]]
    else:
        computer = [device.type, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
    return {
        "tower": _tower_digest(tower),
        "precision": precision,
        "computer": computer,
        "versions": [torch.__version__, torchvision.__version__, PIL.__version__],
        "code": _digest(*(Path(module.__file__ or "").read_bytes() for module in CODE)),
    }


def key_of_images(items: Sequence[Datum], root: str, dataset: str) -> Key | None:
    """Which images there are: paths below `root`, sizes and times; None if one of them is not a file."""
    prefix = os.path.join(root, "")
    lines = []
    for item in items:
        try:
            stat = os.stat(item.impath)
        except (OSError, ValueError, TypeError):
            return None
        lines.append(f"{item.impath.removeprefix(prefix)}\0{stat.st_size}\0{stat.st_mtime_ns}")
    text = "\n".join(lines).replace(os.sep, "/")
    return {"dataset": dataset, "images": len(items), "list": _digest(text.encode("utf-8", "surrogateescape"))}


_digests: WeakKeyDictionary[nn.Module, tuple[Any, str]] = WeakKeyDictionary()


def _tower_digest(tower: nn.Module) -> str:
    """A digest of the tower's architecture and weights, made once while the weights are not changed."""
    tensors = dict([*tower.named_parameters(), *tower.named_buffers()])
    state = [(tensor.data_ptr(), tensor._version) for tensor in tensors.values()]
    if tower not in _digests or _digests[tower][0] != state:
        marks = [f"{name} {tensor.dtype} {fingerprint(tensor)}" for name, tensor in tensors.items()]
        parts = [f"{name} {type(module).__name__} {_settings(module)}" for name, module in tower.named_modules()]
        _digests[tower] = state, _digest("\n".join(marks + parts).encode())
    return _digests[tower][1]


def _settings(module: nn.Module) -> Mapping[str, Any]:
    """A module's plain attributes, such as the number of heads."""
    kinds = (bool, int, float, str, tuple, type(None))
    return {name: value for name, value in vars(module).items() if isinstance(value, kinds) and name != "training"}


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
