"""The birthday paradox test, on supports of known size."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.base.errors import UserError
from rivals.metrics.diversity import cells, nearest_distances
from rivals.metrics.support_size import duplicate_distance, support_size


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([20, 100, 400]), st.integers(0, 1000))
def test_the_birthday_test_estimates_the_support_size(size, seed):
    images = torch.rand(size, 3, generator=seeded(seed))
    samples = images[torch.randint(size, (600,), generator=seeded(seed + 1))]
    found = support_size(samples, 1e-6)
    # Pairs are not independent, so the interval is approximate.
    assert found.value == pytest.approx(size, rel=0.35)
    assert found.low < found.value < found.high
    assert found.batch_size == pytest.approx(1.18 * math.sqrt(found.value), rel=0.01)


def test_without_duplicates_only_the_lower_bound_is_finite():
    found = support_size(torch.rand(1000, 8, generator=seeded()), 1e-6)
    assert (found.duplicates, found.value, found.high) == (0, math.inf, math.inf)
    assert found.low == pytest.approx(1000 * 999 / 2 / 3.69, rel=0.01)
    same = support_size(torch.ones(50, 8), 0.0)
    assert (same.value, same.duplicates) == (1, same.pairs)


def test_duplicates_are_closer_than_any_two_real_images():
    real = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), np.uint8))
    distance = duplicate_distance(cells(real))
    assert distance == pytest.approx(nearest_distances(real).min().item(), rel=1e-6)
    assert support_size(cells(real), distance * 0.999).duplicates == 0
    assert support_size(cells(torch.cat([real, real[:5]])), distance * 0.999).duplicates == 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: support_size(torch.zeros(1, 2), 0.1), "has 1 image: give 2 or more, since one has no pairs"),
        (lambda: support_size(torch.tensor([[0.0], [torch.nan]]), 0.1), "features of image 1 are not finite"),
        (lambda: duplicate_distance(torch.tensor([[0.0], [torch.inf]])), "real features of image 1 are not finite"),
        (lambda: duplicate_distance(torch.zeros(3, 2)), "copies"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["uniform", "an atom", "zipf"])
def test_the_interval_covers_the_truth_also_of_uneven_supports(kind):
    """Pairs share images, so that the number of duplicate pairs varies more than a Poisson count."""
    weights = {
        "uniform": torch.ones(100) / 100,
        "an atom": torch.cat([torch.tensor([0.1]), torch.full((9000,), 0.9 / 9000)]),
        "zipf": 1 / torch.arange(1.0, 101),
    }[kind].double()
    weights = weights / weights.sum()
    truth = 1 / float(weights.square().sum())
    covered = 0
    for seed in range(60):
        samples = torch.multinomial(weights, 400, replacement=True, generator=seeded(seed))
        found = support_size(samples[:, None].float(), 0.5)
        covered += found.low <= truth <= found.high
    assert covered >= 51  # 95% of 60 are 57; a right interval falls below 51 once in a thousand times
