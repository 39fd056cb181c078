"""Features of images from the frozen image tower, computed once and kept on disk (docs/FEATURES.md).

This module imports nothing, so that ``python -m trainers.features`` starts quickly.
"""
