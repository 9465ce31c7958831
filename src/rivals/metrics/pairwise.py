"""Squared distances of all pairs of two sets, a block at a time: quick ones, and exact ones of the pairs in doubt.

``|x - y|^2 = |x|^2 + |y|^2 - 2 x.y`` is a product of matrices, but loses the digits of near points: a copy of an image
comes out at a thousandth of its length, not at 0. So each quick distance comes with a bound on its error, and whatever
is not decided beyond that bound is looked at again, as ``sum (x - y)^2`` in double precision. Answers are those of
exact distances, whatever the size of the blocks or the order of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from rivals.metrics.features import blocks, wide

_BLOCK = 2048
_EXACT = 2**20  # values that an exact look takes at a time
_SPARE = 8  # neighbours beyond the k-th that are kept for the exact look


class Pairs:
    """All pairs of a row of x (n, d) and one of y (m, d), on one device and of one dtype, or y of bytes."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y
        trusted = x.dtype == torch.float64 or torch.get_float32_matmul_precision() == "highest"
        self.dtype = x.dtype if trusted else torch.float64
        # Lengths as seen from the middle are shorter, and so are the errors.
        self.centre = y.new_zeros(y.shape[1], dtype=self.dtype)
        for part in blocks(len(y), _BLOCK):
            self.centre += y[part].to(self.dtype).sum(0) / len(y)
        self.unit = 4 * torch.finfo(self.dtype).eps * x.shape[1] ** 0.5

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Of rows of x and rows of y, that together are all pairs."""
        return product(blocks(len(self.x), _BLOCK), list(blocks(len(self.y), _BLOCK)))

    def quick(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Squared distances of a block (a, b), and the bound on their errors."""
        x, y = self.x[rows].to(self.dtype) - self.centre, self.y[columns].to(self.dtype) - self.centre
        lengths = x.square().sum(1)[:, None] + y.square().sum(1)
        return torch.addmm(lengths, x, y.T, alpha=-2), lengths.mul_(self.unit)

    def exact(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Squared distances (p,), float64, of the pairs of these rows (p,) of x and (p,) of y."""
        found = wide(self.x.new_zeros(len(rows)))  # filled in place: results kept aside would leave holes in memory
        for part in blocks(len(rows), max(1, _EXACT // self.x.shape[1])):
            apart = wide(self.x[rows[part]]).sub_(wide(self.y[columns[part]]))
            torch.sum(apart.square_(), 1, out=found[part])
        return found

    def inside(self, rows: slice, columns: slice, squared: Tensor, bound: Tensor, radii: Tensor, rim: bool) -> Tensor:
        """Which pairs of a block (a, b) are within squared radii, (a, 1) or (1, b), float64.

        Args:
            rows: Of x.
            columns: Of y.
            squared: From :meth:`quick`.
            bound: From the same.
            radii: One for each row, or for each column.
            rim: Whether a point at the very radius is inside.
        """
        gap = squared - radii.to(squared)
        verdict = gap < 0
        i, j = (gap.abs_() <= bound).nonzero(as_tuple=True)
        exact = self.exact(i + rows.start, j + columns.start)
        limit = radii.expand(squared.shape)[i.to(radii.device), j.to(radii.device)]
        verdict[i, j] = (exact <= limit if rim else exact < limit).to(verdict.device)
        return verdict


class _Nearest:
    """The nearest few of each of n points, as far as they have been met."""

    def __init__(self, n: int, keep: int, pairs: Pairs) -> None:
        self.pairs = pairs
        self.squared = torch.full((n, keep), torch.inf, dtype=pairs.dtype, device=pairs.x.device)
        self.who = torch.zeros((n, keep), dtype=torch.long, device=pairs.x.device)

    def meet(self, points: slice, others: slice, squared: Tensor) -> None:
        """Points meet others, at squared distances (points, others)."""
        near, who = squared.topk(min(self.who.shape[1], squared.shape[1]), dim=1, largest=False)
        known = torch.cat([self.squared[points], near], 1)
        names = torch.cat([self.who[points], who + others.start], 1)
        self.squared[points], chosen = known.topk(self.who.shape[1], dim=1, largest=False)
        self.who[points] = names.gather(1, chosen)

    def settle(self, k: int) -> tuple[Tensor, Tensor]:
        """The k nearest by exact distances, nearest first, of equals the one that comes first: who, and how far."""
        who = self.who.sort(1).values
        points = torch.arange(len(who), device=who.device)[:, None].expand_as(who)
        exact = self.pairs.exact(points.flatten(), who.flatten()).view(who.shape)
        exact, order = exact.sort(dim=1, stable=True)
        return who.gather(1, order.to(who.device))[:, :k], exact[:, :k]


def nearest_between(x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k rows of y (m, d) that are nearest to each row of x (n, d): indices and squared distances, (n, k)."""
    pairs = Pairs(x, y)
    found = _Nearest(len(x), min(len(y), k + _SPARE), pairs)
    for rows, columns in pairs.blocks():
        found.meet(rows, columns, pairs.quick(rows, columns)[0])
    return found.settle(k)


def nearest_within(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k other rows of x (n, d) that are nearest to each row: indices and squared distances, (n, k)."""
    pairs = Pairs(x, x)
    found = _Nearest(len(x), min(len(x) - 1, k + _SPARE), pairs)
    for rows, columns in pairs.blocks():
        if columns.start < rows.start:
            continue  # seen from the other side
        squared = pairs.quick(rows, columns)[0]
        if columns == rows:
            found.meet(rows, rows, squared.fill_diagonal_(torch.inf))
        else:
            found.meet(rows, columns, squared)
            found.meet(columns, rows, squared.T)
    return found.settle(k)
