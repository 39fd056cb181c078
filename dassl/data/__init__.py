from dassl import torchvision_import  # noqa: F401  (before any module of this package imports torchvision)

from .data_manager import DataManager, DatasetWrapper

__all__ = ["DataManager", "DatasetWrapper"]
