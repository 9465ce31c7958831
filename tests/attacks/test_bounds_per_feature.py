"""Bounds and radii per feature: every attack keeps to them, and they mean what rescaled features mean."""

import pytest
import torch
from torch import nn

import rivals
from helpers.attack_norms import SHORT, norms_of, short
from helpers.models import linear_model, uniform
from helpers.refusals import named
from rivals import L0, L2, Linf, evaluate
from rivals.attacks import ATTACKS, freeze
from rivals.reports.formatting import format_eps

SHAPES = {"table": (6,), "series": (3, 8), "images": (3, 4, 4), "video": (2, 3, 4, 4)}


def per_feature(shape):
    """A lowest and a highest value for each feature or channel."""
    sides = (shape[0], *[1] * (len(shape) - 1))
    low = torch.linspace(-3, 1, shape[0], dtype=torch.float64).view(sides)
    return low, low + torch.linspace(0.5, 4, shape[0], dtype=torch.float64).view(sides)


class Rescaled(nn.Module):
    """A model of features in [0, 1] as one of the features between their bounds."""

    def __init__(self, model, low, high):
        super().__init__()
        self.model, self.low, self.high = model, low, high

    def forward(self, x):
        return self.model((x - self.low) / (self.high - self.low))


def setting(shape):
    model, x, y = linear_model(4, SHAPES[shape], n=10)
    low, high = per_feature(SHAPES[shape])
    return model, Rescaled(model, low, high), x, y, low, high


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ATTACKS)
def test_bounds_per_feature_are_kept_in_every_norm(name, shape):
    _, model, x, y, low, high = setting(shape)
    x = low + x * (high - low)
    for norm in norms_of(name):
        ball = norm(2 if norm is L0 else 0.4, bounds=(low, high))
        x_adv = ATTACKS[name](model, x, y, ball, **short(name))
        assert ball.contains(x_adv, x).all()
        assert ((x_adv >= low) & (x_adv <= high)).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [name for name in ATTACKS if Linf in norms_of(name)])
def test_a_radius_per_feature_is_kept_and_a_feature_without_one_stays(name, shape):
    model, x, y = linear_model(4, SHAPES[shape], n=10)
    eps = 0.3 * uniform(1, SHAPES[shape][0], *[1] * (len(SHAPES[shape]) - 1), seed="radii")
    eps[:, 1] = 0
    x_adv = ATTACKS[name](model, x, y, Linf(eps), **short(name))
    assert Linf(eps).contains(x_adv, x).all()
    assert ((x_adv - x).abs() <= eps + 1e-9).all()
    assert torch.equal(x_adv[:, 1], x[:, 1])


@pytest.mark.parametrize("name", ["fgsm", "bim", "pgd", "mifgsm", "fab", "autoattack"])
def test_radii_that_follow_the_bounds_are_those_of_rescaled_features(name):
    """An eps of 0.3 of each feature's range is an eps of 0.3 where all range from 0 to 1."""
    model, rescaled, x, y, low, high = setting("table")
    options = dict(SHORT.get(name, {"steps": 10}))
    if name in ("bim", "pgd", "mifgsm"):
        options = {**options, "step_size": 0.3}
    if name == "pgd":
        options["random_start"] = False
    plain = ATTACKS[name](model, x, y, Linf(0.3), **options)
    eps = (0.3 * (high - low))[None]
    found = ATTACKS[name](rescaled, low + x * (high - low), y, Linf(eps, bounds=(low, high)), **options)
    fooled, known = rescaled(found).argmax(1) != y, model(plain).argmax(1) != y
    assert known.any()
    assert torch.equal(fooled, known)


def test_equal_radii_are_one_radius():
    model, x, y = linear_model(4, (3, 4, 4), n=10)
    for eps in (torch.full((3, 1, 1), 0.05).double(), torch.full((1, 3, 4, 4), 0.05).double()):
        found = ATTACKS["apgd"](model, x, y, Linf(eps), steps=10)
        torch.testing.assert_close(found, ATTACKS["apgd"](model, x, y, Linf(0.05), steps=10), rtol=0, atol=1e-6)


def test_evaluate_takes_them_and_says_so(tmp_path):
    _, model, x, y, low, high = setting("table")
    x = low + x * (high - low)
    ball = Linf((0.4 * (high - low))[None], bounds=(low, high))  # the largest is above 1
    report = evaluate(model, (x, y), ball, attack="pgd,square(queries=20)", out=tmp_path / "r", quiet=True)
    assert report.clean.value == 1
    with freeze(model, x) as frozen:
        x_adv = ATTACKS["pgd"](frozen, x, y, ball)
    assert report.robust.count <= int((model(x_adv).argmax(1) == y).sum())
    assert report.protocol["bounds"] == [low.tolist(), high.tolist()]
    assert max(report.protocol["eps_scale"][0]) == 1
    most = f"Linf eps per feature, at most {float(ball.eps):.6g}, "
    assert str(report).startswith(f"pgd,square(queries=20), {most}")
    page = (tmp_path / "r" / "report.html").read_text()
    assert f"Linf per feature, at most {format_eps(float(ball.eps))}<" in page


def test_one_radius_is_not_called_per_feature(tmp_path):
    model, x, y = linear_model(4, (6,), n=10)
    report = evaluate(model, (x, y), Linf(0.2), attack="fgsm", out=tmp_path / "r", quiet=True)
    assert str(report).startswith("fgsm, Linf eps 0.2, ")
    assert "per feature" not in str(report) + (tmp_path / "r" / "report.html").read_text()
    assert (str(Linf(0.2)), str(Linf(torch.tensor([[0.2, 0.1]])))) == ("Linf(0.2)", "Linf(per feature, at most 0.2)")


BAD = {
    "an L2 radius per feature": (lambda x: L2(torch.ones(1, 6)), ["a radius per feature is for Linf"]),
    "a radius too many": (lambda x: Linf(torch.full((1, 7), 0.1).double()), ["eps have the shape (1, 7)", "(6,)"]),
    "a radius per image and feature": (
        lambda x: Linf(torch.full((10, 6), 0.1).double()),
        ["shape (10, 6)", "(n,) with one per image"],
    ),
    "bounds in no order": (lambda x: Linf(0.1, bounds=(torch.ones(6), torch.zeros(6))), ["hold no image"]),
    "bounds that do not fit": (lambda x: Linf(0.1, bounds=(0.0, torch.ones(5).double())), ["shape (5,)", "(6,)"]),
    "bounds of another type": (lambda x: Linf(0.1, bounds=(0.0, torch.ones(6))), ["float32", "float64", ".to(x)"]),
    "values outside": (lambda x: Linf(0.1, bounds=(0.0, x.amax(0) / 2)), ["leave the bounds in 6 features"]),
    "a negative radius": (lambda x: Linf(torch.full((1, 6), -0.1)), ["-0.1 is not a radius"]),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_said_in_one_line(case):
    model, x, y = linear_model(4, (6,), n=10)
    make, parts = BAD[case]
    with named(*parts):
        ATTACKS["pgd"](model, x, y, make(x), steps=1)
    with named(*parts):
        evaluate(model, (x, y), make(x), attack="fgsm", quiet=True)


def test_adversarial_training_refuses_them():
    with named("one radius"):
        rivals.harden("mnist", Linf(torch.full((1, 1, 28, 28), 0.1)))
