from dassl import torchvision_import  # noqa: F401  (before .resnet imports torchvision)
from dassl.modeling.backbone import resnet  # noqa: F401  (registers)
from dassl.modeling.backbone.build import BACKBONE_REGISTRY, Backbone, build_backbone

__all__ = ["BACKBONE_REGISTRY", "Backbone", "build_backbone"]
