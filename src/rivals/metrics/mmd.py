"""Kernel distances of two sets of features: KID and CMMD.

Both are squared maximum mean discrepancies, ``MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)`` (Gretton et al. 2012,
eq. 2). Dot products are computed in the features' dtype, sums over pairs in double precision.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.rng import generator
from rivals.metrics.feature_checks import Features, blocks, checked, count, same_dtype, to_double
from rivals.metrics.results import Estimate

_BLOCK = 2048


def kid(real: Features, fake: Features, subsets: int = 100, size: int = 1000, seed: int = 0) -> Estimate:
    """The Kernel Inception Distance (Binkowski et al. 2018, sec. 4), if the features are Inception's.

    The unbiased MMD^2 with the kernel ``(x.y / d + 1)^3``, averaged over random subsets. For equal distributions its
    mean is 0, so it is often negative.

    The standard error includes the choice of the subsets and the choice of the images, the latter as the variance of a
    U-statistic (Hoeffding 1948, eq. 5.13). Other implementations report the former only.

    Args:
        real: Features (n, d).
        fake: Features (m, d).
        subsets: How many, 2 or more.
        size: Images of each set in a subset.
        seed: Seed of the subsets.

    Returns:
        The mean over subsets, not multiplied by 1000, and its standard error.

    Raises:
        UserError: sets smaller than a subset, or of different dimensions.
    """
    if subsets < 2 or size < 2:
        raise UserError(f"{subsets} subsets of {size}: take 2 or more of each, such as the paper's 100 of 1000")
    why = "or take smaller subsets"
    x, y = same_dtype(checked(real, "real", size, why), checked(fake, "fake", size, why))
    indices = subset_indices(len(x), len(y), subsets, size, seed)
    found = torch.stack([_mmd(x[rows.to(x.device)], y[columns.to(x.device)]) for rows, columns in indices])
    value, var_x, var_y, var_xx, var_yy, var_xy = found.mean(0).tolist()
    n, m = len(x), len(y)
    # First- and second-order terms of the variance of the U-statistic.
    of_images = 4 * (max(0, var_x) / n + max(0, var_y) / m) + 2 * (var_xx / n**2 + var_yy / m**2 + 2 * var_xy / (n * m))
    of_subsets = float(found[:, 0].var()) / subsets
    return Estimate(value, (of_images + of_subsets) ** 0.5)


def subset_indices(n: int, m: int, subsets: int, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Row indices of each subset of :func:`kid`, into n real and m generated images."""
    source = generator(seed, "kid")
    for _ in range(subsets):
        yield torch.randperm(n, generator=source)[:size], torch.randperm(m, generator=source)[:size]


def _mmd(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased MMD^2 of x (n, d) and y (n, d), and the five variance components of its standard error: (6,).

    First order, of one x and of one y: the variance of the kernel's mean over the other images, corrected for the noise
    of a mean of n. Second order, of pairs (x, x'), (y, y') and (x, y): the variance of the kernel given one image.
    """
    n = len(x)
    xx, yy, xy = _cubic(x, x), _cubic(y, y), _cubic(x, y)
    mean_xx, mean_yy = ((each.sum(1) - each.diagonal()) / (n - 1) for each in (xx, yy))
    # The diagonal, k(x, x), does not belong to the unbiased estimate: with the row's mean it adds no variance.
    xx.diagonal().copy_(mean_xx)
    yy.diagonal().copy_(mean_yy)
    var_xx, var_yy, var_xy, var_yx = (each.var(1).mean() for each in (xx, yy, xy, xy.T))
    var_x = (mean_xx - xy.mean(1)).var() - (var_xx + var_xy) / n
    var_y = (mean_yy - xy.mean(0)).var() - (var_yy + var_yx) / n
    mmd = mean_xx.mean() + mean_yy.mean() - 2 * xy.mean()
    return torch.stack([mmd, var_x, var_y, var_xx, var_yy, (var_xy + var_yx) / 2])


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    """``(x.y / d + 1)^3`` for all pairs, (n, m)."""
    return torch.pow(to_double(x @ y.T) / x.shape[1] + 1, 3)


def cmmd(real: Features, fake: Features, sigma: float = 10.0) -> float:
    """CMMD (Jayasumana et al. 2024, sec. 4), if the features are embeddings of CLIP ViT-L/14@336.

    1000 times the biased MMD^2, which includes k(x, x), with the kernel ``exp(-|x - y|^2 / (2 sigma^2))``.

    Args:
        real: Embeddings (n, d); they are normalized to length 1.
        fake: Embeddings (m, d).
        sigma: Bandwidth of the kernel.

    Returns:
        The distance, 0 or above.

    Raises:
        UserError: an embedding of length 0, or different dimensions.
    """
    if not sigma > 0:
        raise UserError(f"a sigma of {sigma:g} is not a bandwidth: give one above 0, such as the paper's 10")
    x, y = same_dtype(checked(real, "real"), checked(fake, "fake"))
    x, y = _normalize(x, "real"), _normalize(y, "fake")
    squared = _mean_kernel(x, x, sigma) + _mean_kernel(y, y, sigma) - 2 * _mean_kernel(x, y, sigma)
    return max(0.0, 1000 * squared)


def _normalize(x: Tensor, name: str) -> Tensor:
    lengths = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    if bool((lengths == 0).any()):
        zero = count(int((lengths == 0).sum()))
        raise UserError(f"{zero} of the {name} set have embeddings of length 0, which have no direction: remove them")
    return torch.div(x, lengths)


def _mean_kernel(x: Tensor, y: Tensor, sigma: float) -> float:
    """The mean of ``k - 1`` over all pairs. The 1 cancels in the MMD, and expm1 is exact where k is close to 1."""
    total = 0.0
    for rows in blocks(len(x), _BLOCK):
        for columns in blocks(len(y), _BLOCK):
            squared = to_double(x[rows] @ y[columns].T).mul_(-2).add_(2).clamp_min_(0)  # |x - y|^2 of unit vectors
            total += float(squared.div_(-2 * sigma**2).expm1_().sum())
    return total / (len(x) * len(y))
