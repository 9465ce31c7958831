"""Mode counts, on generators whose modes are known: perfect, collapsed, noise."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.base.errors import UserError
from rivals.metrics.mode_coverage import count_mixture_modes, count_modes, label_entropy, ring, square, stacked_labels


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_perfect_generator_is_at_the_floor_and_a_collapsed_one_far_above():
    perfect = count_modes(torch.randint(1000, (26_000,), generator=seeded()), 1000)
    assert perfect.found == 1000
    # Wilks: 2 n KL is chi-squared with 999 degrees of freedom.
    assert perfect.floor == pytest.approx(999 / (2 * 26_000), rel=0.03)
    assert perfect.floor_std == pytest.approx(math.sqrt(2 * 999) / (2 * 26_000), rel=0.2)
    assert abs(perfect.kl - perfect.floor) < 4 * perfect.floor_std
    collapsed = count_modes(torch.full((26_000,), 7), 1000)
    assert (collapsed.found, collapsed.kl) == (1, pytest.approx(math.log(1000)))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.permutations(range(6)))
def test_counts_do_not_depend_on_the_order_of_the_modes(labels, names):
    a = count_modes(torch.tensor(labels), 6)
    b = count_modes(torch.tensor([names[label] for label in labels]), 6)
    assert (a.found, a.kl) == (len(set(labels)), pytest.approx(b.kl, abs=1e-12))


def test_the_divergence_is_from_the_target_shares():
    labels = torch.tensor([0, 0, 0, 1])
    assert count_modes(labels, 2, torch.tensor([3.0, 1.0])).kl == pytest.approx(0, abs=1e-12)
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert count_modes(labels, 2).kl == pytest.approx(expected)
    with_outliers = count_modes(torch.tensor([0, 0, 0, 1, -1, -1]), 2)
    assert (with_outliers.kl, with_outliers.n) == (pytest.approx(expected), 6)


def test_stacked_digits_are_read_as_a_number():
    assert stacked_labels(torch.tensor([[0, 0, 7], [1, 2, 3], [9, 9, 9]])).tolist() == [7, 123, 999]


@pytest.mark.parametrize("mixture", [ring(), square()], ids=["ring", "grid"])
def test_samples_of_a_mixture_have_all_modes_and_few_centers_few(mixture):
    modes = len(mixture.centers)
    found, high_quality = count_mixture_modes(mixture.sample(20_000), mixture)
    assert found.found == modes == {8: 8, 25: 25}[modes]
    # In two dimensions a point is within 3 standard deviations with probability 1 - exp(-9/2).
    assert high_quality == pytest.approx(1 - math.exp(-4.5), abs=0.004)
    assert found.kl < found.floor + 5 * found.floor_std
    three_centers = mixture.centers[:3].repeat(100, 1)
    found, high_quality = count_mixture_modes(three_centers, mixture)
    assert (found.found, high_quality) == (3, 1)
    assert found.kl == pytest.approx(math.log(modes / 3))
    _, high_quality = count_mixture_modes(torch.rand(1000, 2, generator=seeded()) * 8 - 4, mixture)
    assert high_quality < 0.1
    assert torch.equal(mixture.sample(5, seed=1), mixture.sample(5, seed=1))


def test_label_entropy_of_certain_and_uncertain_predictions():
    certain = torch.eye(10).repeat(5, 1)
    assert label_entropy(certain) == (pytest.approx(math.log(10)), 0)
    assert label_entropy(certain[:1].repeat(20, 1)) == (pytest.approx(0, abs=1e-12), 0)
    uncertain = torch.full((20, 10), 0.1)
    assert label_entropy(uncertain) == (pytest.approx(math.log(10)), pytest.approx(math.log(10)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: count_modes(torch.tensor([-1, -1]), 3), "nothing to count"),
        (lambda: count_modes(torch.tensor([3]), 3), "outside"),
        (lambda: count_modes(torch.tensor([0]), 2, torch.tensor([1.0, 0.0])), "above 0"),
        (lambda: count_mixture_modes(torch.zeros(4, 3), ring()), "do not fit"),
        (lambda: label_entropy(torch.zeros(0, 10)), "do not fit"),
        (lambda: label_entropy(torch.zeros(2, 10)), "not a distribution"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
