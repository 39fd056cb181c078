"""Benchmarks. Each measures both sides in one process."""

from dassl.utils.cpu import wait_briefly

wait_briefly()  # as runs do, before anything imports torch

from dassl import torchvision_import  # noqa: E402, F401  (before anything imports torchvision)
