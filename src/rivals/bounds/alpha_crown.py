"""Alpha-CROWN: CROWN with optimized lower bounds of ReLUs (Xu et al. 2021, *Fast and Complete*)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rivals.bounds.crown import (
    Backward,
    Slopes,
    both_signs,
    by_crown,
    crown_intervals,
    differences,
    outward,
    specifications_at_once,
    unstable_entries,
)
from rivals.bounds.ibp import Interval
from rivals.bounds.network import Network
from rivals.bounds.operators import ReLU
from rivals.bounds.regions import Region

RATE, DECAY = 0.25, 0.97
"""Of Adam's steps on the slopes, and the factor of it after each step; the authors' code has 0.1 and 0.98 for 100."""
ITERATIONS = 20
EVERY = 10
MOST_SLOPES = 2**27
"""Slopes that are optimized at once; above, those of bounds inside the network are left as CROWN's."""


class SlopeDescent:
    """Adam (Kingma & Ba 2015) with a learning rate that decays; torch's takes seconds to import.

    Args:
        parameters: Changed in place.
        rate: The first learning rate.
    """

    def __init__(self, parameters: list[Tensor], rate: float = RATE) -> None:
        self.parameters, self.rate = parameters, rate
        self.means = [torch.zeros_like(each) for each in parameters]
        self.squares = [torch.zeros_like(each) for each in parameters]
        self.steps = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """Move against the gradients."""
        self.steps += 1
        rate = self.rate * DECAY ** (self.steps - 1)
        for parameter, gradient, mean, square in zip(self.parameters, gradients, self.means, self.squares, strict=True):
            if gradient is not None:
                mean.lerp_(gradient, 0.1)
                square.lerp_(gradient.square(), 0.001)
                first, second = mean / (1 - 0.9**self.steps), square / (1 - 0.999**self.steps)
                parameter.sub_(rate * first / (second.sqrt() + 1e-8))


@dataclass
class AlphaCrown:
    """The optimization for one batch.

    Every choice of slopes gives valid bounds, so the best of all steps is kept, for each bound by itself. Slopes are
    optimized for each bound of the output and then, unless they are too many, for each bound before a ReLU as well (Xu
    et al. 2021, sec. 3.2): these enter all later ones through the relaxations.

    Attributes:
        network: The network.
        region: The inputs.
        coefficients: Of the output, (specifications, B, outputs): what is bounded from below.
        offset: Added to the bounds, (specifications, B): a bound above 0 is a proof.
        iterations: Steps of Adam.
    """

    network: Network
    region: Region
    coefficients: Tensor
    offset: Tensor | float = 0.0
    iterations: int = ITERATIONS
    _slopes: dict[int, dict[int, Tensor]] = field(default_factory=dict)
    _entries: dict[int, Tensor] = field(default_factory=dict)
    _starts: dict[int, Tensor] = field(default_factory=dict)

    def lower(self) -> Tensor:
        """Lower bounds (specifications, B) of the coefficients times the output, plus the offset."""
        bounds = crown_intervals(self.network, self.region, by_crown)
        output = len(self.network.nodes)
        best = Backward(self.network, self.region, bounds).lower(self.coefficients, output) + self.offset
        # First the slopes of the output alone, which cost a fraction.
        for begin in (self._begin, self._begin_inside):
            if bool((best > 0).all()) or not begin(bounds, output):
                return best
            best = self._optimize(bounds, output, best)
        return best

    def _optimize(self, bounds: list[Interval], output: int, best: Tensor) -> Tensor:
        """The best bounds of all steps and those before, (specifications, B)."""
        parameters = [slope for slopes in self._slopes.values() for slope in slopes.values()]
        adam = SlopeDescent(parameters)
        for iteration in range(1, self.iterations + 1):
            with torch.enable_grad():
                found = self._bound(bounds, output, rounded=False)
                # What is proven needs no better bound.
                loss = -found.where(best <= 0, torch.zeros_like(found)).sum()
            if not loss.requires_grad:
                break
            adam.step(torch.autograd.grad(loss, parameters, allow_unused=True))
            self._clip()
            # A step is a proof only with the margins for rounding, which are computed where there may be one.
            if iteration == self.iterations or bool(((found > 0) & (best <= 0)).any()) or iteration % EVERY == 0:
                with torch.no_grad():
                    best = torch.maximum(best, self._bound(bounds, output, rounded=True))
            if bool((best > 0).all()):
                break
        return best

    def _begin(self, bounds: list[Interval], output: int) -> bool:
        """Start at CROWN's slopes for the output. Returns whether there are any unstable ReLUs."""
        relus = [number for number, node in self.network.numbered() if isinstance(node.operator, ReLU)]
        backward = Backward(self.network, self.region, bounds)
        lines = {number: backward.relaxed(number) for number in relus}
        self._starts = {number: line.lower_slope for number, line in lines.items() if bool(line.unstable.any())}
        self._start(output, len(self.coefficients))
        return bool(self._starts)

    def _begin_inside(self, bounds: list[Interval], output: int) -> bool:
        """Start at CROWN's slopes for all bounds before ReLUs. Returns whether there are any, and not too many."""
        before = sorted({self.network.nodes[number - 1].inputs[0] for number in self._starts})
        entries = {value: unstable_entries(bounds[value]) for value in before}
        sizes = [
            2 * len(some) * start.numel()
            for value, some in entries.items()
            for number, start in self._starts.items()
            if number < value
        ]
        if not 0 < sum(sizes) <= MOST_SLOPES:
            return False
        for value, some in entries.items():
            self._entries[value] = some
            self._start(value, 2 * len(some))
        return True

    def _start(self, target: int, count: int) -> None:
        """Slopes of the ReLUs before a value, one each for ``count`` bounds of it."""
        before = {number: start for number, start in self._starts.items() if number < target}
        self._slopes[target] = {
            number: start.expand(count, *start.shape).clone().requires_grad_() for number, start in before.items()
        }

    def _clip(self) -> None:
        with torch.no_grad():
            for slopes in self._slopes.values():
                for number, slope in slopes.items():
                    operator = self.network.nodes[number - 1].operator
                    assert isinstance(operator, ReLU)
                    slope.clamp_(operator.slope, 1)

    def _bound(self, crown: list[Interval], output: int, rounded: bool) -> Tensor:
        """The bounds of the output by the slopes as they are."""

        def tighten(backward: Backward, value: int) -> Interval:
            bounds = crown[value]
            if not self._slopes.get(value):
                return bounds
            return _with_slopes(backward, value, self._entries[value], self._slopes[value], bounds)

        inside = len(self._slopes) > 1
        bounds = crown_intervals(self.network, self.region, tighten, rounded=rounded) if inside else crown
        lower = Backward(self.network, self.region, bounds, rounded).lower(
            self.coefficients, output, self._slopes[output]
        )
        return lower + self.offset


