"""Losses of certified training: their values at both ends of the ramp, and the regularizers in closed form."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from helpers.refusals import named
from rivals.losses.certified import balance, ibp, mtl_ibp, readings, regularized, tightness, worst_case

Y = torch.tensor([0, 2])
LOGITS = torch.tensor([[2.0, 0.0, 1.0], [0.5, 0.0, 3.0]])
MARGINS = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.5, 0.0]])


def output(ramp, **others):
    given = {"logits": LOGITS, "logits_adv": -LOGITS, "margins": MARGINS, "y": Y, "ramp": ramp}
    return SimpleNamespace(**given, **others)


def test_worst_logits_are_the_negative_margins():
    expected = -torch.log_softmax(torch.tensor([[0.0, -1.0, 1.0]]), 1)[0, 0]
    torch.testing.assert_close(cross_entropy(-MARGINS[:1], Y[:1]), expected)
    torch.testing.assert_close(worst_case(output(1)), cross_entropy(-MARGINS, Y))


def test_kappa_falls_along_the_ramp():
    terms = ibp(kappa=0.25)(output(0.0))
    torch.testing.assert_close(terms["clean"], cross_entropy(LOGITS, Y))
    assert terms["certified"] == 0
    terms = ibp(kappa=0.25)(output(1.0))
    torch.testing.assert_close(terms["clean"], 0.25 * cross_entropy(LOGITS, Y))
    torch.testing.assert_close(terms["certified"], 0.75 * cross_entropy(-MARGINS, Y))


def test_mtl_ibp_mixes_in_adversarial_examples():
    terms = mtl_ibp(kappa=0.5)(output(1.0))
    torch.testing.assert_close(terms["adversarial"], 0.5 * cross_entropy(-LOGITS, Y))


def test_tightness_is_zero_until_bounds_are_twice_as_wide_as_the_input():
    assert tightness([torch.tensor(0.1), torch.tensor(0.2)]) == 0
    torch.testing.assert_close(tightness([torch.tensor(0.1), torch.tensor(0.4)]), torch.tensor(0.5))
    assert tightness([torch.tensor(0.0), torch.tensor(0.0)]) == 0


def test_balance_is_zero_where_active_and_inactive_units_are_alike():
    center = torch.tensor([[1.0, -1.0]])
    assert balance([(center - 0.1, center + 0.1)]) == 0
    center = torch.tensor([[8.0, -1.0]])  # ratio of means 1/8: (0.5 - 1/8) / 0.5
    torch.testing.assert_close(balance([(center - 0.1, center + 0.1)]), torch.tensor(0.75))


def test_regularizers_fade_with_the_ramp():
    center = torch.tensor([[8.0, -1.0]])
    bounds = {"widths": [torch.tensor(0.1), torch.tensor(0.4)], "before_relus": [(center - 0.1, center + 0.1)]}
    half = regularized(ibp(), 0.5)(output(0.5, **bounds))
    torch.testing.assert_close(half["tightness"], torch.tensor(0.5 * 0.5 * 0.5))
    assert set(regularized(ibp(), 0.5)(output(1.0, **bounds))) == {"clean", "certified"}
    assert set(regularized(ibp(), 0.0)(output(0.5, **bounds))) == {"clean", "certified"}


def test_the_reading_is_the_share_that_is_certified():
    assert readings(output(1.0))["accuracy/train_certified"] == 0.5


@pytest.mark.parametrize("make", [ibp, mtl_ibp])
def test_a_kappa_out_of_range_is_refused(make):
    with named("kappa of 1", "below 1"):
        make(kappa=1.0)
