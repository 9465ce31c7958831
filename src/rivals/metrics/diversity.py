"""Diversity of a small sample, relative to real images: a cheap sign of mode collapse."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d


def cells(images: Tensor) -> Tensor:
    """uint8 images (N, C, H, W) as points (N, d) in [0, 1], averaged down to at most 8 x 8 pixels.

    Averaging keeps pixel noise from counting as diversity.
    """
    return adaptive_avg_pool2d(images.float() / 255, min(8, images.shape[-1])).flatten(1)


def nearest_distances(images: Tensor) -> Tensor:
    """Distance (N,) from each uint8 image (N, C, H, W) to the nearest other one, in the space of :func:`cells`."""
    points = cells(images)
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")  # exact for copies
    return distances.fill_diagonal_(torch.inf).amin(1)


class Images(Protocol):
    """An array of images, or what is indexed like one."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> np.ndarray: ...


class Diversity:
    """Diversity of generated images relative to that of real ones.

    The value is the mean nearest-neighbor distance of the generated images, divided by that of as many real ones: about
    1 if the generator is as diverse as the data, near 0 if it repeats itself. Nearest neighbors, unlike all pairs, also
    detect a generator that repeats a few different images.

    Args:
        real: uint8 images (N, C, H, W) to compare with.
        count: How many generated images there will be.
    """

    def __init__(self, real: Images, count: int) -> None:
        order = np.random.default_rng(0).permutation(len(real))
        count = min(count, len(real))
        # The mean of up to 8 samples: with one alone, the scale would vary by some percent.
        samples = [order[start : start + count] for start in range(0, min(len(real), 8 * count), count)]
        means = [nearest_distances(torch.from_numpy(real[np.sort(s)])).mean() for s in samples if len(s) == count]
        self.scale = float(torch.stack(means).mean()) if count > 1 else 0.0

    def __call__(self, images: Tensor) -> float | None:
        """The diversity of uint8 images (N, C, H, W); None for fewer than two, or if all real images are the same."""
        if self.scale == 0 or len(images) < 2:
            return None
        return float(nearest_distances(images).mean()) / self.scale
