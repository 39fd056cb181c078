"""Images for the pretraining: batches of RGBA emoji on drawn backgrounds.

Shapes: B images, S side in pixels.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)


class Augment:
    """Draws random scenes; the same state of the generator gives the same scenes."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def _uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(*shape, generator=self.generator) * (high - low) + low

    def __call__(self, pictures: Tensor, size: int, strength: float) -> Tensor:
        """Normalised images (B, 3, S, S) from RGBA pictures, uint8 (B, 4, H, W).

        Args:
            size: S.
            strength: 0 (upright on white) to 1 (everything).
        """
        x = pictures.float() / 255
        x = torch.cat([x[:, :3] * x[:, 3:], x[:, 3:]], dim=1)  # premultiplied alpha, so that edges blend correctly
        x = self._pose(x, size, strength)
        rgb, alpha = x[:, :3], x[:, 3:]
        scene = self._recolour(rgb, alpha, strength) + (1 - alpha) * self._background(len(x), size, strength)
        noisy = (self._uniform(len(x), 1, 1, 1) < 0.5) * self._uniform(len(x), 1, 1, 1, high=0.06 * strength)
        scene = scene + noisy * torch.randn(scene.shape, generator=self.generator)
        return (scene.clamp(0, 1) - MEAN) / STD

    def _pose(self, x: Tensor, size: int, strength: float) -> Tensor:
        """Rotate, scale, stretch, mirror and shift (B, 4, H, W) into (B, 4, S, S)."""
        B = len(x)
        angle = self._uniform(B, low=-0.35, high=0.35) * strength
        scale = self._uniform(B, low=1 - 0.4 * strength, high=1 + 0.15 * strength)
        aspect = 1 + self._uniform(B, low=-0.12, high=0.12)
        mirror = (self._uniform(B) < 0.5) * 2.0 - 1
        shift = self._uniform(2, B, low=-0.15, high=0.15) * strength
        cos, sin = angle.cos() / scale, angle.sin() / scale
        rows = [cos * mirror * aspect, -sin * mirror, shift[0], sin, cos / aspect, shift[1]]
        theta = torch.stack(rows, dim=1).view(B, 2, 3)
        grid = F.affine_grid(theta, [B, 4, size, size], align_corners=False)
        return F.grid_sample(x, grid, mode="bilinear", align_corners=False)

    def _recolour(self, rgb: Tensor, alpha: Tensor, strength: float) -> Tensor:
        """Change hue, saturation, gain and brightness of premultiplied (B, 3, S, S); a few become grey."""
        B = len(rgb)
        hue = self._uniform(B, low=-0.5, high=0.5) * strength * (self._uniform(B) < 0.35)
        saturation = 1 + self._uniform(B, low=-0.5, high=0.4) * strength
        grey = torch.full((1, 3, 3), 1 / 3)  # the projection onto the grey axis
        k = math.sqrt(1 / 3)
        turn = torch.tensor([[0, -k, k], [k, 0, -k], [-k, k, 0]])
        cos, sin = (f(hue).mul(saturation).view(B, 1, 1) for f in (torch.cos, torch.sin))
        matrix = cos * (torch.eye(3) - grey) + grey + sin * turn  # (B, 3, 3)
        matrix = torch.where(self._uniform(B, 1, 1) < 0.08, grey, matrix)
        matrix = matrix * (1 + self._uniform(B, 1, 1, low=-0.3, high=0.3) * strength)
        lift = self._uniform(B, 1, 1, 1, low=-0.12, high=0.12) * strength
        return torch.einsum("bij,bjhw->bihw", matrix, rgb) + alpha * lift

    def _background(self, B: int, size: int, strength: float) -> Tensor:
        """White, one colour, a gradient or soft blobs: (B, 3, S, S)."""
        first, second = self._uniform(B, 3, 1, 1), self._uniform(B, 3, 1, 1)
        angle = self._uniform(B, 1, 1) * 2 * math.pi
        y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
        ramp = ((x * angle.cos() + y * angle.sin()) * 0.5 + 0.5)[:, None]  # (B, 1, S, S)
        gradient = first + 0.5 * (second - first) * ramp
        blobs = F.interpolate(self._uniform(B, 3, 5, 5), (size, size), mode="bilinear", align_corners=False)
        blobs = 0.6 * blobs + 0.4 * first
        kind = self._uniform(B, 1, 1, 1)
        drawn = torch.where(kind < 0.5, first.expand_as(blobs), torch.where(kind < 0.75, gradient, blobs))
        white = self._uniform(B, 1, 1, 1) < max(0.15, 1 - strength)
        return torch.where(white, torch.ones(()), drawn)
