"""A GPU that is not there: tensors on it have a shape, a type and a device, but no values.

Operations among CPU tensors are computed as always. What is moved to "cuda", or made there, is a `FakeTensor` of
PyTorch, and so is all that is computed from it. A tensor left on the CPU raises an error as on a GPU, and so do types
that do not fit. No kernel runs.

`torch._subclasses` is not a public interface; what is used of it exists from PyTorch 2.6 to 2.13.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorConverter, FakeTensorMode
from torch.utils._pytree import tree_map

from dassl.engine import simple, state

GPU = torch.device("cuda", 0)
BYTES = 16 * 2**30  # of its memory, all free
aten = torch.ops.aten

# Operations whose floating-point tensors have one type on a GPU, which not every PyTorch checks without values
ONE_TYPE = {
    *(aten.mm, aten.bmm, aten.mv, aten.dot, aten.addmm, aten.addmv, aten.addbmm, aten.baddbmm, aten.matmul),
    *(aten.linear, aten.convolution, aten.native_layer_norm, aten.index_add, aten.index_add_, aten.lerp, aten.lerp_),
}
INDEXING = {aten.index, aten.index_put, aten.index_put_}  # with indices that may be on the CPU


class Layout(NamedTuple):
    """What a fake tensor has."""

    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class _Converter(FakeTensorConverter):
    def set_tensor_memo(self, t: Tensor, v: FakeTensor) -> None:
        """Nothing: a weak reference to a parameter would keep `nn.Module.to` from swapping it."""


class FakeCuda(FakeTensorMode):
    """The mode in which there is such a GPU.

    A value that is read from it is 1, or 0 if PyTorch's gradient scaler reads it (nothing has overflowed).

    CPU builds of PyTorch abort where their C++ code differentiates on "cuda", or indexes there. That code is told
    "meta" therefore, and Python code "cuda". Only autocast, which casts what it finds on "cuda", is told so, too, as
    long as nothing is differentiated: it has no effect on a step with gradients.

    Attributes:
        waits: where the program waited for the GPU, as it read a value or copied one from the CPU.
        autocasts: for each `torch.autocast("cuda")` that is entered, whether it is on.
    """

    avoid_device_init = not torch.cuda.is_available()  # found before `is_available` is replaced
    known: dict[Any, Any] = {}  # results of operations by their arguments: PyTorch's own cache takes twice as long

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.fake_tensor_converter = _Converter(copy_data=False, export=False)
        self.cache_enabled = False
        self.waits: list[str] = []
        self.autocasts: list[bool] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.prim.device.default:
            return self._device_told(args[0])
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        if device is not None and device.type == "meta":  # of a tensor on the GPU, as C++ code was told
            device = kwargs["device"] = GPU
        tensors = _tensors(args)
        fake = [isinstance(tensor, FakeTensor) for tensor in tensors]
        if not any(fake):
            if device is None or device.type != "cuda":
                return func(*args, **kwargs)
            if func is aten._to_copy.default:
                if not kwargs.get("non_blocking"):
                    self._note()
                return FakeTensor(self, torch.empty_like(args[0], dtype=kwargs.get("dtype"), device="meta"), device)
        if func is aten._local_scalar_dense.default:
            return self._read(args[0])
        if not all(fake):
            args = tree_map(self._as_fake, args)
        if func.overloadpacket in INDEXING and {tensor.device.type for tensor in tensors} == {"cpu", "cuda"}:
            self._note()
        if func.overloadpacket in ONE_TYPE:
            _check_types(func, tensors)
        if func is aten.bincount.default:  # its length is only known where minlength says so
            self._note()
            return self._made(Layout(torch.Size([kwargs.get("minlength", args[-1])]), (1,), torch.int64, GPU))
        if func is aten.nonzero.default:  # taken to be all
            self._note()
            return self._made(Layout(torch.Size([args[0].numel(), args[0].dim()]), (1, 1), torch.int64, GPU))
        if func._schema.is_mutable:
            return self.dispatch(func, types, args, kwargs)
        key = (func, torch.is_grad_enabled(), self.in_kernel_invocation, _key(args), _key(tuple(kwargs.items())))
        if self.known.get(key) is not None:
            return self._made(self.known[key])
        before, result = len(self.waits), self.dispatch(func, types, args, kwargs)
        if len(self.waits) == before:
            self.known[key] = _layout(result)
        return result

    def _device_told(self, tensor: FakeTensor) -> torch.device:
        """The device of a tensor for C++ code. An autocast that is on is off while it looks at its arguments."""
        on = bool(self.autocasts) and self.autocasts[-1] and not torch.is_grad_enabled()
        if tensor.fake_device.type != "cuda" or (on and not torch.is_autocast_enabled("cuda")):
            return tensor.fake_device
        return torch.device("meta")

    def _as_fake(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or isinstance(leaf, FakeTensor):
            return leaf
        return FakeTensor(self, torch.empty_like(leaf, device="meta"), GPU if leaf.is_meta else leaf.device)

    def _made(self, layout: Any) -> Any:
        if not isinstance(layout, Layout):
            return type(layout)([self._made(part) for part in layout])
        shape, stride, dtype, device = layout
        return FakeTensor(self, torch.empty_strided(shape, stride, dtype=dtype, device="meta"), device)

    def _read(self, tensor: Tensor) -> bool | int | float:
        by_scaler = self._note()
        if tensor.dtype == torch.bool:
            return True
        return (float if tensor.dtype.is_floating_point else int)(not by_scaler)

    def _note(self) -> bool:
        """Note where the program waits; returns whether the gradient scaler does.

        Neither that is noted, nor the move of a module, which is not repeated in every step.
        """
        frame, caller = sys._getframe(1), ""
        while frame is not None:
            file = frame.f_code.co_filename.replace("\\", "/")
            by_scaler = file.endswith("torch/amp/grad_scaler.py")
            if by_scaler or (file.endswith("torch/nn/modules/module.py") and frame.f_code.co_name == "to"):
                return by_scaler
            if not caller and "/torch/" not in file and frame.f_code.co_filename != __file__:
                caller = f"{file}:{frame.f_lineno} ({frame.f_code.co_name})"
            frame = frame.f_back  # type: ignore[assignment]
        self.waits.append(caller)
        return False


def _tensors(args: Sequence[Any]) -> list[Tensor]:
    """Those among an operation's arguments; none has them in keywords."""
    lists = (arg if isinstance(arg, (list, tuple)) else [arg] for arg in args)
    return [leaf for leaves in lists for leaf in leaves if isinstance(leaf, Tensor)]


