"""CROWN: bounds by linear functions of the input, propagated backward (Zhang et al. 2018; Xu et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rivals.bounds.ibp import Interval, margins_from, step
from rivals.bounds.network import Network
from rivals.bounds.operators import Affine, MaxPool2d, ReLU, Sum
from rivals.bounds.regions import Region
from rivals.bounds.relaxations import LinearBounds, relax_max_pool, relax_relu
from rivals.bounds.rounding import gamma

MOST_ENTRIES = 2**25  # of the coefficients that are in memory at once

Slopes = Mapping[int, Tensor]
"""Slopes of the lower bounds of unstable ReLUs by number of the node: (specifications or 1, B, ...)."""


@dataclass
class Backward:
    """The backward pass, for bounds of all values that it reads.

    Attributes:
        network: The network.
        region: The inputs.
        bounds: Bounds of the values, the input first, up to the last nonlinear operation.
        rounded: Whether to widen the bounds by all that rounding can do, here and in a forward pass.
    """

    network: Network
    region: Region
    bounds: list[Interval]
    rounded: bool = True
    _relaxed: dict[int, LinearBounds] = field(default_factory=dict)
    _sizes: dict[int, Tensor] = field(default_factory=dict)

    def lower(self, coefficients: Tensor, value: int, slopes: Slopes | None = None) -> Tensor:
        """Lower bounds of ``<coefficients, value>`` over the inputs, (specifications, B).

        Args:
            coefficients: (specifications, B, ...), of the value; the A of the paper.
            value: Its number.
            slopes: Of the lower bounds of ReLUs; those of CROWN where there are none.
        """
        of: dict[int, Tensor] = {value: coefficients}
        total = coefficients.new_zeros(coefficients.shape[:2], dtype=torch.float64)
        for number in range(value, 0, -1):
            if number not in of:
                continue
            a, node = of.pop(number), self.network.nodes[number - 1]
            operator = node.operator
            if self.rounded:
                total = total - self._error(a, number)
            if isinstance(operator, Affine):
                shape = self.bounds[node.inputs[0]].lower.shape[1:]
                flat = a.reshape(-1, *a.shape[2:])
                new = [operator.adjoint(flat, shape).reshape(*a.shape[:2], *shape)]
                if operator.bias is not None:
                    total = total + dot(a, operator.bias)
            elif isinstance(operator, Sum):
                new = [a, a if operator.sign > 0 else -a]
            elif isinstance(operator, ReLU):
                through, constant = self._through_relu(a, number, None if slopes is None else slopes.get(number))
                new, total = [through], total + constant
            else:
                through, constant = self._through_pool(a, number, operator)
                new, total = [through], total + constant
            for i, part in zip(node.inputs, new, strict=True):
                of[i] = of[i] + part if i in of else part
        return total + self._concretize(of[0]) if 0 in of else total

    def relaxed(self, number: int) -> LinearBounds:
        """The linear bounds of a ReLU."""
        if number not in self._relaxed:
            node = self.network.nodes[number - 1]
            assert isinstance(node.operator, ReLU)
            self._relaxed[number] = relax_relu(node.operator, *self.bounds[node.inputs[0]][:2])
        return self._relaxed[number]

    def _through_relu(self, a: Tensor, number: int, slope: Tensor | None) -> tuple[Tensor, Tensor]:
        """Positive coefficients take the lower bound of the ReLU, negative ones the upper (eq. 6-8)."""
        line = self.relaxed(number)
        lower = line.lower_slope if slope is None else torch.where(line.unstable, slope, line.lower_slope)
        negative = a.clamp_max(0)
        return a.clamp_min(0) * lower + negative * line.upper_slope, dot(negative, line.upper_intercept)

    def _through_pool(self, a: Tensor, number: int, operator: MaxPool2d) -> tuple[Tensor, Tensor]:
        bounds = self.bounds[self.network.nodes[number - 1].inputs[0]]
        pool = relax_max_pool(operator, bounds.lower, bounds.upper)
        windows = a.flatten(3)
        positive, negative = windows.clamp_min(0), windows.clamp_max(0)
        planes = a.new_zeros((*a.shape[:3], math.prod(bounds.lower.shape[2:])))
        planes = planes.scatter_add(3, pool.place.expand_as(windows), positive + negative * pool.exact)
        constant = dot(negative, torch.where(pool.exact, torch.zeros_like(pool.most), pool.most))
        return planes.view(*a.shape[:3], *bounds.lower.shape[2:]), constant

    def _concretize(self, a: Tensor) -> Tensor:
        """The minimum over the inputs: ``A c - |A| r`` over the box, ``A x - eps ||A||_2`` over the ball (eq. 5)."""
        lower, upper = self.region.lower.double(), self.region.upper.double()
        center, radius = (lower + upper) / 2, (upper - lower) / 2
        # In float64, whose roundings are covered by a share of all that is added up.
        flat = a.flatten(2)
        size = torch.maximum(lower.abs(), upper.abs()).flatten(1)
        slack = gamma(flat.shape[2], torch.float64)
        box = _dot64(flat, center.flatten(1)) - _dot64(flat.abs(), radius.flatten(1) + 4 * slack * size)
        if self.region.center is None:
            return box
        norm = flat.double().norm(dim=2) * (1 + slack)
        ball = _dot64(flat, self.region.center.double().flatten(1)) - self.region.radius * norm
        return torch.maximum(box, ball - 4 * slack * _dot64(flat.abs(), size))

    def _error(self, a: Tensor, number: int) -> Tensor:
        """What rounding at this node can do to the bound.

        Of an affine map: to a forward pass, ``gamma_in (|W| |z| + |b|)`` for each entry, times ``|A|``; and to the
        product ``A W`` here, ``gamma_out |A| |W|``, times ``|z|``. Both are a share of ``<|A|, |W| |z| + |b|>``. Of any
        other operation a few roundings of ``<|A|, |z|>``.
        """
        operator = self.network.nodes[number - 1].operator
        share = gamma(0, a.dtype)
        if isinstance(operator, Affine):
            share = gamma(operator.fan_in, a.dtype) + gamma(operator.fan_out, a.dtype)
        # The sum itself is positive, and taken in float32 off by far less than a percent.
        return 1.01 * share * dot(a.abs(), self._size(number))

    def _size(self, number: int) -> Tensor:
        """``|W| |z| + |b|`` of an affine map for the largest ``|z|``; of others the largest output or input."""
        if number not in self._sizes:
            node = self.network.nodes[number - 1]
            largest = [torch.maximum(self.bounds[i].lower.abs(), self.bounds[i].upper.abs()) for i in node.inputs]
            operator = node.operator
            if isinstance(operator, Affine):
                size = operator.absolute(largest[0])
                size = size if operator.bias_size is None else size + operator.bias_size
            else:
                size = sum(largest[1:], largest[0]) if isinstance(operator, Sum) else operator(largest[0])
                size = largest[0] if isinstance(operator, ReLU) else size
            self._sizes[number] = size
        return self._sizes[number]


def dot(a: Tensor, values: Tensor) -> Tensor:
    """``<a, values>`` for each specification and image; each product is rounded once, the sum is in float64."""
    return (a * values).flatten(2).sum(2, dtype=torch.float64)


def _dot64(a: Tensor, values: Tensor) -> Tensor:
    return torch.einsum("sbn,bn->sb", a.double(), values)


Tighten = Callable[[Backward, int], Interval]
"""From a backward pass with the bounds of all values up to one, and that one's number, to better bounds of it."""


