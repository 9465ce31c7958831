"""The linear layer against torch's own."""

import pytest
import torch
from torch import nn

from rivals.nets.linear import Linear


def layers(bias=True):
    """Two layers of the same weights, ours and torch's, and an input (5, 7)."""
    ours, theirs = Linear(7, 3, bias=bias), nn.Linear(7, 3, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs, torch.randn(5, 7, generator=torch.Generator().manual_seed(0))


def penalized(layer, x):
    """A loss with a gradient penalty, as R1, and its gradients with respect to input and weights."""
    x = x.clone().requires_grad_()
    y = layer(x)
    (input_grad,) = torch.autograd.grad(y.tanh().sum(), x, create_graph=True)
    loss = y.square().mean() + input_grad.square().sum()
    return [loss, *torch.autograd.grad(loss, [x, *layer.parameters()])]


@pytest.mark.parametrize("bias", [True, False])
def test_values_gradients_and_second_derivatives_are_those_of_torchs_layer(bias):
    ours, theirs, x = layers(bias)
    torch.testing.assert_close(ours(x), theirs(x))
    for mine, reference in zip(penalized(ours, x), penalized(theirs, x), strict=True):
        torch.testing.assert_close(mine, reference)


def test_it_is_torchs_layer_in_evaluation_and_for_other_inputs():
    ours, theirs, x = layers()
    assert torch.equal(ours.eval()(x), theirs(x))
    ours.train()
    assert torch.equal(ours(x.view(5, 1, 7)), theirs(x.view(5, 1, 7)))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.double()(x.double()), theirs.double()(x.double()))


def test_a_frozen_weight_gets_no_gradient():
    ours, _, x = layers()
    ours.requires_grad_(False)
    x.requires_grad_()
    ours(x).sum().backward()
    torch.testing.assert_close(x.grad, ours.weight.sum(0).expand(5, 7))
    assert ours.weight.grad is None
