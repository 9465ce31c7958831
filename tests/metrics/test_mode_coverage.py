"""Modes, on cases where everybody can count: nothing missing, one mode, noise, twins."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.base.errors import UserError
from rivals.metrics.diversity import cells, nearest_distances
from rivals.metrics.modes import (
    count_modes,
    judge_points,
    kmeans,
    label_entropy,
    ndb,
    nearest_centre,
    ring,
    square,
    stacked_labels,
    support_size,
    twin_distance,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_perfect_generator_is_at_the_floor_and_a_collapsed_one_is_far_above():
    perfect = count_modes(torch.randint(1000, (26_000,), generator=seeded()), 1000)
    assert perfect.found == 1000
    # Wilks: 2 n KL is chi-squared with 999 degrees of freedom.
    assert perfect.floor == pytest.approx(999 / (2 * 26_000), rel=0.03)
    assert perfect.floor_error == pytest.approx(math.sqrt(2 * 999) / (2 * 26_000), rel=0.2)
    assert abs(perfect.kl - perfect.floor) < 4 * perfect.floor_error
    collapsed = count_modes(torch.full((26_000,), 7), 1000)
    assert (collapsed.found, collapsed.kl) == (1, pytest.approx(math.log(1000)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.permutations(range(6)))
def test_counting_knows_no_names(labels, names):
    a = count_modes(torch.tensor(labels), 6)
    b = count_modes(torch.tensor([names[label] for label in labels]), 6)
    assert (a.found, a.kl) == (len(set(labels)), pytest.approx(b.kl, abs=1e-12))


def test_the_wanted_shares_are_the_aim():
    labels = torch.tensor([0, 0, 0, 1])
    assert count_modes(labels, 2, torch.tensor([3.0, 1.0])).kl == pytest.approx(0, abs=1e-12)
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert count_modes(labels, 2).kl == pytest.approx(expected)
    strays = count_modes(torch.tensor([0, 0, 0, 1, -1, -1]), 2)
    assert (strays.kl, strays.n) == (pytest.approx(expected), 6)


def test_stacked_digits_read_as_a_number():
    assert stacked_labels(torch.tensor([[0, 0, 7], [1, 2, 3], [9, 9, 9]])).tolist() == [7, 123, 999]


@pytest.mark.parametrize("mixture", [ring(), square()], ids=["ring", "grid"])
def test_the_data_have_all_their_modes(mixture):
    modes = len(mixture.centres)
    found, good = judge_points(mixture.sample(20_000), mixture)
    assert found.found == modes == {8: 8, 25: 25}[modes]
    # In two dimensions a point is within 3 deviations with probability 1 - exp(-9/2).
    assert good == pytest.approx(1 - math.exp(-4.5), abs=0.004)
    assert found.kl < found.floor + 5 * found.floor_error
    three = mixture.centres[:3].repeat(100, 1)
    found, good = judge_points(three, mixture)
    assert (found.found, good) == (3, 1)
    assert found.kl == pytest.approx(math.log(modes / 3))
    _, good = judge_points(torch.rand(1000, 2, generator=seeded()) * 8 - 4, mixture)
    assert good < 0.1
    assert torch.equal(mixture.sample(5, seed=1), mixture.sample(5, seed=1))


def test_what_a_classifier_tells():
    sharp = torch.eye(10).repeat(5, 1)
    assert label_entropy(sharp) == (pytest.approx(math.log(10)), 0)
    assert label_entropy(sharp[:1].repeat(20, 1)) == (pytest.approx(0, abs=1e-12), 0)
    blurred = torch.full((20, 10), 0.1)
    assert label_entropy(blurred) == (pytest.approx(math.log(10)), pytest.approx(math.log(10)))


def test_kmeans_finds_clouds_that_stand_apart():
    mixture = square()
    centres = kmeans(mixture.sample(2000), 25)
    assert torch.cdist(centres, mixture.centres).amin(0).max() < 0.05
    assert sorted(nearest_centre(mixture.centres, centres).tolist()) == list(range(25))
    assert torch.equal(centres, kmeans(mixture.sample(2000), 25))
    assert kmeans(torch.ones(10, 2), 3).isfinite().all()  # fewer different points than centres


def test_bins_of_the_same_of_fewer_and_of_other_points():
    draw = lambda n, seed, scale=1.0: scale * torch.randn(n, 2, generator=seeded(seed))  # noqa: E731
    train = draw(2000, 0)
    same = ndb(train, draw(2000, 1), bins=20)
    assert same.chance == pytest.approx(1)
    assert same.different <= 5  # binomial(20, 0.05): above 5 three times in 10,000
    assert same.jsd < 0.01
    half = ndb(train, train[train[:, 0] > 0], bins=20)
    assert half.different > 15 and half.jsd > 0.15
    wide = ndb(train, draw(2000, 1, 2.0), bins=20)
    assert wide.different > 5
    assert ndb(train, train, bins=20).different == 0


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([20, 100, 400]), st.integers(0, 1000))
def test_a_birthday_party_tells_how_many_images_there_are(size, seed):
    images = torch.rand(size, 3, generator=seeded(seed))
    drawn = images[torch.randint(size, (600,), generator=seeded(seed + 1))]
    found = support_size(drawn, 1e-6)
    # Twins are counted in dependent pairs, so the interval is meant loosely.
    assert found.value == pytest.approx(size, rel=0.35)
    assert found.low < found.value < found.high
    assert found.party == pytest.approx(1.18 * math.sqrt(found.value), rel=0.01)


def test_no_twins_prove_many_images_only():
    found = support_size(torch.rand(1000, 8, generator=seeded()), 1e-6)
    assert (found.twins, found.value, found.high) == (0, math.inf, math.inf)
    assert found.low == pytest.approx(1000 * 999 / 2 / 3.69, rel=0.01)
    alike = support_size(torch.ones(50, 8), 0.0)
    assert (alike.value, alike.twins) == (1, alike.pairs)


def test_twins_are_nearer_than_data_ever_are():
    real = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), np.uint8))
    distance = twin_distance(cells(real))
    assert distance == pytest.approx(nearest_distances(real).min().item(), rel=1e-6)
    assert support_size(cells(real), distance * 0.999).twins == 0
    assert support_size(cells(torch.cat([real, real[:5]])), distance * 0.999).twins == 5


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: count_modes(torch.tensor([-1, -1]), 3), "nothing to count"),
        (lambda: count_modes(torch.tensor([3]), 3), "outside"),
        (lambda: count_modes(torch.tensor([0]), 2, torch.tensor([1.0, 0.0])), "above 0"),
        (lambda: judge_points(torch.zeros(4, 3), ring()), "do not fit"),
        (lambda: label_entropy(torch.zeros(0, 10)), "do not fit"),
        (lambda: label_entropy(torch.zeros(2, 10)), "no distribution"),
        (lambda: ndb(torch.zeros(4, 2), torch.zeros(4, 2)), "cannot fill 100 bins"),
        (lambda: ndb(torch.zeros(400, 2), torch.zeros(4, 3)), "do not fit"),
        (lambda: support_size(torch.zeros(1, 2), 0.1), "no pairs"),
        (lambda: twin_distance(torch.zeros(3, 2)), "copies"),
    ],
)
def test_what_cannot_be_is_one_line(call, word):
    with pytest.raises(UserError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)
