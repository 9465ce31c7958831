"""A trace computes what the model computes, or the model is refused: in-place operations, precisions, shapes, sizes."""

import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rivals
from helpers.refusals import named
from rivals import L2, Linf
from rivals.bounds.ibp import interval_bounds
from rivals.bounds.regions import region_of
from rivals.bounds.rounding import gamma
from rivals.bounds.tracing import trace

X = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))


class Function(nn.Module):
    """A model of one expression, with two layers at hand."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.register_buffer("pixel", torch.rand(2, 1, 1))
        self.register_buffer("colors", torch.rand(3, 2, 1, 1))

    def forward(self, x):
        return self.function(self, x).flatten(1)


def overwritten(change):
    """An expression that reads a value again after it was changed in place."""

    def function(net, x):
        h = net.a(x)
        changed = change(h)
        return net.b(h) - changed

    return function


def view_read_later(net, x):
    h = net.a(x)
    flat = h.flatten(1)
    h.relu_()
    return flat


def copy_read_later(net, x):
    h = net.a(x)
    before = h.clone()
    h.relu_()
    return net.b(h) + before


def in_autocast(net, x):
    with torch.autocast("cpu", torch.bfloat16):
        return net.b(net.a(x))


@pytest.mark.parametrize(
    "function",
    [
        overwritten(lambda h: F.relu(h, inplace=True)),
        overwritten(lambda h: F.relu(h, True)),
        overwritten(lambda h: F.leaky_relu(h, 0.1, True)),
        overwritten(lambda h: h.relu_()),
        overwritten(lambda h: h.mul_(-2.0)),
        overwritten(lambda h: operator.iadd(h, 0.5)),
        overwritten(nn.ReLU(inplace=True)),
        copy_read_later,
        lambda net, x: x + x,
        lambda net, x: net.a(x) - net.a(x),
        lambda net, x: torch.add(x, other=net.a(x)),
        lambda net, x: torch.sub(input=x, other=0.25),
        lambda net, x: net.a(x).view(x.size(0), -1),
        lambda net, x: net.a(x).reshape(x.shape[0], -1),
        lambda net, x: x.mean(2, True),
        lambda net, x: x.float().to(torch.float32).to("cpu"),
        lambda net, x: (x - net.pixel) / 0.3,
    ],
)
def test_a_trace_computes_what_the_model_computes(function):
    model = Function(function).eval()
    torch.testing.assert_close(trace(model, X)(X.clone()), model(X.clone()))


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        (view_read_later, ("relu_", "in place", "flatten", "read later")),
        (in_autocast, ("cannot be traced", "autocast")),
        (lambda net, x: net.a(x.half().float()), ("half",)),
        (lambda net, x: net.a(x.to(torch.bfloat16).to(torch.float32)), ("to", "bfloat16")),
        (lambda net, x: net.a(x.to(dtype=torch.float64)), ("to", "float64")),
        (lambda net, x: torch.div(x, 0.1, rounding_mode="floor"), ("div", "rounding_mode")),
        (lambda net, x: x.mean((2, 3), dtype=torch.float64), ("mean", "dtype")),
        (lambda net, x: x + x.mean(1, keepdim=True), ("repeats values", "(2, 4, 4) and (1, 4, 4)")),
        (lambda net, x: x[:, :1] - net.colors, ("getitem",)),
        (lambda net, x: x.mean(1, keepdim=True) - net.pixel, ("repeats values",)),
        (lambda net, x: x.view(-1, 5), ("view", "(2, 4, 4)")),
        (lambda net, x: net.a(x) + x.data, ("data of a value",)),
        (lambda net, x: net.a(x).mT - net.b(x), ("mT of a value",)),
        (lambda net, x: net.a(x).view(x.size(0), x.size(1), 16), ("view", "computed")),
    ],
)
def test_what_a_trace_would_not_follow_is_named(function, parts):
    with named(*parts):
        trace(Function(function).eval(), X)


def test_a_trace_in_another_precisions_context_is_that_of_the_model():
    model = Function(lambda net, x: net.a(x)).eval()
    with torch.autocast("cpu", torch.bfloat16):  # as in training
        network = trace(model, X)
    torch.testing.assert_close(network(X), model(X))


def test_numbers_are_rounded_to_the_precision_of_the_network():
    network = trace(Function(lambda net, x: (0.1 - x) * 0.3).double(), X.double())
    torch.testing.assert_close(network(X.double()), ((0.1 - X.double()) * 0.3).flatten(1), rtol=0, atol=1e-16)


def test_a_mean_counts_its_terms():
    network = trace(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.rand(1, 2, 90, 70))
    assert network.nodes[0].operator.fan_in > 90 * 70
    axes = trace(Function(lambda net, x: x.mean((1, 3))), X)
    assert 8 < axes.nodes[0].operator.fan_in < 16


def test_one_scale_is_folded_into_a_layer_and_no_more():
    model = nn.Sequential(nn.Conv2d(2, 3, 1), *(nn.BatchNorm2d(3) for _ in range(3)), nn.Flatten()).eval()
    network = trace(model, X)
    assert len(network.frozen().nodes) == len(network.nodes) - 1
    torch.testing.assert_close(network.frozen()(X), model(X))


def test_sums_that_no_precision_bounds_are_refused():
    with named("200 terms", "bfloat16", "float32"):
        gamma(200, torch.bfloat16)


@pytest.mark.parametrize("ball", [Linf(1e-5), Linf(0.3), L2(1e-5), L2(2.0)])
def test_what_counts_as_inside_for_an_attack_is_in_the_set(ball):
    x = (torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 1.4 - 0.2).clamp(0, 1)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    region = region_of(x, ball)
    inside = 0
    for stretch in (1.0, 1 + 1e-6, 1 + 4e-6, 1.02, 1.1, 1.5):
        x_adv = x + stretch * (ball.project(x + direction, x) - x)
        accepted = ball.contains(x_adv, x)
        inside += int(accepted.sum())
        low = ((x_adv >= region.lower) & (x_adv <= region.upper)).flatten(1).all(1)
        length = (x_adv.double() - x.double()).flatten(1).norm(dim=1)
        held = low if region.center is None else low & (length <= region.radius)
        assert bool(held[accepted].all())
    assert inside


def test_bounds_hold_for_a_value_that_was_changed_in_place():
    """As was found: the all-zero image was classified otherwise inside a certified ball."""
    model = Function(overwritten(lambda h: F.relu(h, inplace=True))).eval()
    bounds = interval_bounds(trace(model, X).frozen(), region_of(X, Linf(0.2)))[-1]
    for seed in range(20):
        noise = torch.rand(X.shape, generator=torch.Generator().manual_seed(seed)) * 0.4 - 0.2
        found = model((X + noise).clamp(0, 1))
        assert bool(((found >= bounds.lower) & (found <= bounds.upper)).all())


def test_other_bounds_than_those_of_images_are_refused():
    model, data = nn.Sequential(nn.Flatten(), nn.Linear(32, 2)), (X, torch.zeros(3, dtype=torch.long))
    for ball in (Linf(0.1, bounds=(-1.0, 1.0)), L2(0.5, bounds=(0.0, 2.0))):
        with named("certificates", "[0, 1]", "bounds"):
            rivals.certify(model, data, ball, method="ibp", quiet=True)
    with named("certificates", "numbers"):
        rivals.certify(model, data, Linf(0.1).masked(torch.ones(4, 4, dtype=torch.bool)), method="ibp", quiet=True)
    with named("adversarial training", "[0, 1]", "bounds"):
        rivals.harden("mnist5k", Linf(0.1, bounds=(-1.0, 1.0)), quiet=True)


def test_one_logit_is_refused_in_the_words_of_the_model():
    model = nn.Sequential(nn.Flatten(), nn.Linear(32, 1))
    with named("one logit", "(0, z)"):
        rivals.certify(model, (X, torch.tensor([0, 1, 0])), Linf(0.1), method="ibp", quiet=True)
