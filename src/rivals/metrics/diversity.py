"""How different a handful of images are from one another, against real ones: the collapse of a generator, cheaply."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d


def cells(images: Tensor) -> Tensor:
    """uint8 images (N, C, H, W) as points (N, d) in [0, 1]: averaged down to at most 8 x 8 cells.

    So pixel noise does not pass for diversity.
    """
    return adaptive_avg_pool2d(images.float() / 255, min(8, images.shape[-1])).flatten(1)


def nearest_distances(images: Tensor) -> Tensor:
    """Distance from each image to the nearest other one by their :func:`cells`, (N,), for uint8 images (N, C, H, W)."""
    points = cells(images)
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")  # exact for twins
    return distances.fill_diagonal_(torch.inf).amin(1)


class Diversity:
    """Diversity of generated images as a share of that of real ones.

    The value is the mean nearest-neighbour distance among the generated images, over the same mean among as many
    real ones: about 1 where the generator is as varied as the data, towards 0 where it repeats itself. Nearest
    neighbours, rather than all pairs, also notice a generator that knows a few pictures and repeats those.

    Args:
        real: uint8 images (N, C, H, W) to compare with.
        count: How many generated images there will be.
    """

    def __init__(self, real: np.ndarray, count: int) -> None:
        order = np.random.default_rng(0).permutation(len(real))
        count = min(count, len(real))
        # Several handfuls: one alone would move the scale by some percent.
        handfuls = [order[start : start + count] for start in range(0, min(len(real), 8 * count), count)]
        means = [nearest_distances(torch.from_numpy(real[np.sort(h)])).mean() for h in handfuls if len(h) == count]
        self.scale = float(torch.stack(means).mean()) if count > 1 else 0.0

    def __call__(self, images: Tensor) -> float | None:
        """The diversity of uint8 images (N, C, H, W); None if it has no meaning (real images that are all alike)."""
        if self.scale == 0 or len(images) < 2:
            return None
        return float(nearest_distances(images).mean()) / self.scale
