"""Beta-CROWN: branch and bound over the signs of ReLUs (Wang et al. 2021, *Beta-CROWN*)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rivals.bounds.alpha_crown import SlopeDescent
from rivals.bounds.crown import Backward, by_crown, crown_intervals, differences, dot, margins_by
from rivals.bounds.ibp import Interval
from rivals.bounds.network import Network
from rivals.bounds.operators import ReLU
from rivals.bounds.regions import Region
from rivals.bounds.rounding import gamma

ITERATIONS = 20
"""Steps for the whole set of inputs; a case, which starts from what the one before found, takes half of them."""
AT_ONCE = 32
CASES = 256
"""Of a pair of classes of an image: cases that are bounded until it is left open."""
RATES = {"slopes": 0.1, "multipliers": 0.05}

Signs = Mapping[int, Tensor]
"""By the number of a ReLU: 1 where its input is at least 0, -1 where it is at most 0, 0 elsewhere; (cases, ...)."""


@dataclass
class Cases:
    """Parts of a set of inputs, in each of which some ReLUs have inputs of a known sign.

    Attributes:
        lower: A lower bound of what is bounded, (cases,).
        signs: What is known.
        slopes: Of the lower bounds of ReLUs, (cases, ...) by number of the ReLU.
        multipliers: Of what is known, at least 0: beta of the paper, likewise.
    """

    lower: Tensor
    signs: dict[int, Tensor]
    slopes: dict[int, Tensor]
    multipliers: dict[int, Tensor]

    def part(self, rows: Tensor) -> Cases:
        """Some of the cases, by their numbers."""
        parts = ({n: each[rows] for n, each in of.items()} for of in (self.signs, self.slopes, self.multipliers))
        return Cases(self.lower[rows], *parts)

    def and_(self, other: Cases) -> Cases:
        """These cases and others."""
        pairs = ((self.signs, other.signs), (self.slopes, other.slopes), (self.multipliers, other.multipliers))
        joined = ({n: torch.cat([one[n], two[n]]) for n in one} for one, two in pairs)
        return Cases(torch.cat([self.lower, other.lower]), *joined)


@dataclass
class _SplitBackward(Backward):
    """The backward pass for cases.

    Within a case ``sign * z >= 0``, so ``- beta sign z`` with beta >= 0 may be added to what is bounded from below (the
    Lagrangian, eq. 5-8). All else is as for the whole set, whose bounds hold in every case.

    Attributes:
        root: That of the whole set.
        signs: What is known.
        multipliers: beta.
        reached: The coefficients of the output of each ReLU, (1, cases, ...).
    """

    root: Backward = field(kw_only=True)
    signs: Signs = field(kw_only=True)
    multipliers: Signs = field(kw_only=True)
    reached: dict[int, Tensor] = field(default_factory=dict)

    def _size(self, number: int) -> Tensor:
        return self.root._size(number)

    def _through_relu(self, a: Tensor, number: int, slope: Tensor | None) -> tuple[Tensor, Tensor]:
        through, constant = super()._through_relu(a, number, slope)
        self.reached[number] = a
        beta = self.multipliers.get(number)
        if beta is None:
            return through, constant
        if self.rounded:  # of one sum more
            size = through.abs() + beta
            constant = constant - 1.01 * gamma(0, a.dtype) * dot(size, self._size(number))
        return through - beta * self.signs[number], constant


class BranchAndBound:
    """The search for a proof that ``<coefficients, output> + offset`` is positive, for one image.

    Args:
        network: The network.
        region: The set of inputs, of one image.
        bounds: Those of all values, by CROWN.
        coefficients: Of the output, (outputs,).
        offset: Added.
    """

    def __init__(
        self, network: Network, region: Region, bounds: list[Interval], coefficients: Tensor, offset: float = 0.0
    ) -> None:
        self.network, self.bounds = network, bounds
        self.coefficients, self.offset = coefficients, offset
        self.root = Backward(network, region, bounds)
        read = {len(network.nodes)}
        for number, node in reversed(network.numbered()):
            read |= set(node.inputs) if number in read else set()
        relus = [(n, node) for n, node in network.numbered() if n in read and isinstance(node.operator, ReLU)]
        self.relus = {n: node.inputs[0] for n, node in relus}  # those on which the output depends

    def lower(self, cases: int = CASES) -> float:
        """A lower bound over all inputs, above 0 if there is a proof with at most so many cases."""
        open_, closed = self._whole(), []
        count = 1
        while bool((open_.lower <= 0).any()) and count < cases:
            # The lowest first: where a counterexample is near, the cases are soon used up, and nothing else is lost.
            order = open_.lower.argsort()
            taken, rest = open_.part(order[: AT_ONCE // 2]), open_.part(order[AT_ONCE // 2 :])
            split = self._split(taken)
            if split is None:
                break
            count += len(split.lower)
            bounded = self._bounded(split, ITERATIONS // 2)
            proven = bounded.lower > 0
            closed.append(bounded.lower[proven])
            open_ = rest.and_(bounded.part((~proven).nonzero()[:, 0]))
        lowest = torch.cat([open_.lower, *closed])
        return float(lowest.min())

    def _whole(self) -> Cases:
        """The whole set as one case."""
        lines = {n: self.root.relaxed(n) for n in self.relus}
        signs = {n: torch.zeros_like(line.lower_slope, dtype=torch.int8) for n, line in lines.items()}
        slopes = {n: line.lower_slope.clone() for n, line in lines.items()}
        multipliers = {n: torch.zeros_like(line.lower_slope) for n, line in lines.items()}
        lower = self.root.lower(self.coefficients[None, None], len(self.network.nodes))[0] + self.offset
        whole = Cases(lower, signs, slopes, multipliers)
        return self._bounded(whole, ITERATIONS)

    def _backward(self, cases: Cases) -> _SplitBackward:
        """The pass for cases, with the signs in the bounds of the inputs of ReLUs, without rounding."""
        bounds = list(self.bounds)
        for n, value in self.relus.items():
            lower, upper, sign = bounds[value].lower, bounds[value].upper, cases.signs[n]
            bounds[value] = Interval(
                torch.where(sign > 0, lower.clamp_min(0), lower), torch.where(sign < 0, upper.clamp_max(0), upper)
            )
        region = self.root.region.part(torch.zeros(len(cases.lower), dtype=torch.int64))
        return _SplitBackward(
            *(self.network, region, bounds, False),
            root=self.root,
            signs=cases.signs,
            multipliers={n: beta for n, beta in cases.multipliers.items() if bool(cases.signs[n].any())},
        )

    def _lower(self, backward: _SplitBackward, cases: Cases) -> Tensor:
        wanted = self.coefficients.expand(1, len(cases.lower), -1)
        slopes = {n: slope[None] for n, slope in cases.slopes.items()}
        return backward.lower(wanted, len(self.network.nodes), slopes)[0] + self.offset

    def _bounded(self, cases: Cases, iterations: int) -> Cases:
        """The cases with slopes and multipliers that were optimized, and better bounds."""
        slopes = [each.requires_grad_() for each in cases.slopes.values()]
        betas = [each.requires_grad_() for n, each in cases.multipliers.items() if bool(cases.signs[n].any())]
        descents = [SlopeDescent(slopes, RATES["slopes"]), SlopeDescent(betas, RATES["multipliers"])]
        backward = self._backward(cases)
        for _ in range(iterations if slopes else 0):
            with torch.enable_grad():
                found = self._lower(backward, cases)
                loss = -found.clamp_max(0).sum()
            if not bool((found <= 0).any()):
                break
            gradients = torch.autograd.grad(loss, [*slopes, *betas], allow_unused=True)
            descents[0].step(gradients[: len(slopes)])
            descents[1].step(gradients[len(slopes) :])
            with torch.no_grad():
                for n, slope in cases.slopes.items():
                    operator = self.network.nodes[n - 1].operator
                    assert isinstance(operator, ReLU)
                    slope.clamp_(operator.slope, 1)
                for beta in betas:
                    beta.clamp_(min=0)
        for each in [*slopes, *betas]:
            each.requires_grad_(False)
        # The bound of a case is that of the one it is a part of, or better.
        cases.lower = torch.maximum(cases.lower, self._lower(replace(backward, rounded=True), cases))
        return cases

    @torch.no_grad()
    def _split(self, cases: Cases) -> Cases | None:
        """Each case as two, by the sign of the ReLU whose relaxation costs most; None if a case has none left."""
        if not self.relus:
            return None
        backward = self._backward(cases)
        self._lower(backward, cases)
        costs = [self._cost(backward, n, cases.slopes[n]).flatten(1) for n in self.relus]
        most, chosen = torch.cat(costs, 1).max(1)
        if bool((most <= 0).any()):
            return None
        sizes = [each.shape[1] for each in costs]
        marked = torch.zeros(len(chosen), sum(sizes), dtype=torch.int8, device=chosen.device)
        marks = torch.split(marked.scatter_(1, chosen[:, None], 1), sizes, 1)

        def half(sign: int) -> Cases:
            known = zip(cases.signs.items(), marks, strict=True)
            return replace(cases, signs={n: before + sign * mark.view_as(before) for (n, before), mark in known})

        return half(1).and_(half(-1))

    def _cost(self, backward: _SplitBackward, number: int, slope: Tensor) -> Tensor:
        """How far the relaxation of each ReLU may be off, times its coefficient, (cases, ...); 0 where it is exact."""
        line, a = backward.relaxed(number), backward.reached[number][0]
        bounds = backward.bounds[self.relus[number]]
        below = torch.maximum((1 - slope) * bounds.upper, -slope * bounds.lower)
        cost = a.clamp_min(0) * below - a.clamp_max(0) * line.upper_intercept
        return torch.where(line.unstable, cost, torch.zeros_like(cost))


def beta_crown_margins(network: Network, region: Region, y: Tensor, *, cases: int = CASES) -> Tensor:
    """Lower bounds of ``z_y - z_k`` for every class k, (B, classes); 0 for y itself.

    Those that CROWN does not prove are bounded case by case, the lowest first, until one is left open.

    Args:
        network: The network.
        region: The inputs.
        y: The labels (B,).
        cases: The most that are bounded for a class.
    """
    found = [_margins(network, region.part(slice(i, i + 1)), y[i : i + 1], cases) for i in range(len(y))]
    return torch.cat(found) if found else network(region.lower).double()


def _margins(network: Network, region: Region, y: Tensor, cases: int) -> Tensor:
    bounds = crown_intervals(network, region, by_crown)
    margins = margins_by(Backward(network, region, bounds), y)
    wanted = differences(y, margins.shape[1], region.lower.dtype)
    for k in margins[0].argsort().tolist():
        if k != int(y) and margins[0, k] <= 0:
            found = BranchAndBound(network, region, bounds, wanted[k, 0]).lower(cases)
            margins[0, k] = max(found, float(margins[0, k]))
            if margins[0, k] <= 0:
                break
    return margins
