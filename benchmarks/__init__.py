"""Measurements: each compares both sides in one process run."""

from dassl import torchvision_import  # noqa: F401  (before anything imports torchvision)
