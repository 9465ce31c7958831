"""Squared distances of all pairs of two sets, in blocks: fast ones, and exact ones for the pairs in doubt.

``|x - y|^2 = |x|^2 + |y|^2 - 2 x.y`` is a matrix product, but loses the digits of close points: the distance of a copy
comes out as a thousandth of its norm, not as 0. So each fast distance comes with an error bound, and comparisons that
the bound does not decide are computed again as ``sum (x - y)^2`` in double precision. The results are those of exact
distances, whatever the block size or the order of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from rivals.metrics.feature_checks import blocks, to_double

_BLOCK = 2048
_EXACT = 2**20  # values in an exact computation at a time
_SPARE = 8  # candidates beyond the k-th neighbor, so that the exact order is decided among enough of them


class Pairs:
    """All pairs of rows of x (n, d) and of y (m, d), on one device and of one dtype; y may also be uint8."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y
        # With TF32 or bfloat16 products the error bound would not hold.
        precise = x.dtype == torch.float64 or torch.get_float32_matmul_precision() == "highest"
        self.dtype = x.dtype if precise else torch.float64
        # Norms are smaller after centering, and so are the errors, which are relative to them.
        self.center = y.new_zeros(y.shape[1], dtype=self.dtype)
        for part in blocks(len(y), _BLOCK):
            self.center += y[part].to(self.dtype).sum(0) / len(y)
        self.relative_error = 4 * torch.finfo(self.dtype).eps * x.shape[1] ** 0.5

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Slices of rows of x and of y that together contain all pairs."""
        return product(blocks(len(self.x), _BLOCK), list(blocks(len(self.y), _BLOCK)))

    def fast(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Squared distances of a block (a, b), and their error bound."""
        x, y = self.x[rows].to(self.dtype) - self.center, self.y[columns].to(self.dtype) - self.center
        squared_norms = x.square().sum(1)[:, None] + y.square().sum(1)
        return torch.addmm(squared_norms, x, y.T, alpha=-2), squared_norms.mul_(self.relative_error)

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Squared distances (p,), float64, of the pairs of row ``rows[i]`` of x and row ``columns[i]`` of y."""
        found = to_double(self.x.new_zeros(len(rows)))  # filled in place: a list of results would fragment memory
        for part in blocks(len(rows), max(1, _EXACT // self.x.shape[1])):
            difference = to_double(self.x[rows[part]]).sub_(to_double(self.y[columns[part]]))
            torch.sum(difference.square_(), 1, out=found[part])
        return found

    def inside(
        self, rows: slice, columns: slice, squared: Tensor, bound: Tensor, radii: Tensor, *, closed: bool
    ) -> Tensor:
        """Which pairs of a block (a, b) are within squared radii, (a, 1) or (1, b), float64.

        Args:
            rows: Rows of x.
            columns: Rows of y.
            squared: From :meth:`fast`.
            bound: From the same.
            radii: One for each row, or for each column.
            closed: Whether a point exactly at the radius is inside.
        """
        gap = squared - radii.to(squared)
        result = gap < 0
        i, j = (gap.abs_() <= bound).nonzero(as_tuple=True)
        exact = self.exact(i + rows.start, j + columns.start)
        limit = radii.expand(squared.shape)[i.to(radii.device), j.to(radii.device)]
        result[i, j] = (exact <= limit if closed else exact < limit).to(result.device)
        return result


class _Nearest:
    """The nearest ``count`` points of each of n points, among those compared so far."""

    def __init__(self, n: int, count: int, pairs: Pairs) -> None:
        self.pairs = pairs
        self.squared = torch.full((n, count), torch.inf, dtype=pairs.dtype, device=pairs.x.device)
        self.indices = torch.zeros((n, count), dtype=torch.long, device=pairs.x.device)

    def add(self, points: slice, others: slice, squared: Tensor) -> None:
        """Compare points with others, at squared distances (points, others)."""
        near, indices = squared.topk(min(self.indices.shape[1], squared.shape[1]), dim=1, largest=False)
        candidates = torch.cat([self.squared[points], near], 1)
        candidate_indices = torch.cat([self.indices[points], indices + others.start], 1)
        self.squared[points], chosen = candidates.topk(self.indices.shape[1], dim=1, largest=False)
        self.indices[points] = candidate_indices.gather(1, chosen)

    def exact(self, k: int) -> tuple[Tensor, Tensor]:
        """Indices and squared distances of the k nearest, by exact distances; ties go to the lower index."""
        indices = self.indices.sort(1).values
        points = torch.arange(len(indices), device=indices.device)[:, None].expand_as(indices)
        squared = self.pairs.exact(points.flatten(), indices.flatten()).view(indices.shape)
        squared, order = squared.sort(dim=1, stable=True)
        return indices.gather(1, order.to(indices.device))[:, :k], squared[:, :k]


def nearest_between(x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k rows of y (m, d) nearest to each row of x (n, d): indices and squared distances, (n, k)."""
    pairs = Pairs(x, y)
    found = _Nearest(len(x), min(len(y), k + _SPARE), pairs)
    for rows, columns in pairs.blocks():
        found.add(rows, columns, pairs.fast(rows, columns)[0])
    return found.exact(k)


def nearest_within(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k other rows of x (n, d) nearest to each row: indices and squared distances, (n, k)."""
    pairs = Pairs(x, x)
    found = _Nearest(len(x), min(len(x) - 1, k + _SPARE), pairs)
    for rows, columns in pairs.blocks():
        if columns.start < rows.start:
            continue  # by symmetry, added with its transpose
        squared = pairs.fast(rows, columns)[0]
        if columns == rows:
            found.add(rows, rows, squared.fill_diagonal_(torch.inf))
        else:
            found.add(rows, columns, squared)
            found.add(columns, rows, squared.T)
    return found.exact(k)
