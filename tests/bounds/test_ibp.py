"""Interval bounds: closed forms, soundness in float32, and networks whose bounds explode."""

import copy

import pytest
import torch
from torch import nn

from helpers.bounded_networks import Residual, points, randomized, smallest_margins
from helpers.refusals import named
from rivals.base.norm_balls import L1, L2, Linf
from rivals.bounds.ibp import check_finite, interval_bounds, interval_margins, margins_from
from rivals.bounds.regions import Region, region_of
from rivals.bounds.tracing import trace
from rivals.nets.factory import build_classifier

BALLS = [Linf(0.05), Linf(0.5), L2(0.3)]


def linear(weight, bias=None):
    layer = nn.Linear(len(weight[0]), len(weight), bias is not None)
    layer.weight.data = torch.tensor(weight)
    if bias is not None:
        layer.bias.data = torch.tensor(bias)
    return layer


def test_bounds_of_a_linear_layer_and_a_relu_are_exact():
    model = nn.Sequential(linear([[1.0, -2.0], [3.0, 0.5]], [0.25, -4.0]), nn.ReLU()).double()
    region = Region(torch.tensor([[-1.0, 0.0]]).double(), torch.tensor([[1.0, 2.0]]).double())
    bounds = interval_bounds(trace(model, region.lower), region, rounded=False)
    torch.testing.assert_close(bounds[1].lower, torch.tensor([[-4.75, -7.0]]).double())
    torch.testing.assert_close(bounds[1].upper, torch.tensor([[1.25, 0.0]]).double())
    torch.testing.assert_close(bounds[2].upper, torch.tensor([[1.25, 0.0]]).double())


def test_the_last_layer_is_merged_with_the_differences():
    # z_0 - z_1 is 1 whatever x is, though each logit varies by 2.
    model = linear([[1.0], [1.0]], [1.0, 0.0])
    region = Region(torch.tensor([[-1.0]]), torch.tensor([[1.0]]))
    margins = interval_margins(trace(model, region.lower), region, torch.tensor([0]))
    torch.testing.assert_close(margins, torch.tensor([[0.0, 1.0]]), atol=1e-4, rtol=0)


def test_a_linear_classifier_in_l2_has_the_dual_norm():
    model = linear([[3.0, 4.0], [0.0, 0.0]])
    x = torch.full((1, 2), 0.5)
    margins = interval_margins(trace(model, x), region_of(x, L2(0.1)), torch.tensor([0]))
    bounds = interval_bounds(trace(model, x), region_of(x, L2(0.1)))[1]
    torch.testing.assert_close(bounds.lower[0, 0], torch.tensor(3.5 - 0.5), atol=1e-4, rtol=0)
    assert margins[0, 1] <= 3.0


@pytest.mark.parametrize("size", [1e-20, 1e-23, 0.0])
def test_bounds_in_l2_hold_where_squared_weights_underflow(size):
    # (1e-20)^2 is no float32: the ball's share of the radius would be 0, and that of the box alone is far larger.
    first = nn.Linear(64, 2, bias=False)
    first.weight.data = torch.full((2, 64), size) * torch.tensor([[1.0], [-1.0]])
    x = torch.full((1, 64), 0.5)
    bounds = interval_bounds(trace(first, x), region_of(x, L2(0.25)))[1]
    farthest = first.weight.double() @ x[0].double() + first.weight.double().norm(dim=1) * 0.25
    assert bool((bounds.upper[0].double() >= farthest).all())
    bounds.upper.sum().backward()
    assert bool(first.weight.grad.isfinite().all())


