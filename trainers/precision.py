"""The precision that the frozen towers compute in. Learned parameters are always fp32."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from clip.model import convert_weights
from dassl.config.checks import one_of

CHOICES = ("fp32", "fp16", "bf16", "amp")
PRECISIONS = one_of(*CHOICES)  # the values of a trainer's PREC


class Precision:
    """One of `CHOICES` on one device.

    fp32, fp16 and bf16 store the tower weights in that precision and compute in it; amp keeps fp32 weights under
    autocast (fp16 with loss scaling on a GPU, bf16 on a CPU). On a CPU fp16 runs as fp32, with a printed notice.

    Raises:
        ValueError: `name` is not one of the choices.
    """

    def __init__(self, name: str, device: torch.device):
        if name not in CHOICES:
            raise ValueError(f"PREC is {name!r}, expected one of {', '.join(CHOICES)}")
        if name == "fp16" and device.type == "cpu":
            print("PREC fp16 runs as fp32 on the CPU")
            name = "fp32"
        self.name, self.device = name, device

    def cast(self, clip_model: nn.Module) -> None:
        """Store the frozen tower weights in this precision; call it before anything learned is added to the model."""
        dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(self.name)
        if dtype is not None:
            convert_weights(clip_model, dtype)

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context that forward passes run in."""
        if self.name != "amp":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.float16 if self.device.type == "cuda" else torch.bfloat16)

    def grad_scaler(self) -> torch.amp.GradScaler | None:
        """The loss scaler for amp on a GPU; None otherwise."""
        return torch.amp.GradScaler("cuda") if self.name == "amp" and self.device.type == "cuda" else None
