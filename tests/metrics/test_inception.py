"""The Inception Score: its range, its definition, shuffling."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from rivals.base.errors import UserError
from rivals.metrics import inception_score


def normal(n, d, seed=0, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * scale + shift


def test_the_score_ranges_from_one_to_the_number_of_classes():
    certain = torch.eye(8).repeat(30, 1)
    assert inception_score(certain, splits=1) == (pytest.approx(8), None)
    assert inception_score(torch.full((100, 8), 1 / 8)).value == pytest.approx(1)
    assert inception_score(certain[:1].repeat(100, 1)).value == pytest.approx(1)


def test_the_score_equals_its_definition():
    logits = normal(43, 5)
    p = scipy.special.softmax(logits.numpy(), axis=1)
    parts = [p[i * 43 // 4 : (i + 1) * 43 // 4] for i in range(4)]
    expected = [np.exp(scipy.stats.entropy(part, part.mean(0), axis=1).mean()) for part in parts]
    found = inception_score(logits, 4, logits=True, seed=None)
    assert found.value == pytest.approx(np.mean(expected), rel=1e-9)
    assert found.error * 3**0.5 == pytest.approx(np.std(expected), rel=1e-9)
    assert inception_score(p, 4, seed=None) == pytest.approx(found, rel=1e-9)


def test_images_sorted_by_class_are_shuffled_before_splitting():
    by_class = torch.eye(10).repeat_interleave(200, 0)
    assert inception_score(by_class, seed=None).value == pytest.approx(1)
    assert inception_score(by_class).value > 9
    assert inception_score(by_class) == inception_score(by_class)


TWO = torch.zeros(5, 2)
BAD = {
    "the probability set has 5 images: give 10 or more": lambda: inception_score(TWO + 0.5),
    "0 splits": lambda: inception_score(TWO + 0.5, 0),
    "pass logits=True": lambda: inception_score(TWO, 2),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_in_one_line(message):
    with pytest.raises(UserError, match=message) as raised:
        BAD[message]()
    assert "\n" not in str(raised.value)
