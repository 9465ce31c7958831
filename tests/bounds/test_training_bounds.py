"""Bounds in training: one set of statistics, gradients for all weights, CROWN's share."""

import copy

import torch

from helpers.bounded_networks import Residual, randomized
from rivals.base.norm_balls import Linf
from rivals.bounds.crown import crown_margins
from rivals.bounds.ibp import interval_bounds, interval_margins
from rivals.bounds.regions import region_of
from rivals.bounds.tracing import trace
from rivals.bounds.training_bounds import CrownIbpBounds, TrainingBounds
from rivals.nets.factory import build_classifier
from rivals.nets.ibp_init import initialize_for_ibp

X = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 5


def test_logits_and_running_statistics_are_those_of_a_training_pass():
    model = randomized(Residual(), "training").train()
    other = copy.deepcopy(model)
    bounds = TrainingBounds(trace(model, X), X, Y, region_of(X, Linf(0.1)))
    torch.testing.assert_close(bounds.logits, other(X))
    _ = bounds.margins  # whose pass must not update them again
    torch.testing.assert_close(model.norm.running_mean, other.norm.running_mean)
    torch.testing.assert_close(model.norm.running_var, other.norm.running_var)


def test_without_a_radius_the_margins_are_those_of_the_logits():
    model = randomized(Residual(), "training").train()
    bounds = TrainingBounds(trace(model, X), X, Y, region_of(X, Linf(0.0)))
    torch.testing.assert_close(bounds.margins, bounds.logits.gather(1, Y[:, None]) - bounds.logits, atol=1e-4, rtol=0)


def test_every_weight_has_a_gradient():
    model = randomized(Residual(), "training").train()
    TrainingBounds(trace(model, X), X, Y, region_of(X, Linf(0.1))).margins.sum().backward()
    for name, weight in model.named_parameters():
        # The bias before batch norm is subtracted again with the mean, but for the shortcut around it.
        assert weight.grad is not None and bool(weight.grad.abs().sum() > 0), name


def test_crown_ibp_goes_from_crown_to_ibp():
    model = randomized(Residual(), "training")
    model.norm.requires_grad_(False)
    network, region = trace(model, X), region_of(X, Linf(0.05))
    plain = network.frozen()

    def margins(share):
        bounds = CrownIbpBounds(plain, X, Y, region, share)
        return bounds.margins

    torch.testing.assert_close(margins(0.0), interval_margins(plain, region, Y, rounded=False))
    by_crown = crown_margins(plain, region, Y, intermediate=None, rounded=False).float()
    better = torch.maximum(margins(1.0), margins(0.0))
    torch.testing.assert_close(better, by_crown)
    torch.testing.assert_close(margins(0.5), (margins(0.0) + margins(1.0)) / 2)


def test_bounds_of_the_initial_weights_keep_their_width():
    torch.manual_seed(0)
    net = build_classifier("strided", size=28, channels=1, classes=10)
    initialize_for_ibp(net)
    x = torch.rand(8, 1, 28, 28)
    values = interval_bounds(trace(net, x), region_of(x, Linf(0.1)), rounded=False)
    # Batch norm divides by the deviation of the units, so only the first convolution is comparable in size.
    before, after = ((values[i].upper - values[i].lower).mean().item() for i in (0, 3))
    assert 0.3 < after / before < 3


def test_a_small_radius_survives_mixed_precision():
    """Ends in bfloat16, 8 bits, would lose a radius that is small beside the center."""
    model = randomized(Residual(), "training").train()
    region = region_of(X, Linf(1e-3))

    def widths(enabled):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            bounds = TrainingBounds(trace(copy.deepcopy(model), X), X, Y, region)
            return [upper - lower for lower, upper in bounds.before_relus]

    for mixed, exact in zip(widths(True), widths(False), strict=True):
        assert mixed.dtype == exact.dtype
        assert float(((mixed - exact).norm() / exact.norm()).detach()) < 0.05
