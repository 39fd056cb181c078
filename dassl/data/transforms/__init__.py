from .transforms import AVAI_CHOICES, INTERPOLATION_MODES, build_transform, normalization

__all__ = ["AVAI_CHOICES", "INTERPOLATION_MODES", "build_transform", "normalization"]
