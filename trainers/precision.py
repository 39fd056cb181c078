"""The precision that the frozen towers compute in. Learned parameters are always fp32."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

from clip.model import convert_weights
from dassl.config.checks import one_of

CHOICES = ("fp32", "fp16", "bf16", "amp")
PRECISIONS = one_of(*CHOICES)  # the values of a trainer's PREC


def cpu_has_bf16() -> bool:
    """Whether PyTorch's matrix products in bf16 on this machine's CPU use instructions made for vectors."""
    try:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()  # what they ask themselves
    except (AttributeError, RuntimeError):  # a PyTorch without oneDNN
        return True


class Precision:
    """One of `CHOICES` on one device.

    fp32, fp16 and bf16 store the tower weights in that precision and compute in it; amp keeps fp32 weights under
    autocast (fp16 with loss scaling on a GPU, bf16 on a CPU). On a CPU fp16 runs as fp32, with a printed notice. On an
    Apple GPU the versions of macOS and PyTorch decide on what there is, which is tried.

    Raises:
        ValueError: `name` is not one of the choices, or the Apple GPU cannot compute so.
    """

    def __init__(self, name: str, device: torch.device):
        if name not in CHOICES:
            raise ValueError(f"PREC is {name!r}, expected one of {', '.join(CHOICES)}")
        if name == "fp16" and device.type == "cpu":
            print("PREC fp16 runs as fp32 on the CPU")
            name = "fp32"
        if name in ("bf16", "amp") and device.type == "cpu" and not cpu_has_bf16():
            print(f"PREC {name} computes in bf16, slowly: this processor has no instructions for it. Use PREC fp32")
        self.name, self.device = name, device
        self.dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(name, torch.float32)  # of the tower weights
        if device.type == "mps" and name != "fp32":
            self._try()

    def _try(self) -> None:
        """A training step of a few numbers; raises a ValueError if the device lacks the type or an operation."""
        try:
            tower = torch.ones(2, 2, device=self.device, dtype=self.dtype)
            learned = torch.ones(2, 2, device=self.device, requires_grad=True)
            optim, scaler = torch.optim.SGD([learned], lr=0.1), self.grad_scaler()
            with self.autocast():
                loss = (learned.to(self.dtype) @ tower).float().sum()
            if scaler is None:
                loss.backward()
                optim.step()
            else:
                scaler.scale(loss).backward()
                scaler.step(optim)
                scaler.update()
        except (RuntimeError, TypeError) as error:
            reason = str(error).strip().partition(". ")[0][:200]
            raise ValueError(
                f"PREC {self.name}: PyTorch {torch.__version__} cannot compute so on {self.device} ({reason}). "
                "Use PREC fp32"
            ) from error

    def cast(self, clip_model: nn.Module) -> None:
        """Store the frozen tower weights in this precision; call it before anything learned is added to the model."""
        if self.dtype != torch.float32:
            convert_weights(clip_model, self.dtype)

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context that forward passes run in."""
        if self.name != "amp":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.device.type == "cpu" else torch.float16)

    def grad_scaler(self) -> torch.amp.GradScaler | None:
        """The loss scaler for amp on a GPU; None otherwise."""
        return torch.amp.GradScaler(self.device.type) if self.name == "amp" and self.device.type != "cpu" else None