def _with_slopes(backward: Backward, value: int, entries: Tensor, slopes: Slopes, known: Interval) -> Interval:
    """The bounds of some entries of a value by optimized slopes, differentiable by them; never worse than the known."""
    specifications = both_signs(entries, known.lower)
    rows = torch.arange(len(entries), device=entries.device)
    lower, upper = known.lower.flatten(1), known.upper.flatten(1)
    for some in torch.split(rows, specifications_at_once(backward.bounds, value, 2)):
        both = torch.cat([some, some + len(entries)])
        new = backward.lower(specifications[both], value, {number: slope[both] for number, slope in slopes.items()})
        below, above = outward(new[: len(some)].T.to(lower.dtype), -new[len(some) :].T.to(lower.dtype))
        places = entries[some].expand(len(lower), -1)
        lower = lower.scatter(1, places, torch.maximum(lower.gather(1, places), below))
        upper = upper.scatter(1, places, torch.minimum(upper.gather(1, places), above))
    return Interval(lower.view_as(known.lower), upper.view_as(known.upper))


def alpha_crown_margins(network: Network, region: Region, y: Tensor, *, iterations: int = ITERATIONS) -> Tensor:
    """Alpha-CROWN's lower bounds of ``z_y - z_k`` for every class k, (B, classes); 0 for y itself.

    Args:
        network: The network.
        region: The inputs.
        y: The labels (B,).
        iterations: Steps of Adam.
    """
    classes = network(region.lower).shape[1]
    others = torch.arange(classes, device=y.device).expand(len(y), -1)
    others = others[others != y[:, None]].view(len(y), classes - 1)  # without z_y - z_y, which is always 0
    coefficients = differences(y, classes, region.lower.dtype)
    chosen = coefficients.transpose(0, 1).gather(1, others[..., None].expand(-1, -1, classes)).transpose(0, 1)
    lower = AlphaCrown(network, region, chosen, iterations=iterations).lower()
    return lower.new_zeros(len(y), classes).scatter(1, others, lower.T)