def crown_intervals(
    network: Network, region: Region, tighten: Tighten | None, *, rounded: bool = True
) -> list[Interval]:
    """Bounds of all values, from the input on: by IBP, and before each nonlinear operation by ``tighten`` as well.

    Args:
        network: The network.
        region: The inputs.
        tighten: Such as :func:`by_crown`; None for IBP alone (CROWN-IBP, Zhang et al. 2020).
        rounded: See :class:`Backward`.
    """
    before = {node.inputs[0] for node in network.nodes if isinstance(node.operator, ReLU | MaxPool2d)}
    exact = _affine_in_input(network)
    values = [Interval.of(region)]
    for number, _ in network.numbered():
        values.append(step(network, number, values, region.radius, rounded))
        if tighten is not None and number in before and number not in exact:
            old, new = values[-1], tighten(Backward(network, region, values, rounded), number)
            values[-1] = Interval(torch.maximum(old.lower, new.lower), torch.minimum(old.upper, new.upper))
    return values


def _affine_in_input(network: Network) -> set[int]:
    """Values that IBP bounds exactly: the first layer that mixes entries, and what it only scales before."""
    exact, elementwise = set[int](), {0}
    for number, node in network.numbered():
        operator = node.operator
        if isinstance(operator, Affine) and node.inputs[0] in elementwise:
            exact.add(number)
            if operator.fan_out <= 1:
                elementwise.add(number)
    return exact


