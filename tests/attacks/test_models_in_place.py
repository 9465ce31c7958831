"""Models that write on their input: they are attacked and evaluated as the same model that does not."""

from functools import partial

import pytest
import torch
from torch import nn

import rivals
from helpers.attack_norms import ball_of, norms_of
from helpers.models import BALLS, uniform
from rivals import L2, Linf, evaluate
from rivals.attacks import ATTACKS, AugmentRanges, augment

MEAN, STD = 0.4, 0.7


def subtract(x):
    return x.sub_(MEAN)


def normalize(x):
    return x.sub_(MEAN).div_(STD)


def blank(x):
    x[:, 0] = 0
    return x


def through_a_view(x):
    x.view(len(x), -1).mul_(0.5)
    return x


def rectify(x):
    return nn.functional.relu(x.sub_(MEAN), inplace=True)


PAIRS = {
    "subtract": (subtract, lambda x: x - MEAN),
    "normalize": (normalize, lambda x: (x - MEAN) / STD),
    "blank": (blank, lambda x: torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:]], 1)),
    "through a view": (through_a_view, lambda x: x * 0.5),
    "rectify": (rectify, lambda x: nn.functional.relu(x - MEAN)),
}
OPTIONS = {
    "square": {"queries": 4},
    "square_pgd": {"turns": 1, "queries": 2, "steps": 2},
    "carlini_wagner": {"steps": 4, "searches": 1},
    "autoattack": {"version": "swift", "stages": ["apgd-t"]},
    "sparse_rs": {"queries": 4},
    "spsa": {"queries": 20, "samples": 4},
    "hopskipjump": {"queries": 60, "samples": 10},
    "surfree": {"queries": 40},
    "fgsm": {},
    "noise": {},
}


class Before(nn.Module):
    def __init__(self, first, rest):
        super().__init__()
        self.first, self.rest = first, rest

    def forward(self, x):
        return self.rest(self.first(x))


def both(pair):
    """The model that writes on its input and one that does not, with images and labels; in double precision."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rest = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 5)).double().eval()
    writing, plain = (Before(first, rest) for first in PAIRS[pair])
    x = uniform(8, 3, 6, 6)
    return writing, plain, x, plain(x).argmax(1)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("name", [*ATTACKS, "augment"])
def test_every_attack_finds_what_it_finds_without_writing(name, pair):
    writing, plain, x, y = both(pair)
    kept = x.clone()
    if name == "augment":
        attack = lambda model: augment(model, x, y, AugmentRanges(), trials=2)  # noqa: E731
    else:
        ball = BALLS["Linf"] if Linf in norms_of(name) else ball_of(name)
        attack = lambda model: ATTACKS[name](model, x, y, ball, **OPTIONS.get(name, {"steps": 3}))  # noqa: E731
    found, expected = attack(writing), attack(plain)
    assert torch.equal(x, kept)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("eot", [1, 2])
@pytest.mark.parametrize("pair", PAIRS)
def test_evaluate_and_certify_report_what_they_report_without_writing(pair, eot):
    writing, plain, x, y = both(pair)
    kept = x.clone()
    one, other = (
        evaluate(model, (x, y), Linf(0.02), attack="noise,pgd(steps=3)", eot=eot, quiet=True)
        for model in (writing, plain)
    )
    assert (one.clean, one.robust, one.alarms) == (other.clean, other.robust, other.alarms)
    assert one.clean.value == 1
    if eot == 1:
        certify = partial(rivals.certify, data=(x[:3], y[:3]), sigma=0.1, samples=50, steps=2, draws=2, quiet=True)
        assert certify(writing).curve == certify(plain).curve
    assert torch.equal(x, kept)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_first_layer_that_works_in_place_is_folded_and_attacked(channels):
    net = nn.Sequential(
        nn.ReLU(inplace=True), nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3)
    )
    x = torch.rand(6, channels, 6, 6)
    kept, y = x.clone(), net.eval()(x.clone()).argmax(1)
    x_adv = ATTACKS["pgd"](net, x, y, L2(0.3, bounds=(-1, 1)), steps=4)
    assert torch.equal(x, kept)
    assert L2(0.3, bounds=(-1, 1)).contains(x_adv, x).all()
