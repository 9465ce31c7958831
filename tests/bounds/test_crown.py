"""CROWN and alpha-CROWN: closed forms, soundness, and that each is tighter than the one before."""

import copy

import pytest
import torch
from torch import nn

from helpers.bounded_networks import Residual, points, randomized, smallest_margins
from rivals.base.norm_balls import L2, Linf
from rivals.bounds.alpha_crown import AlphaCrown, alpha_crown_margins
from rivals.bounds.beta_crown import beta_crown_margins
from rivals.bounds.crown import Backward, by_crown, crown_ibp_margins, crown_intervals, crown_margins, differences
from rivals.bounds.ibp import interval_bounds, interval_margins
from rivals.bounds.operators import MaxPool2d, ReLU
from rivals.bounds.regions import Region, region_of
from rivals.bounds.relaxations import relax_max_pool, relax_relu
from rivals.bounds.tracing import trace
from rivals.nets.factory import build_classifier

BALLS = [Linf(0.05), Linf(0.3), L2(0.3)]


class Pair(nn.Module):
    """``relu(x) - relu(x) / 2``, which is never negative."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)
        self.up.weight.data = torch.ones(2, 1)
        self.down.weight.data = torch.tensor([[1.0, -0.5]])

    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


def lower_bound(network, region):
    backward = Backward(network, region, interval_bounds(network, region))
    return float(backward.lower(torch.ones(1, 1, 1), len(network.nodes)))


def test_crown_of_one_relu_is_the_line_of_its_closer_slope():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
    model[0].weight.data.fill_(1.0)
    network = trace(model, torch.ones(1, 1)).frozen()
    assert lower_bound(network, Region(-torch.ones(1, 1), 2 * torch.ones(1, 1))) == pytest.approx(-1, abs=1e-4)
    assert lower_bound(network, Region(-2 * torch.ones(1, 1), torch.ones(1, 1))) == pytest.approx(0, abs=1e-4)


def test_alpha_crown_finds_the_best_slope():
    # On [-1, 2] CROWN takes slope 1: x - (x + 1) / 3 at x = -1 is -1. Slope 0 gives -(2 + 1) / 3 at x = 2 as well;
    # slope a gives min(-a, 2 a - 1), at best -1 / 3.
    network = trace(Pair(), torch.ones(1, 1)).frozen()
    region = Region(-torch.ones(1, 1), 2 * torch.ones(1, 1))
    assert lower_bound(network, region) == pytest.approx(-1, abs=1e-4)
    found = AlphaCrown(network, region, torch.ones(1, 1, 1), iterations=60).lower()
    assert float(found) == pytest.approx(-1 / 3, abs=0.02)
    assert float(found) <= -1 / 3


@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_bounds_are_sound_and_tighter_from_method_to_method(ball):
    model = randomized(Residual(), "crown")
    x = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    network, region = trace(model, x).frozen(), region_of(x, ball)
    by_ibp = interval_margins(network, region, y)
    crown = crown_margins(network, region, y)
    by_alpha = alpha_crown_margins(network, region, y, iterations=5)
    # What is proven is not optimized further; with an offset nothing is.
    wanted = differences(y, 5, x.dtype)
    optimized = AlphaCrown(network, region, wanted, offset=-100.0, iterations=5).lower().T + 100
    inputs = points(x, ball, 200)
    truth = smallest_margins(copy.deepcopy(model).double(), inputs, y)
    in_single = smallest_margins(model, inputs.float(), y)
    by_crown_ibp = crown_margins(network, region, y, intermediate=None)
    for margins in (by_ibp, by_crown_ibp, crown, by_alpha, optimized):
        assert bool((margins <= truth).all() & (margins <= in_single).all())
    assert bool((crown >= by_ibp).all())
    assert crown.mean() > by_ibp.mean()
    start = Backward(network, region, crown_intervals(network, region, by_crown)).lower(wanted, len(network.nodes))
    assert optimized.mean() > start.mean()


def test_rounding_never_makes_a_bound_wrong():
    for seed in range(10):
        model = randomized(Residual(), f"crown rounding {seed}", 3.0)
        x = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
        y = model(x).argmax(1)
        exact = copy.deepcopy(model).double()
        margins = crown_margins(trace(model, x).frozen(), region_of(x, Linf(0.0)), y)
        logits = exact(x.double())
        assert bool((margins <= logits.gather(1, y[:, None]) - logits).all())
        assert bool((margins <= model(x).gather(1, y[:, None]) - model(x)).all())


def test_a_line_stays_above_the_relu_at_both_ends():
    lower = -torch.rand(10_000, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.randint(-6, 6, (10_000,))
    upper = torch.rand(10_000, generator=torch.Generator().manual_seed(1)) * 10.0 ** torch.randint(-6, 6, (10_000,))
    for slope in (0.0, 0.3):
        operator = trace(nn.Sequential(nn.LeakyReLU(slope)), lower).nodes[0].operator
        line = relax_relu(operator, lower, upper)
        for end in (lower.double(), upper.double()):
            value = torch.maximum(end, slope * end)
            assert bool((line.upper_slope.double() * end + line.upper_intercept.double() >= value).all())


@pytest.mark.parametrize("net", ["cnn", "resnet", "strided"])
def test_our_classifiers_have_bounds(net):
    torch.manual_seed(0)
    model = build_classifier(net, size=8, channels=1, classes=3, widths=(3, 3), mean=(0.1,), std=(0.3,)).eval()
    x = torch.rand(2, 1, 8, 8)
    y = model(x).argmax(1)
    network, region = trace(model, x).frozen(), region_of(x, Linf(0.02))
    margins = crown_margins(network, region, y)
    assert bool((smallest_margins(model.double(), points(x, Linf(0.02), 50), y) >= margins).all())
    assert margins.mean() > interval_margins(network, region, y).mean()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bounds_before_relus_are_tightened_in_any_memory_format(layout):
    torch.manual_seed(0)
    model = build_classifier("cnn", size=16, channels=3, classes=4, widths=(4, 6), mean=(0.4,) * 3, std=(0.2,) * 3)
    x = torch.rand(2, 3, 16, 16).contiguous(memory_format=layout)
    network, region = trace(model.eval(), x).frozen(), region_of(x, Linf(0.1))
    by_ibp, by_crown_ = crown_intervals(network, region, None), crown_intervals(network, region, by_crown)
    tightened = [
        node.inputs[0]
        for node in network.nodes
        if isinstance(node.operator, ReLU) and not torch.equal(*(v[node.inputs[0]].lower for v in (by_ibp, by_crown_)))
    ]
    relus = sum(isinstance(node.operator, ReLU) for node in network.nodes)
    assert len(tightened) == relus - 1  # all but the first, whose input is affine in the image
    for n in tightened:
        before, after = (values[n].upper - values[n].lower for values in (by_ibp, by_crown_))
        assert bool((after <= before).all()) and float(after.mean()) < 0.99 * float(before.mean())
    other = x.contiguous(memory_format=torch.contiguous_format).clone()
    for one, two in zip(by_crown_, crown_intervals(network, region_of(other, Linf(0.1)), by_crown), strict=True):
        torch.testing.assert_close(one.lower, two.lower)


def test_the_upper_plane_of_a_max_pool_has_a_gradient():
    # Two entries in [0, 1] and [0, 1 + w]: neither always wins, so the pool's upper bound is 1 + w.
    w = torch.tensor(0.5, requires_grad=True)
    lower = torch.zeros(1, 1, 1, 2)
    upper = torch.stack([torch.ones(()), 1 + w]).view(1, 1, 1, 2)
    planes = relax_max_pool(MaxPool2d("pool", (1, 2), (1, 2)), lower, upper)
    planes.most.sum().backward()
    assert w.grad == 1


def test_intermediate_bounds_are_computed_in_parts(monkeypatch):
    model = randomized(Residual(), "parts")
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    network, region = trace(model, x).frozen(), region_of(x, Linf(0.1))
    whole = crown_intervals(network, region, by_crown)
    monkeypatch.setattr("rivals.bounds.crown.MOST_ENTRIES", 4000)
    for one, other in zip(whole, crown_intervals(network, region, by_crown), strict=True):
        torch.testing.assert_close(one.lower, other.lower)


@pytest.mark.parametrize(
    "bound", [interval_margins, crown_ibp_margins, crown_margins, alpha_crown_margins, beta_crown_margins]
)
def test_no_images_have_no_margins(bound):
    model = randomized(Residual(), "no images").eval()
    x = torch.rand(0, 1, 16, 16)
    network = trace(model, torch.rand(1, 1, 16, 16)).frozen()
    margins = bound(network, region_of(x, Linf(0.1)), torch.zeros(0, dtype=torch.int64))
    assert margins.shape == (0, network(x).shape[1])
