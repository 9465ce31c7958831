"""The probability margin: its values, and that an attack which follows it fools a linear model as the margin does."""

import torch

from helpers.models import linear_model
from rivals import Linf
from rivals.attacks import pgd
from rivals.attacks.attack_losses import probability_margin


def test_the_probability_margin_is_that_of_the_softmax_and_its_sign_tells_success():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [5.0, -torch.inf, 1.0]])
    p = logits.softmax(1)
    y = torch.tensor([0, 2, 0])
    expected = torch.stack([p[0, 1] - p[0, 0], p[1, 1] - p[1, 2], p[2, 2] - p[2, 0]])
    torch.testing.assert_close(probability_margin(logits, y), expected)
    torch.testing.assert_close(probability_margin(logits, y, torch.tensor([1, 1, 2]))[0], p[0, 1] - p[0, 0])
    assert ((probability_margin(logits, y) > 0) == (logits.argmax(1) != y)).all()


def test_pgd_on_it_is_as_strong_as_on_the_margin_where_the_model_is_not_confident():
    model, x, y = linear_model(2, n=12)
    fooled = [model(pgd(model, x, y, Linf(0.2), loss=loss)).argmax(1) != y for loss in ("pm", "margin")]
    assert torch.equal(*fooled)
    assert fooled[0].any()