def test_the_box_of_valid_images_cuts_the_ball():
    region = region_of(torch.tensor([[0.0, 0.95]]), Linf(0.1))
    torch.testing.assert_close(region.lower, torch.tensor([[0.0, 0.85]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(region.upper, torch.tensor([[0.1, 1.0]]), atol=1e-6, rtol=0)
    assert region.upper[0, 0].double() >= 0.1


@pytest.mark.parametrize("ball", BALLS, ids=str)
@pytest.mark.parametrize("folded", [False, True])
def test_no_point_of_the_ball_is_outside(ball, folded):
    model = randomized(Residual(), "residual")
    x = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    y = model(x).argmax(1)
    network = trace(model, x)
    margins = interval_margins(network.frozen() if folded else network, region_of(x, ball), y)
    inputs = points(x, ball, 100)
    assert bool((smallest_margins(copy.deepcopy(model).double(), inputs, y) >= margins).all())
    assert bool((smallest_margins(model, inputs.float(), y) >= margins).all())


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_rounding_never_makes_a_bound_wrong(scale):
    # With a radius of 0 the exact bounds are the logits: any error of float32 would cross them.
    for seed in range(12):
        model = randomized(Residual(), f"rounding {seed}", scale)
        x = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
        exact = copy.deepcopy(model).double()
        for network in (trace(model, x), trace(model, x).frozen()):
            single = interval_bounds(network, region_of(x, Linf(0.0)), rounded=True)
            double = interval_bounds(trace(exact, x.double()), region_of(x.double(), Linf(0.0)), rounded=False)
            assert bool((single[-1].lower.double() <= double[-1].lower).all())
            assert bool((single[-1].upper.double() >= double[-1].upper).all())
            assert bool((single[-1].lower <= model(x)).all() & (model(x) <= single[-1].upper).all())


class Shared(nn.Module):
    """Values that are read again after what was made of them: by a view, by a sum, by both ends of a residual."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.wide, self.narrow = nn.Linear(3 * 64, 4), nn.Linear(3, 4)

    def forward(self, x):
        h = torch.relu(self.conv1(x))
        flat = h.flatten(1)
        logits = self.wide(flat) + self.wide(torch.relu(self.conv2(h) + h).flatten(1))
        return logits + self.narrow(h.mean((2, 3))) - self.wide(flat)


@pytest.mark.parametrize("ball", BALLS, ids=str)
@pytest.mark.parametrize("kind", [Residual, Shared])
def test_bounds_that_overwrite_what_was_read_are_the_same_and_leave_the_region_alone(ball, kind):
    model = randomized(kind(), "overwritten")
    side = 16 if kind is Residual else 8
    x = torch.rand(3, 1, side, side, generator=torch.Generator().manual_seed(2))
    y, region = model(x).argmax(1), region_of(x, ball)
    before = region.lower.clone(), region.upper.clone()
    network = trace(model, x).frozen()
    last = network.nodes[-1]
    kept = margins_from(interval_bounds(network, region), last, y, rounded=True)
    with torch.no_grad():
        overwritten = interval_margins(network, region, y)
    torch.testing.assert_close(overwritten, kept, rtol=0, atol=0)
    assert torch.equal(region.lower, before[0])
    assert torch.equal(region.upper, before[1])


@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_images_bounded_in_pieces_have_the_same_margins(ball, monkeypatch):
    model = randomized(Residual(), "pieces")
    x = torch.rand(7, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    y, network = model(x).argmax(1), trace(model, x).frozen()
    with torch.no_grad():
        whole = interval_margins(network, region_of(x, ball), y)
        monkeypatch.setattr("rivals.bounds.ibp.PIECE", 3 * network.largest_value(x))
        pieces = interval_margins(network, region_of(x, ball), y)
        nothing = interval_margins(network, region_of(x[:0], ball), y[:0])
    torch.testing.assert_close(pieces, whole, rtol=1e-5, atol=1e-5)
    assert nothing.shape == (0, 5)


def test_the_margin_for_rounding_is_small():
    model = randomized(Residual(), "small")
    x = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    network, region = trace(model, x).frozen(), region_of(x, Linf(0.05))
    loose, tight = (interval_margins(network, region, y, rounded=rounded) for rounded in (True, False))
    assert bool((loose <= tight).all())
    torch.testing.assert_close(loose, tight, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("net", ["cnn", "resnet", "strided"])
def test_our_classifiers_have_bounds(net):
    model = build_classifier(net, size=12, channels=1, classes=3, widths=(4, 4), mean=(0.1,), std=(0.3,)).eval()
    model.spec["flip_tta"] = True
    x = torch.rand(2, 1, 12, 12)
    y = model(x).argmax(1)
    network = trace(model, x).frozen()
    torch.testing.assert_close(network(x), model(x), atol=1e-5, rtol=1e-5)
    margins = interval_margins(network, region_of(x, Linf(0.01)), y)
    assert bool((smallest_margins(model.double(), points(x, Linf(0.01), 20), y) >= margins).all())


def test_bounds_that_explode_name_their_layer():
    model = nn.Sequential(*(linear([[1e30]]) for _ in range(3)))
    x = torch.ones(1, 1)
    with named("explode", "layer 1", "--eps"):
        check_finite(trace(model, x), region_of(x, Linf(0.1)))


def test_other_norms_are_refused():
    with named("L1", "linf or l2"):
        region_of(torch.zeros(1, 2), L1(1.0))
