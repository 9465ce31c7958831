"""Tracing: what has no bounds is named, and nothing of the process is touched."""

import pytest
import torch
from torch import nn

from helpers.refusals import named
from rivals.bounds.tracing import trace

X = torch.rand(2, 1, 8, 8)


class Branches(nn.Module):
    def forward(self, x):
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class OwnReLU(nn.ReLU):
    def forward(self, x):
        return super().forward(x) + 1


class Squares(nn.Module):
    def forward(self, x):
        return x * x


class AcrossImages(nn.Module):
    def forward(self, x):
        return x.flatten(1) - x.flatten(1).mean(0)


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Sigmoid()), ("2 (Sigmoid)", "rebuild the model with")),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding_mode="reflect"), nn.Flatten()), ("padding_mode='reflect'",)),
        (nn.Sequential(nn.Linear(8, 3), nn.Flatten()), ("0 (Linear)", "flatten")),
        (nn.Sequential(nn.LeakyReLU(-0.5), nn.Flatten()), ("slope of -0.5",)),
        (Squares(), ("mul", "two values")),
        (AcrossImages(), ("mean", "images of a batch")),
        (Branches(), ("Branches", "cannot be traced")),
        (nn.Identity(), ("returns its input",)),
    ],
)
def test_what_has_no_bounds_is_named(model, parts):
    with named(*parts):
        trace(model.eval(), X)


def test_a_subclass_is_bounded_by_what_it_computes():
    model = nn.Sequential(OwnReLU(), nn.Flatten())
    torch.testing.assert_close(trace(model, X)(X - 0.5), model(X - 0.5))


def test_a_trace_follows_the_weights():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    network = trace(model, X)
    with torch.no_grad():
        model[1].weight.mul_(2)
    torch.testing.assert_close(network(X), model(X))


def test_a_frozen_network_folds_batch_norm_and_keeps_its_values():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4)).eval()
    model[1].running_mean.normal_()
    network = trace(model, X)
    frozen = network.frozen()
    assert len(frozen.nodes) == len(network.nodes) - 1
    torch.testing.assert_close(frozen(X), model(X))
    assert not frozen(X).requires_grad


def test_training_statistics_are_those_of_batch_norm():
    layers = (nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(108))
    x = X.double()  # batch norm of few images magnifies what is rounded
    model, other = nn.Sequential(*layers).double(), nn.Sequential(*layers).double()
    other.load_state_dict(model.state_dict())
    expected = other.train()(x)
    running = {name: value.clone() for name, value in other.named_buffers()}
    other.load_state_dict(model.state_dict())
    statistics = {}
    model = nn.Sequential(*layers).train()
    for name, buffer in model.named_buffers():
        buffer.copy_(torch.zeros_like(buffer) if "mean" in name or "num" in name else torch.ones_like(buffer))
    torch.testing.assert_close(trace(model, x).values(x, statistics)[-1], expected)
    for name, value in model.named_buffers():
        if "num" not in name:
            torch.testing.assert_close(value, running[name])
