"""Import torchvision, even if its compiled operators do not match the installed torch.

A CPU-only torch cannot load the operator library of a CUDA build of torchvision; ``import torchvision`` then fails
with "operator torchvision::nms does not exist". The transforms and ResNets used here are plain Python and need no such
operator, so the two missing names are declared and the import is repeated.

Import this module before torchvision. ``dassl.data`` and ``dassl.modeling.backbone`` do so for all of their modules.
"""

import sys
from types import ModuleType

import torch

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # the operators disappear when their Library is garbage-collected


def import_torchvision() -> ModuleType:
    """Return torchvision; the normal import is tried first.

    Raises:
        RuntimeError: the import fails for another reason than undeclared operators.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    else:
        return torchvision
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for schema in _OPERATORS:
        library.define(schema)
    _declared.append(library)
    import torchvision

    return torchvision


import_torchvision()
