"""Engine, configuration, data, optimisation and evaluation behind the trainers: the public API of Dassl."""

from dassl import torchvision_import  # noqa: F401  (before anything imports torchvision)

__version__ = "0.6.3"
