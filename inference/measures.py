"""What a classifier takes: parameters, floating-point operations, time and memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dassl.engine.report import count_parameters
from dassl.utils import device_name, peak_memory_bytes

from .classifier import Classifier


def measure(classifier: Classifier, batches: Sequence[int], seconds: float) -> dict[str, Any]:
    """Plain values, the parameters as results.json has them, times in seconds.

    Args:
        batches: sizes of the batches whose speed is measured, on random images.
        seconds: time for each of them, after one batch that is not measured.
    """
    cfg, trainer = classifier.run.cfg, classifier.trainer
    parameters = count_parameters([trainer.model])
    flops = count_flops(classifier)
    return {
        "run": str(classifier.run.folder),
        "trainer": cfg.TRAINER.NAME,
        "backbone": cfg.MODEL.BACKBONE.NAME,
        "precision": trainer.precision.name,
        "device": device_name(classifier.device),
        "classes": len(classifier.classnames),
        "parameters": {key.removesuffix("_parameters"): value for key, value in parameters.items()},
        "flops": flops,
        "speed": [speed(classifier, size, seconds) for size in batches],
        "peak_memory_bytes": peak_memory_bytes(classifier.device),
        "memory": "of this process, resident" if classifier.device.type == "cpu" else "allocated on the GPU",
    }


def random_images(classifier: Classifier, count: int) -> Tensor:
    """(count, 3, H, W)"""
    return torch.zeros(count, 3, *classifier.run.cfg.INPUT.SIZE).uniform_(-2, 2, generator=torch.Generator())


def count_flops(classifier: Classifier) -> dict[str, int]:
    """Operations for one image whose texts are at hand, for the texts, and for both.

    Where each image has texts of its own, they belong to the image. Matrix products and convolutions count, which is
    nearly all there is: each multiplication and each addition as one.
    """
    image = random_images(classifier, 1)
    classifier.trainer.set_model_mode("eval")  # forgets the text features
    both, alone = (_flops(classifier, image) for _ in range(2))
    return {"image": alone, "texts": both - alone, "image_and_texts": both}


def _flops(classifier: Classifier, image: Tensor) -> int:
    # In its definition attention is two matrix products; fused kernels are not counted on every device
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        classifier.logits(image)
    return counter.get_total_flops()


def speed(classifier: Classifier, batch: int, seconds: float) -> dict[str, Any]:
    """Images per second by the median time of a batch on the device, with the texts at hand."""
    images = random_images(classifier, batch).to(classifier.device)
    times = [_seconds(classifier, images)]
    end = time.perf_counter() + seconds
    while len(times) < 4 or time.perf_counter() < end:
        times.append(_seconds(classifier, images))
    median = statistics.median(times[1:])
    return {"batch": batch, "seconds": median, "images_per_second": batch / median, "batches": len(times) - 1}


def _seconds(classifier: Classifier, images: Tensor) -> float:
    start = time.perf_counter()
    classifier.logits(images).cpu()  # which waits for the device
    return time.perf_counter() - start
