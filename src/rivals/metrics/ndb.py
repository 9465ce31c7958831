"""Number of statistically different bins (NDB, Richardson & Weiss 2018)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rivals.base.rng import generator
from rivals.metrics.entropy import jsd
from rivals.metrics.feature_checks import checked, same_dtype

_BLOCK = 2048  # points whose distances to all centers are in memory at a time


@dataclass(frozen=True)
class DifferentBins:
    """The number of statistically different bins.

    Attributes:
        different: Bins whose shares of real and of generated points differ significantly.
        of: Bins.
        by_chance: How many are expected to if both distributions are the same.
        jsd: Jensen-Shannon divergence of the two histograms, in nats.
    """

    different: int
    of: int
    by_chance: float
    jsd: float


def ndb(train: Tensor, points: Tensor, *, bins: int = 100, alpha: float = 0.05, seed: int = 0) -> DifferentBins:
    """Partition the space by k-means of real points; count the bins whose share of generated points differs.

    Each bin has a two-proportion z-test with a pooled standard error (Richardson & Weiss 2018, sec. 3). The bins are
    made from the training points, so held-out real points also give a little more than ``by_chance``: report both.

    Args:
        train: Real points (n, d): pixels or features.
        points: Generated points (m, d).
        bins: How many.
        alpha: Level of each test.
        seed: Seed of the initial centers.

    Raises:
        UserError: fewer real points than bins, no generated ones, different dimensions, or a value that is not finite.
    """
    real = checked(train, "real", bins, f"1 or more for each of {bins} bins")
    train, points = same_dtype(real, checked(points, "generated"), ("real", "generated"))
    from scipy.stats import norm

    centers = kmeans(train, bins, seed=seed)
    n_real, n_fake = (
        torch.bincount(nearest_center(each, centers), minlength=bins).double().cpu() for each in (train, points)
    )
    p, q = n_real / len(train), n_fake / len(points)
    pooled = (n_real + n_fake) / (len(train) + len(points))
    error = (pooled * (1 - pooled) * (1 / len(train) + 1 / len(points))).sqrt()
    z = torch.where(error > 0, (p - q) / error, torch.zeros_like(p))
    different = int((z.abs() > float(norm.ppf(1 - alpha / 2))).sum())
    return DifferentBins(different, bins, alpha * bins, float(jsd(p, q)))


def kmeans(points: Tensor, count: int, *, seed: int = 0, iterations: int = 50) -> Tensor:
    """Centers (count, d) of points (n, d): k-means++ (Arthur & Vassilvitskii 2007), then Lloyd's algorithm."""
    x, source = points.float(), generator(seed, "kmeans")
    first = int(torch.randint(len(x), (1,), generator=source))
    chosen = [x[first]]
    squared = torch.full((len(x),), math.inf, device=x.device)  # distance to the nearest center so far
    for _ in range(count - 1):
        squared = torch.minimum(squared, (x - chosen[-1]).square().sum(1))
        # With probability proportional to the squared distance; uniformly if all points are at a center.
        odds = (squared if bool(squared.any()) else torch.ones_like(squared)).double().cumsum(0).cpu()
        u = torch.rand(1, generator=source, dtype=torch.float64) * odds[-1]
        chosen.append(x[min(int(torch.searchsorted(odds, u, right=True)), len(x) - 1)])
    centers = torch.stack(chosen)
    for _ in range(iterations):
        assignment = nearest_center(x, centers)
        sums = torch.zeros_like(centers).index_add_(0, assignment, x)
        sizes = torch.bincount(assignment, minlength=count)[:, None]
        moved = torch.where(sizes > 0, sums / sizes.clamp_min(1), centers)  # an empty cluster keeps its center
        converged = torch.equal(moved, centers)
        centers = moved
        if converged:
            break
    return centers


def nearest_center(points: Tensor, centers: Tensor) -> Tensor:
    """Index (n,) of the center (k, d) that is nearest to each point (n, d)."""
    return torch.cat([torch.cdist(block.float(), centers).argmin(1) for block in torch.split(points, _BLOCK)])
