"""Differentiable changes to the images that a discriminator sees."""

from __future__ import annotations

import torch
from torch import Tensor

from rivals.base.schedules import Schedule


class InstanceNoise:
    """Gaussian noise on real and generated images alike (Sønderby et al. 2017; Arjovsky & Bottou 2017).

    It lets the two distributions overlap, so that a discriminator cannot tell them apart without error.

    Args:
        sigma: Standard deviation by images seen, for images in [-1, 1].
    """

    def __init__(self, sigma: Schedule) -> None:
        self.sigma = sigma

    def __call__(self, images: Tensor, seen: int) -> Tensor:
        """Images (B, C, H, W) with noise added, after ``seen`` images of training."""
        return images + self.sigma.at(seen) * torch.randn_like(images)
