"""Import torchvision: quickly, and even if its compiled operators do not match the installed torch.

A CPU-only torch cannot load the operator library of a CUDA build of torchvision; ``import torchvision`` then fails
with "operator torchvision::nms does not exist". The transforms and ResNets used here are plain Python and need no such
operator, so the two missing names are declared and the import is repeated.

torchvision takes one function from torch's compiler, ``is_compile_supported``, for an operator on boxes that nothing
here calls. Importing the compiler takes as long as half of torch; a stand-in, which imports it when it is called, takes
the place of its module while torchvision is imported.

Import this module before torchvision. ``dassl.data`` and ``dassl.modeling.backbone`` do so for all of their modules.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # the operators disappear when their Library is garbage-collected
_COMPILER = ("torch._dynamo", "torch._dynamo.utils")


def import_torchvision() -> ModuleType:
    """Return torchvision; the normal import is tried first.

    Raises:
        RuntimeError: the import fails for another reason than undeclared operators.
    """
    try:
        return _import()
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for schema in _OPERATORS:
        library.define(schema)
    _declared.append(library)
    return _import()


def _import() -> ModuleType:
    """torchvision, if possible without torch's compiler."""
    if not any(name in sys.modules for name in ("torchvision", *_COMPILER)):
        try:
            with _without_compiler():
                import torchvision
        except (ImportError, AttributeError):  # it needs more of the compiler than the stand-in has
            pass
    import torchvision

    return torchvision


@contextmanager
def _without_compiler() -> Iterator[None]:
    """While the block runs, the modules of torch's compiler are stand-ins with one function."""

    def is_compile_supported(device_type: str) -> bool:
        from torch._dynamo.utils import is_compile_supported

        return is_compile_supported(device_type)

    package, utils = map(ModuleType, _COMPILER)
    package.utils, utils.is_compile_supported = utils, is_compile_supported  # type: ignore[attr-defined]
    sys.modules.update(zip(_COMPILER, (package, utils), strict=True))
    try:
        yield
    finally:
        for name in _COMPILER:
            del sys.modules[name]


import_torchvision()
