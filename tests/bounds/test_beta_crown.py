"""Beta-CROWN: each case is bounded soundly, all of them together, and what needs cases is proven."""

import pytest
import torch
from torch import nn

from helpers.bounded_networks import Residual, points, randomized, smallest_margins
from rivals.base.norm_balls import L2, Linf
from rivals.bounds.alpha_crown import AlphaCrown
from rivals.bounds.beta_crown import BranchAndBound, beta_crown_margins
from rivals.bounds.crown import by_crown, crown_intervals, crown_margins
from rivals.bounds.regions import region_of
from rivals.bounds.tracing import trace

CENTER = torch.full((1, 2), 0.5)


def plane(seed):
    """A network of two inputs and one output, whose values on a fine grid tell its minimum."""
    model = nn.Sequential(nn.Linear(2, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 1))
    return randomized(model, seed, 2.0)


def grid(ball, steps=201):
    """Inputs over the square around the center, (steps ** 2, 2)."""
    side = torch.linspace(0.5 - ball.eps, 0.5 + ball.eps, steps)
    return torch.cartesian_prod(side, side)


def search_in(model, ball, offset):
    network, region = trace(model, CENTER).frozen(), region_of(CENTER, ball)
    bounds = crown_intervals(network, region, by_crown)
    return BranchAndBound(network, region, bounds, torch.ones(1), offset)


@pytest.mark.parametrize("seed", ["one", "d", "g"])
def test_cases_prove_what_slopes_alone_cannot(seed):
    """A minimum a little above 0; the search is complete if it may have all the cases."""
    model, ball = plane(seed), Linf(0.4)
    with torch.no_grad():
        values = model(grid(ball))
    offset = float(0.03 * (values.max() - values.min()) - values.min())
    network, region = trace(model, CENTER).frozen(), region_of(CENTER, ball)
    assert float(AlphaCrown(network, region, torch.ones(1, 1, 1), offset).lower()) < 0
    assert search_in(model, ball, offset).lower(cases=5000) > 0


@pytest.mark.parametrize("seed", ["one", "two", "three"])
def test_the_bound_is_below_the_minimum(seed):
    model, ball = plane(seed), Linf(0.4)
    with torch.no_grad():
        lowest = float(model(grid(ball)).min())
    offset = -lowest - 0.01
    assert search_in(model, ball, offset).lower(cases=500) <= lowest + offset + 1e-5


@pytest.mark.parametrize("seed", ["one", "g"])
def test_each_case_is_below_the_values_of_its_inputs(seed):
    """With a wrong sign of beta a case would be bounded by what lies outside of it."""
    model, ball = plane(seed), Linf(0.4)
    x = grid(ball, 61)
    with torch.no_grad():
        values = model(x)[:, 0]
        search = search_in(model, ball, -float(values.max()))
        cases = search._whole()
        before = {n: search.network.values(x)[value] for n, value in search.relus.items()}
        for _ in range(5):
            cases = search._bounded(search._split(cases), 10)
    seen = 0
    for i, bound in enumerate(cases.lower.tolist()):
        inside = torch.ones(len(x), dtype=torch.bool)
        for n, sign in cases.signs.items():
            inside &= (before[n] * sign[i] >= 0).all(1)
        if bool(inside.any()):
            seen += 1
            assert bound <= float(values[inside].min() - values.max()) + 1e-5
    assert seen > 4
    assert max(float(beta.max()) for beta in cases.multipliers.values()) > 0


@pytest.mark.parametrize("ball", [Linf(0.02), Linf(0.1), L2(0.2)])
def test_margins_of_images_hold_and_are_at_least_those_of_crown(ball):
    model = randomized(Residual(), "images")
    x = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    network, region = trace(model, x).frozen(), region_of(x, ball)
    with torch.no_grad():
        margins = beta_crown_margins(network, region, y, cases=40)
        lowest = smallest_margins(model.double(), points(x, ball, 64), y)
        crown = torch.cat([crown_margins(network, region.part(i), y[i]) for i in torch.arange(3).split(1)])
    assert bool((margins <= lowest + 1e-9).all())
    assert bool((margins >= crown).all())


def test_without_a_radius_the_margins_are_those_of_the_logits():
    model = randomized(Residual(), "images")
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(x)
        y = logits.argmin(1)  # no margin is positive: all are searched
        margins = beta_crown_margins(trace(model, x).frozen(), region_of(x, Linf(0.0)), y, cases=10)
    torch.testing.assert_close(margins.float(), logits.gather(1, y[:, None]) - logits, atol=1e-3, rtol=1e-3)


class DeadBranch(nn.Module):
    """A ReLU on which no logit depends."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.unused, self.head = nn.Linear(4, 6), nn.Linear(4, 5), nn.Linear(6, 3)

    def forward(self, x):
        torch.relu(self.unused(x))
        return self.head(torch.relu(self.hidden(x)))


class OnTheInput(nn.Module):
    """A ReLU of the input itself, read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.relu(x - 0.5) - x + torch.relu(x - 0.5))


@pytest.mark.parametrize("model", [nn.Sequential(nn.Linear(4, 3)), DeadBranch(), OnTheInput()])
def test_networks_with_few_relus_or_idle_ones_are_bounded(model):
    model, ball = randomized(model, "few"), Linf(0.3)
    x = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmin(1)
        margins = beta_crown_margins(trace(model, x).frozen(), region_of(x, ball), y, cases=40)
        lowest = smallest_margins(model.double(), points(x, ball, 64), y)
    assert bool((margins <= lowest + 1e-6).all())
