"""Benchmarks. Each measures both sides in one process."""

from dassl import torchvision_import  # noqa: F401  (before anything imports torchvision)