def by_crown(backward: Backward, value: int) -> Interval:
    """CROWN's bounds of all entries of a value that may be unstable."""
    bounds = backward.bounds[value]
    # Rows of their own: in channels-last memory a view of rows does not exist, and flatten would give a copy.
    lower, upper = (each.flatten(1).clone() for each in (bounds.lower, bounds.upper))
    entries = unstable_entries(bounds)
    for some in torch.split(entries, specifications_at_once(backward.bounds, value, 2)):
        new = backward.lower(both_signs(some, bounds.lower), value)
        below, above = new[: len(some)], -new[len(some) :]
        lower[:, some] = below.T.to(lower.dtype)
        upper[:, some] = above.T.to(lower.dtype)
    lower, upper = (each.view(bounds.lower.shape) for each in outward(lower, upper))
    return Interval(lower, upper)


def unstable_entries(bounds: Interval) -> Tensor:
    """Numbers of the entries whose bounds have both signs for some image."""
    unstable = ((bounds.lower < 0) & (bounds.upper > 0)).flatten(1).any(0)
    return unstable.nonzero()[:, 0]


def specifications_at_once(bounds: list[Interval], value: int, per: int) -> int:
    """How many entries, each with ``per`` specifications, may be bounded at once."""
    widest = max(each.lower.shape[1:].numel() for each in bounds[: value + 1])
    return max(1, MOST_ENTRIES // (per * widest * max(1, len(bounds[0].lower))))


def both_signs(entries: Tensor, like: Tensor) -> Tensor:
    """The coefficients of some entries, then of their negatives: (2 entries, B, ...)."""
    n = like.shape[1:].numel()
    rows = torch.zeros(len(entries), n, dtype=like.dtype, device=like.device)
    rows[torch.arange(len(entries)), entries] = 1
    rows = torch.cat([rows, -rows]).view(-1, 1, *like.shape[1:])
    return rows.expand(-1, len(like), *like.shape[1:])


def outward(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds that were rounded to the nearest, moved one number outward."""
    return torch.nextafter(lower, torch.full_like(lower, -torch.inf)), torch.nextafter(
        upper, torch.full_like(upper, torch.inf)
    )


def differences(y: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """The coefficients of ``z_y - z_k`` for all classes k, (classes, B, classes)."""
    eye = torch.eye(classes, dtype=dtype, device=y.device)
    return eye[y] - eye[:, None]


def crown_margins(
    network: Network, region: Region, y: Tensor, *, intermediate: Tighten | None = by_crown, rounded: bool = True
) -> Tensor:
    """CROWN's lower bounds of ``z_y - z_k`` for every class k, (B, classes); 0 for y itself.

    Args:
        network: The network.
        region: The inputs.
        y: The labels (B,).
        intermediate: How values before nonlinear operations are bounded: :func:`by_crown`, or None for IBP.
        rounded: See :class:`Backward`.
    """
    return margins_by(
        Backward(network, region, crown_intervals(network, region, intermediate, rounded=rounded), rounded), y
    )


def margins_by(backward: Backward, y: Tensor) -> Tensor:
    """The margins of :func:`crown_margins` from a backward pass with the bounds of all values."""
    network, bounds = backward.network, backward.bounds
    wanted = differences(y, bounds[-1].lower.shape[1], bounds[-1].lower.dtype)
    margins = backward.lower(wanted, len(network.nodes)).T
    # Where many units are unstable the intervals may be better; both hold.
    by_intervals = margins_from(bounds, network.nodes[-1], y, backward.rounded)
    return torch.maximum(margins, by_intervals.double()).scatter(1, y[:, None], 0.0)


def crown_ibp_margins(network: Network, region: Region, y: Tensor) -> Tensor:
    """:func:`crown_margins` over the intervals of IBP (CROWN-IBP, Zhang et al. 2020), (B, classes)."""
    return crown_margins(network, region, y, intermediate=None)
