"""Losses of translators in closed form."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import normalize

from rivals.base.errors import UserError
from rivals.losses.gan import hinge
from rivals.losses.translation import TEMPERATURE, cycle, patch_nce, perceptual, translation


def step(**more):
    y = torch.zeros(2, 1, 4, 4)
    return SimpleNamespace(x=y, y=y, output=y + 0.25, fake=torch.tensor([[1.0, 3.0], [0.0, 0.0]]), **more)


def test_with_pairs_it_is_the_weighted_sum_of_both_terms():
    terms = translation(hinge.generator, gan_weight=0.5, l1_weight=2)(step())
    assert {name: float(term) for name, term in terms.items()} == {"gan": -0.5, "l1": 0.5}
    assert list(translation(None)(step())) == ["l1"]


def test_without_pairs_inputs_and_targets_are_compared_patch_by_patch():
    vectors = normalize(torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    asked = []

    def patch_vectors(before, after):
        asked.append((before, after))
        return [(vectors, vectors)]

    seen = step(patch_vectors=patch_vectors, unchanged=torch.ones(1))
    terms = translation(None, l1_weight=0, nce_weight=3, identity_weight=2)(seen)
    assert float(terms["nce"]) == pytest.approx(1.5 * float(terms["identity"]))
    assert asked == [(seen.x, seen.output), (seen.y, seen.unchanged)]


def test_patch_nce_knows_orthogonal_patches_and_guesses_among_equal_ones():
    one = torch.eye(4)[None]
    sure = -math.log(math.exp(1 / TEMPERATURE) / (math.exp(1 / TEMPERATURE) + 3))
    assert float(patch_nce([(one, one)])) == pytest.approx(sure, abs=1e-6)
    equal = normalize(torch.ones(2, 4, 4), dim=-1)
    assert float(patch_nce([(equal, equal)])) == pytest.approx(math.log(4), abs=1e-6)


def test_the_perceptual_loss_is_the_mean_distance():
    score = perceptual(lambda one, other: (one - other).flatten(1).sum(1))
    assert float(score(step())) == pytest.approx(16 * 0.25)


def test_cyclegan_compares_both_ways_around_and_what_should_stay():
    seen = step(unchanged=torch.full((2, 1, 4, 4), 0.5), there_and_back=torch.full((2, 1, 4, 4), 0.125))
    seen.back_and_there = torch.full((2, 1, 4, 4), 0.25)
    terms = cycle(hinge.generator, gan_weight=2, cycle_weight=8, identity_weight=4)(seen)
    assert {name: float(term) for name, term in terms.items()} == {"gan": -2, "cycle": 3, "identity": 2}
    assert list(cycle(hinge.generator, cycle_weight=0, identity_weight=0)(seen)) == ["gan"]


def test_a_negative_weight_is_refused():
    with pytest.raises(UserError, match="weight of cycle, -1, is negative"):
        cycle(hinge.generator, cycle_weight=-1)
    with pytest.raises(UserError, match="weight of l1, -1, is negative"):
        translation(None, l1_weight=-1)
