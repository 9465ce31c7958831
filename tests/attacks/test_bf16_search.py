"""Gradients in bf16: float32 decides what is adversarial, whatever bf16 says."""

import pytest
import torch
from torch import nn

import rivals
from helpers.models import conv_model
from helpers.refusals import named
from rivals import L2, Linf
from rivals.attacks import apgd, fmn, freeze, pgd


class OtherInBf16(nn.Module):
    """A linear classifier of two classes whose answers are the opposite ones under autocast."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 2, bias=False)
        self.layer.weight.data = torch.stack([torch.ones(8), -torch.ones(8)])

    def forward(self, x):
        logits = self.layer(2 * x - 1)
        return logits.float().flip(1) if torch.is_autocast_enabled("cpu") else logits


@pytest.mark.parametrize("attack", [pgd, apgd, fmn])
def test_what_only_bf16_misclassifies_is_no_success(attack):
    model, y = OtherInBf16(), torch.tensor([0, 1] * 3)
    x = 0.5 + 0.2 * (1 - 2 * y[:, None].float()).expand(-1, 8)  # far from the boundary
    assert torch.equal(model(x).argmax(1), y)
    with freeze(model, x, bf16=True) as frozen:
        found = attack(frozen, x, y, L2(100.0) if attack is fmn else Linf(0.01), steps=4)
        assert frozen.backwards >= 4 * len(x)  # nothing stopped early
    fooled = model(found).argmax(1) != y
    if attack is fmn:
        assert (fooled | (found == x).all(1)).all()
    else:
        assert not fooled.any()


@pytest.mark.parametrize("attack", [pgd, apgd])
def test_it_is_as_strong_and_inside_the_ball(attack):
    model, x, y = conv_model()
    model, x = model.float(), x.float()
    ball = Linf(0.03)
    plain = attack(model, x, y, ball, steps=10)
    with freeze(model, x, bf16=True) as frozen:
        found = attack(frozen, x, y, ball, steps=10)
        logits = frozen.trace(x)[1]
        assert logits.dtype == torch.float32
        assert not torch.equal(logits, frozen.logits(x))  # it is bf16
    assert ball.contains(found, x).all()
    counts = [(model(each).argmax(1) != y).sum() for each in (plain, found)]
    assert abs(counts[0] - counts[1]) <= 1


def test_an_evaluation_searches_in_bf16_and_says_so():
    model, x, y = conv_model()
    data = (x.float(), y)
    report = rivals.evaluate(model.float(), data, Linf(0.03), attack="pgd(steps=5)", precision="bf16", quiet=True)
    assert report.protocol["precision"] == "bf16"
    assert report.robust.count < report.clean.count
    assert not report.alarms
    with named("unknown precision of an attack 'fp16'"):
        rivals.evaluate(model, data, Linf(0.03), precision="fp16", quiet=True)
