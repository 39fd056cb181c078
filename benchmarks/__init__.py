"""Measurements: each compares both sides in one process run."""

import dassl  # noqa: F401  (before anything imports torchvision)
