"""Import torchvision, also where its compiled operators do not match the installed torch.

A CPU-only torch beside a CUDA build of torchvision cannot load torchvision's operator library, and then
``import torchvision`` stops at "operator torchvision::nms does not exist". Everything used here (transforms,
ResNets) is plain Python and needs no such operator, so the two missing names are declared and the import repeated.
"""

import sys

import torch

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a Library takes its operators along when it is collected


def import_torchvision() -> None:
    """Import torchvision; the normal import is tried first.

    Raises:
        RuntimeError: the import fails for another reason than undeclared operators.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
    else:
        return
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for schema in _OPERATORS:
        library.define(schema)
    _declared.append(library)
    import torchvision  # noqa: F401


import_torchvision()