def _key(arg: Any) -> Any:
    if isinstance(arg, FakeTensor):
        return _layout(arg)
    return (type(arg), *map(_key, arg)) if isinstance(arg, (list, tuple)) else (type(arg), arg)


def _layout(result: Any) -> Any:
    """A layout for each tensor of a result; None for a result with anything else in it."""
    if isinstance(result, FakeTensor):
        return Layout(result.shape, result.stride(), result.dtype, result.fake_device)
    parts = [_layout(part) for part in result] if isinstance(result, (list, tuple)) else [None]
    return None if None in parts else parts if isinstance(result, list) else tuple(parts)


def _check_types(func: Any, tensors: Sequence[Tensor]) -> None:
    found = sorted({str(tensor.dtype) for tensor in tensors if tensor.is_floating_point()})
    if len(found) > 1:
        raise RuntimeError(f"{func} of tensors of different types: {', '.join(found)}")


def _entering(machine: FakeCuda, enter: Callable[..., Any]) -> Callable[..., Any]:
    def __enter__(autocast: Any) -> Any:
        if autocast.device == "cuda":
            machine.autocasts.append(autocast._enabled)
        return enter(autocast)

    return __enter__


def _leaving(machine: FakeCuda, leave: Callable[..., Any]) -> Callable[..., Any]:
    def __exit__(autocast: Any, *error: Any) -> Any:
        if autocast.device == "cuda":
            machine.autocasts.pop()
        return leave(autocast, *error)

    return __exit__


@contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """For the block, PyTorch finds such a GPU. Its name is "cuda:0": without a number, CPU builds ask for one."""
    machine = FakeCuda()
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    with pytest.MonkeyPatch.context() as patch:
        if machine.avoid_device_init:
            patch.setattr(torch.cuda, "is_available", lambda: True)
            patch.setattr(torch.cuda, "device_count", lambda: 1)
            patch.setattr(simple, "activate", lambda device: None)
            patch.setattr(torch.cuda, "memory_reserved", lambda device=None: 0)
            patch.setattr(torch.cuda, "memory_allocated", lambda device=None: 0)
            patch.setattr(torch.cuda, "mem_get_info", lambda device=None: (BYTES, BYTES))
            for name in ("init_cuda_context", "init_gpu_context"):  # its earlier and its later name
                if hasattr(fake_tensor, name):
                    patch.setattr(fake_tensor, name, lambda *args: None)
        patch.setattr(torch.autocast, "__enter__", _entering(machine, torch.autocast.__enter__))
        patch.setattr(torch.autocast, "__exit__", _leaving(machine, torch.autocast.__exit__))
        patch.setattr(state, "fingerprint", lambda tensor: tuple(tensor.shape))  # there are no values
        torch.__future__.set_swap_module_params_on_conversion(True)  # a parameter that moves stays the same object
        try:
            with machine:
                yield machine
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swapped)
