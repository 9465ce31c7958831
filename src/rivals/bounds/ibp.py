"""Interval bound propagation (IBP, Gowal et al. 2018, *On the Effectiveness of Interval Bound Propagation*)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.bounds.network import Network, Node
from rivals.bounds.operators import Affine, Average, Linear, ReLU, Scale, Sum
from rivals.bounds.regions import Region
from rivals.bounds.rounding import gamma, smallest, unit

PIECE = 2**18
"""Entries of the largest value of as many images as are bounded at once: 1 MB in float32, so that what is done with it
elementwise finds it in the cache."""


class Interval(NamedTuple):
    """Bounds of a value: lower and upper, each (B, ...).

    An affine image of an L2 ball is kept as ``center`` and ``spread``, a variance: entry i varies by up to the ball's
    radius times its root. Only until the first layer that mixes entries, whose bounds take it into account.
    """

    lower: Tensor
    upper: Tensor
    center: Tensor | None = None
    spread: Tensor | None = None
    positive: bool = False
    """Whether no entry is negative, as after a ReLU."""

    @classmethod
    def of(cls, region: Region) -> Interval:
        """The bounds of the inputs."""
        spread = None if region.center is None else torch.ones_like(region.center)
        return cls(region.lower, region.upper, region.center, spread)


def interval_bounds(
    network: Network, region: Region, *, rounded: bool = True, end: int | None = None
) -> list[Interval]:
    """Bounds of all values of a network over a set of inputs; the first are those of the input.

    Args:
        network: The network.
        region: The inputs.
        rounded: Whether to widen the bounds so that no rounding error makes them wrong: neither ours nor that of a
            forward pass in the same precision. Training can do without.
        end: The last node whose value is bounded; by default the output.
    """
    values = [Interval.of(region)]
    for number, _ in network.numbered()[:end]:
        values.append(step(network, number, values, region.radius, rounded))
    return values


@torch.no_grad()
def _last_bounds(network: Network, region: Region, end: int) -> list[Interval]:
    """As :func:`interval_bounds`, but values are overwritten, or forgotten, once they have been read.

    Fresh memory for a value costs several times what is computed with it elementwise.
    """
    values = [Interval.of(region)]
    last = {i: number for number, node in network.numbered() for i in node.inputs}
    empty = Interval(region.lower[:0], region.upper[:0])
    ours = [False]  # whether a value has memory of its own: it is no part of the region, and shares none with others
    for number, node in network.numbered()[:end]:
        source = node.inputs[0]
        own = ours[source] and last[source] == number
        if own and isinstance(node.operator, ReLU) and not node.operator.slope:
            values.append(Interval(values[source].lower.relu_(), values[source].upper.relu_(), positive=True))
        else:
            values.append(step(network, number, values, region.radius, rounded=True, own=own))
        # What moves entries may return a view; sums, pooling, sloped ReLUs and layers with products make new values.
        shares = isinstance(node.operator, Average) and not node.operator.fan_in
        ours[source] &= not shares
        ours.append(own or not shares)
        for i in node.inputs:
            if last[i] == number:
                values[i] = empty
    return values


def step(
    network: Network, number: int, values: list[Interval], radius: float, rounded: bool, *, own: bool = False
) -> Interval:
    """The bounds of a node's value, from those of the values before; see :func:`interval_bounds`.

    With ``own``, an affine map may overwrite the bounds that it reads.
    """
    node = network.nodes[number - 1]
    operator, inputs = node.operator, [values[i] for i in node.inputs]
    if isinstance(operator, Affine):
        return _affine(operator, inputs[0], radius, rounded, own and inputs[0].center is None)
    if isinstance(operator, Sum):
        return _sum(operator, inputs[0], inputs[1], rounded)
    positive = inputs[0].positive or (isinstance(operator, ReLU) and not operator.slope)
    # Monotone: both ends, eq. 7.
    return Interval(operator(inputs[0].lower), operator(inputs[0].upper), positive=positive)


def _affine(operator: Affine, z: Interval, radius: float, rounded: bool, own: bool) -> Interval:
    """Center and radius of an affine map: ``mu' = W mu + b``, ``r' = |W| r`` (eq. 6)."""
    if isinstance(operator, Average) and not operator.fan_in:  # entries are only moved
        moved = [None if each is None else operator(each) for each in (z.center, z.spread)]
        return Interval(operator(z.lower), operator(z.upper), moved[0], moved[1], z.positive)
    mu = z.lower.lerp_(z.upper, 0.5) if own else torch.lerp(z.lower, z.upper, 0.5)
    if not rounded:
        # In mixed precision products come in bfloat16, whose 8 bits would swallow a radius that is small beside the
        # center: the ends of the interval, from which the next layer takes both, stay in float32.
        wide = torch.promote_types(mu.dtype, torch.float32)
        r = operator.absolute(z.upper - mu).to(wide)
        mu = operator(mu).to(wide)
        lower, upper = mu - r, mu + r
    else:
        # The exact sum, ours, and that of a forward pass from any point of the interval differ by at most
        # gamma (|W| |mu| + |W| (|mu| + r) + 2 |b|), and the sum |W| r itself by a factor of 1 + gamma.
        error = gamma(operator.fan_in, mu.dtype)
        upper = z.upper if own else z.upper.clone()
        # What the errors add is a share of |mu|, which is mu where no entry is negative.
        r = upper.sub_(mu, alpha=1 - 2 * error) if z.positive else upper.sub_(mu).add_(mu.abs(), alpha=2 * error)
        # In place, and the upper end from the lower one: one operation less, and one rounding more.
        width = operator.width(r, error)
        lower = operator(mu).sub_(width, alpha=0.5)
        upper = width.add_(lower)
    if z.center is None or z.spread is None:
        return Interval(lower, upper)
    return _ball(operator, z, Interval(lower, upper), radius)


def _ball(operator: Affine, z: Interval, box: Interval, radius: float) -> Interval:
    """Bounds by the box and by the dual norm: a ball of L2 moves entry i by at most ``eps ||W_i||_2`` (sec. 3)."""
    assert z.center is not None and z.spread is not None
    error = gamma(operator.fan_in, z.lower.dtype)
    # Squares of small weights may underflow, in the square and in its product with the spread.
    underflow = smallest(operator.fan_in, z.lower.dtype) * (1 + z.spread.sum())
    mu, spread = operator(z.center), operator.squared(z.spread) * (1 + 2 * error) + underflow
    r = radius * spread.sqrt() * (1 + 2 * error) + 3 * error * operator.absolute(
        z.center.abs() + radius * z.spread.sqrt()
    )
    if operator.bias_size is not None:
        r = r + 3 * error * operator.bias_size
    lower, upper = torch.maximum(box.lower, mu - r), torch.minimum(box.upper, mu + r)
    return Interval(lower, upper, mu, spread) if isinstance(operator, Scale) else Interval(lower, upper)


def _sum(operator: Sum, a: Interval, b: Interval, rounded: bool) -> Interval:
    if operator.sign < 0:
        b = Interval(-b.upper, -b.lower)
    lower, upper = a.lower + b.lower, a.upper + b.upper
    if rounded:  # ours, and that of a forward pass
        size = torch.maximum(lower.abs(), upper.abs()) * (4 * unit(lower.dtype))
        lower, upper = lower - size, upper + size
    return Interval(lower, upper)


def interval_margins(network: Network, region: Region, y: Tensor, *, rounded: bool = True) -> Tensor:
    """Lower bounds of ``z_y - z_k`` for every class k, (B, classes); 0 for y itself. See :func:`margins_from`."""
    last = network.nodes[-1]
    end = len(network.nodes) - isinstance(last.operator, Linear)
    if rounded and not torch.is_grad_enabled() and len(y):
        size = max(PIECE // network.largest_value(region.lower), 1)
        found = [
            margins_from(_last_bounds(network, some, end), last, y[rows], rounded) for rows, some in region.pieces(size)
        ]
        return torch.cat(found)
    return margins_from(interval_bounds(network, region, rounded=rounded, end=end), last, y, rounded)


def smallest_margin(margins: Tensor, y: Tensor) -> Tensor:
    """The smallest margin (B,) over all classes but the own: above 0 for a certificate."""
    return margins.scatter(1, y[:, None], torch.inf).amin(1)


def margins_from(values: list[Interval], last: Node, y: Tensor, rounded: bool) -> Tensor:
    """Margins from the bounds of all values; that of a last linear layer, which is merged with them, may be missing.

    Bounds of ``(W_y - W_k) z + b_y - b_k`` are tighter than the difference of bounds (Gowal et al. 2018, sec. 3).
    """
    own = torch.nn.functional.one_hot(y, _classes(values, last)).bool()
    if not isinstance(last.operator, Linear):
        lower, upper = values[-1].lower, values[-1].upper
        margins = lower.gather(1, y[:, None]) - upper
        return (margins - 4 * unit(lower.dtype) * (margins.abs()) if rounded else margins).masked_fill(own, 0)
    weight, z = last.operator.weight, values[last.inputs[0]]
    mu = torch.lerp(z.lower, z.upper, 0.5)
    r = z.upper - mu
    logits = last.operator(mu)
    varies = torch.einsum("bkn,bn->bk", (weight[y][:, None] - weight).abs(), r)
    margins = logits.gather(1, y[:, None]) - logits - varies
    if rounded:
        # Both logits have the error of a sum each, here and in a forward pass.
        error = gamma(last.operator.fan_in, mu.dtype)
        size = last.operator.absolute(2 * mu.abs() + 2 * r)
        if last.operator.bias_size is not None:
            size = size + 2 * last.operator.bias_size
        margins = margins - 2 * error * (size + size.gather(1, y[:, None])) - smallest(weight.shape[1], mu.dtype)
    return margins.masked_fill(own, 0)


def _classes(values: list[Interval], last: Node) -> int:
    return len(last.operator.weight) if isinstance(last.operator, Linear) else values[-1].lower.shape[1]


def check_finite(network: Network, region: Region) -> None:
    """Name the first layer whose bounds are not finite, if there is one.

    Raises:
        UserError: there is.
    """
    for node, bounds in zip(network.nodes, interval_bounds(network, region)[1:], strict=True):
        if not bool(bounds.lower.isfinite().all() & bounds.upper.isfinite().all()):
            raise UserError(
                f"the interval bounds explode: those of the layer {node.operator.name} are not finite; "
                "take a smaller --eps, or a model that was trained for certificates"
            )
