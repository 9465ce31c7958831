"""The losses of AdvGAN against their closed forms."""

from types import SimpleNamespace

import pytest
import torch

from rivals.base.errors import UserError
from rivals.losses.advgan import advgan, distillation, fooling
from rivals.losses.gan import LOSSES


def output(targets=None):
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 9.0, 1.0]])
    change = torch.zeros(2, 1, 2, 2)
    change[0] = 1.0  # of norm 2
    fake = torch.tensor([0.5, -0.5])
    return SimpleNamespace(
        logits_adv=logits, y=torch.tensor([0, 2]), targets=targets, perturbation=change, fake=fake, real=fake
    )


def test_fooling_is_the_margin_up_to_the_confidence():
    assert fooling(output(), 5.0).tolist() == [2.0, -5.0]
    assert fooling(output(), 50.0).tolist() == [2.0, -8.0]
    assert fooling(output(torch.tensor([1, 1])), 50.0).tolist() == [2.0, -8.0]


def test_the_terms_are_weighted_and_left_out_at_zero():
    loss = advgan(LOSSES["least-squares"].generator, gan_weight=2.0, norm_weight=3.0, norm_bound=0.5, confidence=9.0)
    terms = loss(output())
    assert terms["fool"].item() == pytest.approx((2 - 8) / 2)
    assert terms["norm"].item() == pytest.approx(3 * (1.5 + 0) / 2)
    assert terms["gan"].item() == pytest.approx(2 * 0.5 * (0.25 + 2.25) / 2)
    assert advgan(None, norm_weight=0)(output()).keys() == {"fool"}


def test_distillation_learns_the_answers_of_the_black_box():
    logits = torch.log(torch.tensor([[0.25, 0.75]]))
    taught = (torch.tensor([1]), torch.tensor([0]))
    terms = distillation(SimpleNamespace(logits=logits, logits_adv=logits, taught=taught))
    assert terms["clean"].item() == pytest.approx(-torch.log(torch.tensor(0.75)).item())
    assert terms["adv"].item() == pytest.approx(-torch.log(torch.tensor(0.25)).item())


def test_a_negative_weight_is_refused():
    with pytest.raises(UserError, match="gan_weight -1"):
        advgan(gan_weight=-1)
