"""KID and CMMD: their definitions, bias, standard errors."""

import math

import numpy as np
import pytest
import torch

from rivals.base.errors import UserError
from rivals.metrics import cmmd, kid


def normal(n, d, seed=0, shift=0.0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * scale + shift


def plain_mmd(x, y, kernel, unbiased):
    """By definition, in double loops."""
    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j or not unbiased)
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j or not unbiased)
    xy = sum(kernel(a, b) for a in x for b in y)
    ways = (n * (n - 1), m * (m - 1)) if unbiased else (n * n, m * m)
    return xx / ways[0] + yy / ways[1] - 2 * xy / (n * m)


def test_kid_equals_its_definition():
    x, y = normal(12, 3).numpy(), normal(12, 3, 1, shift=0.5).numpy()
    expected = plain_mmd(x, y, lambda a, b: (a @ b / 3 + 1) ** 3, unbiased=True)
    assert kid(x, y, subsets=3, size=12).value == pytest.approx(expected, rel=1e-12)


def test_kid_is_unbiased_and_its_standard_error_is_correct():
    """Over fresh sets of equal distributions, the mean is 0 and the standard deviation is the reported error."""
    found = [kid(normal(200, 4, 2 * i), normal(200, 4, 2 * i + 1), 10, 100, seed=i) for i in range(60)]
    values, error = np.array([each.value for each in found]), np.mean([each.error for each in found])
    assert abs(values.mean()) < 3 * values.std() / 60**0.5
    assert values.min() < 0
    assert 0.7 < values.std() / error < 1.4


def test_kid_detects_a_shift_and_depends_on_the_seed():
    x, y = normal(600, 4), normal(500, 4, 1, shift=1.0)
    found = kid(x, y, size=200)
    assert found.value > 5 * found.error
    assert found == kid(x, y, size=200)
    assert found.value != kid(x, y, size=200, seed=1).value
    assert kid(x.float(), y.float(), size=200).value == pytest.approx(found.value, rel=1e-5)
    assert kid(x, x, size=600, subsets=2).value < 0  # unbiased, so negative for identical sets


def test_cmmd_equals_its_definition():
    x, y = normal(9, 5).numpy(), normal(7, 5, 1, shift=0.5).numpy()
    units = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (x, y)]
    expected = plain_mmd(*units, lambda a, b: math.exp(-((a - b) ** 2).sum() / 200), unbiased=False)
    assert cmmd(x, y) == pytest.approx(1000 * expected, rel=1e-9)
    assert cmmd(3 * x, y) == pytest.approx(cmmd(x, y), rel=1e-12)
    assert cmmd(x, x) == pytest.approx(0, abs=1e-12)


def test_cmmd_does_not_depend_on_the_block_size(monkeypatch):
    x, y = normal(50, 5), normal(40, 5, 1, shift=0.5)
    expected = cmmd(x, y)
    monkeypatch.setattr("rivals.metrics.mmd._BLOCK", 7)
    assert cmmd(x, y) == pytest.approx(expected, rel=1e-9)
    assert cmmd(x.flip(0), y) == pytest.approx(expected, rel=1e-9)


TWO = torch.zeros(5, 2)
BAD = {
    "the fake set has 5 images: give 1000 or more, or take smaller subsets": lambda: kid(normal(1000, 2), TWO),
    "1 subsets of 1000: take 2 or more": lambda: kid(TWO, TWO, subsets=1),
    "a sigma of 0 is not a bandwidth": lambda: cmmd(TWO + 1, TWO + 1, sigma=0),
    "5 images of the fake set have embeddings of length 0": lambda: cmmd(TWO + 1, TWO),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_in_one_line(message):
    with pytest.raises(UserError, match=message) as raised:
        BAD[message]()
    assert "\n" not in str(raised.value)
