"""Distances of two sets of features by a kernel: KID and CMMD, both squared maximum mean discrepancies.

``MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)`` (Gretton et al. 2012, eq. 2). Products of features are taken in the
features' own dtype, sums over pairs in double precision.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.seeds import generator
from rivals.metrics.estimate import Estimate
from rivals.metrics.features import Features, alike, blocks, checked, count, wide

_BLOCK = 2048


def kid(real: Features, fake: Features, subsets: int = 100, size: int = 1000, seed: int = 0) -> Estimate:
    """The Kernel Inception Distance (Binkowski et al. 2018, sec. 4), by its name where the features are Inception's.

    The unbiased MMD^2 with the kernel ``(x.y / d + 1)^3``, the mean over subsets drawn without repetition; where the
    two distributions are the same it is 0 on average, and often below.

    The error counts both what the draw of subsets leaves to chance and what the draw of the two sets does, the latter
    by the variance of a U-statistic of all images (Hoeffding 1948, eq. 5.13): peers count the former only.

    Args:
        real: Features (n, d).
        fake: Features (m, d).
        subsets: How many; more than 1.
        size: Of each, in images of either set.
        seed: Of the draws.

    Returns:
        The mean over subsets, not multiplied by 1000, and its standard error.

    Raises:
        UserError: sets smaller than a subset, or of different dimensions.
    """
    if subsets < 2 or size < 2:
        raise UserError(f"{subsets} subsets of {size}: take 2 or more of each, the paper's 100 of 1000")
    why = "or take smaller subsets"
    x, y = alike(checked(real, "real", size, why), checked(fake, "fake", size, why))
    picked = draws(len(x), len(y), subsets, size, seed)
    found = torch.stack([_mmd(x[rows.to(x.device)], y[columns.to(x.device)]) for rows, columns in picked])
    value, of_x, of_y, of_xx, of_yy, of_xy = found.mean(0).tolist()
    n, m = len(x), len(y)
    by_sets = 4 * (max(0, of_x) / n + max(0, of_y) / m) + 2 * (of_xx / n**2 + of_yy / m**2 + 2 * of_xy / (n * m))
    by_subsets = float(found[:, 0].var()) / subsets
    return Estimate(value, (by_sets + by_subsets) ** 0.5)


def draws(n: int, m: int, subsets: int, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows of the real set, of n, and of the fake one, of m, that make each subset of :func:`kid`."""
    source = generator(seed, "kid")
    for _ in range(subsets):
        yield torch.randperm(n, generator=source)[:size], torch.randperm(m, generator=source)[:size]


def _mmd(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased MMD^2 of (n, d) and (n, d), and the five variances that make its error, (6,).

    They are, of one x, of one y, of a pair of x, of a pair of y, and of a pair of both: of the kernel's mean over the
    other images, free of the noise that only n of them leave in it; and of the kernel itself for a given image.
    """
    n = len(x)
    xx, yy, xy = _cubic(x, x), _cubic(y, y), _cubic(x, y)
    real, fake = ((each.sum(1) - each.diagonal()) / (n - 1) for each in (xx, yy))
    xx.diagonal().copy_(real)
    yy.diagonal().copy_(fake)
    of_xx, of_yy, of_xy, of_yx = (each.var(1).mean() for each in (xx, yy, xy, xy.T))
    of_x = (real - xy.mean(1)).var() - (of_xx + of_xy) / n
    of_y = (fake - xy.mean(0)).var() - (of_yy + of_yx) / n
    return torch.stack([real.mean() + fake.mean() - 2 * xy.mean(), of_x, of_y, of_xx, of_yy, (of_xy + of_yx) / 2])


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    return torch.pow(wide(x @ y.T) / x.shape[1] + 1, 3)


def cmmd(real: Features, fake: Features, sigma: float = 10.0) -> float:
    """CMMD (Jayasumana et al. 2024, sec. 4), by its name where the features are CLIP's ViT-L/14@336 embeddings.

    The biased MMD^2 (each image also meets itself) with the kernel ``exp(-|x - y|^2 / (2 sigma^2))``, times 1000.

    Args:
        real: Embeddings (n, d); they are brought to length 1.
        fake: Embeddings (m, d).
        sigma: The kernel's width, in units of those lengths.

    Returns:
        1000 MMD^2, 0 or above.

    Raises:
        UserError: an embedding of length 0, or different dimensions.
    """
    if not sigma > 0:
        raise UserError(f"a sigma of {sigma:g} compares nothing: give a width above 0, as the paper's 10")
    x, y = alike(checked(real, "real"), checked(fake, "fake"))
    x, y = _unit(x, "real"), _unit(y, "fake")
    squared = _mean_kernel(x, x, sigma) + _mean_kernel(y, y, sigma) - 2 * _mean_kernel(x, y, sigma)
    return max(0.0, 1000 * squared)


def _unit(x: Tensor, name: str) -> Tensor:
    lengths = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    if bool((lengths == 0).any()):
        raise UserError(
            f"{count(int((lengths == 0).sum()))} of the {name} set have embeddings of length 0: no direction"
        )
    return torch.div(x, lengths)


def _mean_kernel(x: Tensor, y: Tensor, sigma: float) -> float:
    """The mean over pairs of ``k - 1``: the 1 falls out of the MMD, and what is left is small, so it is kept exact."""
    total = 0.0
    for rows in blocks(len(x), _BLOCK):
        for columns in blocks(len(y), _BLOCK):
            apart = wide(x[rows] @ y[columns].T).mul_(-2).add_(2).clamp_min_(0)  # |x - y|^2 of unit vectors
            total += float(apart.div_(-2 * sigma**2).expm1_().sum())
    return total / (len(x) * len(y))
