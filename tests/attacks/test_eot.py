"""Expectation over transformation: the mean of the logits, or of the losses and their gradients."""

import pytest
import torch
from torch import nn

import rivals
from rivals import Linf
from rivals.attacks import fgsm, pgd
from rivals.attacks.attack_losses import LOSSES
from rivals.attacks.attack_state import prepare
from rivals.attacks.frozen_model import freeze
from rivals.base.errors import UserError
from rivals.nets.wrappers import EOTModel


class Cycling(nn.Module):
    """A randomized model whose draws are known: each pass takes the next of three linear layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 5, dtype=torch.float64) for _ in range(3))
        with torch.no_grad():
            for index, layer in enumerate(self.layers):
                source = torch.Generator().manual_seed(index)
                layer.weight.copy_(6 * torch.randn(5, 4, generator=source, dtype=torch.float64))
        self.turn = 0

    def forward(self, x):
        self.turn += 1
        return self.layers[self.turn % 3](x.flatten(1))


def points(n=6):
    x = 0.3 + 0.4 * torch.rand(n, 1, 2, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return x, torch.arange(n) % 5


@pytest.mark.parametrize("loss", LOSSES)
def test_averaged_losses_give_the_mean_of_the_gradients_and_averaged_logits_another(loss):
    model, (x, y) = Cycling(), points()
    leaf = x.clone().requires_grad_()
    logits = [layer(leaf.flatten(1)) for layer in model.layers]
    values = torch.stack([LOSSES[loss](each, y, None) for each in logits])
    (by_hand,) = torch.autograd.grad(values.mean(0).sum(), leaf)

    def gradient(of, passes):
        with freeze(of, x) as frozen:
            frozen.passes = passes
            with prepare(frozen, x, y, Linf(0.1), loss=loss) as state:
                rows = state.rows(torch.arange(len(x)))
                at, z = frozen.trace(rows.x_adv)
                torch.testing.assert_close(z, torch.stack(logits).mean(0))
                return frozen.gradient(state.loss(z, rows), at)

    torch.testing.assert_close(gradient(model, 3), by_hand)
    if loss == "ce":  # the margin and DLR are nearly linear, so that the order of mean and loss hardly matters
        assert not torch.allclose(gradient(EOTModel(model, 3), 1), by_hand, rtol=1e-2)


def test_an_attack_steps_along_the_mean_gradient():
    model, (x, y) = Cycling(), points()
    leaf = x.clone().requires_grad_()
    losses = [nn.functional.cross_entropy(layer(leaf.flatten(1)), y, reduction="none") for layer in model.layers]
    # fgsm's loss is the log odds, whose gradient differs from cross-entropy's by a factor in each pass.
    losses = [torch.log(torch.expm1(each)) for each in losses]
    (gradient,) = torch.autograd.grad(torch.stack(losses).mean(0).sum(), leaf)
    with freeze(model, x) as frozen:
        frozen.passes = 3
        before = frozen.forwards
        found = fgsm(frozen, x, y, Linf(0.1), stop_when_fooled=False)
        assert (frozen.forwards - before) % (3 * len(x)) == 0
        pgd(frozen, x, y, Linf(0.1), steps=2)
    torch.testing.assert_close(found, (x + 0.1 * gradient.sign()).clamp(0, 1))


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[0.1], [-0.1]]).expand(2, 64))
            self.layer.bias.zero_()

    def forward(self, x):
        return self.layer((x - 0.5 + 0.3 * torch.randn_like(x)).flatten(1))


def test_an_evaluation_names_what_it_averages():
    levels = torch.tensor([0.6, 0.4]).repeat(8)
    x = levels[:, None, None, None].expand(16, 1, 8, 8).contiguous()
    data, how = (x, torch.tensor([0, 1]).repeat(8)), {"attack": "pgd", "alarms": False, "quiet": True, "device": "cpu"}
    reports = {}
    for average in ("logits", "losses"):
        report = rivals.evaluate(Noisy(), data, Linf(0.2), eot=4, eot_average=average, **how)
        assert report.protocol["eot"] == 4 and report.protocol["eot_average"] == average
        assert any(f"the mean {average} of 4 forward passes" in note for note in report.notes)
        reports[average] = report
    assert reports["losses"].robust.count <= 4  # eps crosses the boundary by far
    assert rivals.evaluate(Noisy(), data, Linf(0.2), **how).protocol["eot_average"] is None


def test_averages_that_mean_nothing_are_refused():
    with pytest.raises(UserError, match="unknown average of --eot 'votes'"):
        rivals.recipes.AttackConfig(eot=3, eot_average="votes")
    with pytest.raises(UserError, match="over one forward pass: add --eot 20"):
        rivals.recipes.AttackConfig(eot_average="losses")
