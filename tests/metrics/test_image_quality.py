"""PSNR and SSIM against their definitions."""

import numpy as np
import pytest
import torch

from rivals.base.errors import UserError
from rivals.metrics.image_quality import psnr, relative_change, ssim


def test_psnr_of_a_known_error():
    x = torch.full((2, 3, 4, 4), 0.5)
    y = x.clone()
    y[1] += 0.1
    assert psnr(x, y).tolist() == pytest.approx([100, 20], abs=1e-4)


def test_ssim_is_the_formula_of_the_paper_at_each_place():
    random = np.random.default_rng(0)
    x, y = random.random((2, 1, 2, 13, 14))
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for channel in range(2):
        for row in range(3):
            for column in range(4):
                a, b = (each[0, channel, row : row + 11, column : column + 11] for each in (x, y))
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = ((window * (each - mean) ** 2).sum() for each, mean in ((a, mean_a), (b, mean_b)))
                cov = (window * (a - mean_a) * (b - mean_b)).sum()
                c1, c2 = 0.01**2, 0.03**2
                values.append(
                    (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
                )
    assert float(ssim(torch.from_numpy(x), torch.from_numpy(y))) == pytest.approx(np.mean(values), abs=1e-12)


def test_ssim_of_equal_images_is_1_and_falls_with_noise():
    x = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(1, 1, 20, 20, generator=torch.Generator().manual_seed(1))
    values = [float(ssim(x, x + sigma * noise)) for sigma in (0, 0.1, 0.5)]
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > values[2]


def test_a_copy_changes_nothing_and_another_image_as_much_as_there_is_to_change():
    inputs = torch.zeros(4, 1, 2, 2)
    targets = inputs + 0.8
    assert relative_change(inputs, inputs, targets) == 0
    assert relative_change(targets, inputs, targets[:3]) == pytest.approx(1)
    assert relative_change(inputs + 0.2, inputs, targets) == pytest.approx(0.25)
    assert relative_change(targets, inputs, inputs) == 0


def test_what_has_no_value_is_refused():
    with pytest.raises(UserError, match="are no pairs"):
        psnr(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))
    with pytest.raises(UserError, match="10x20 have no SSIM"):
        ssim(torch.zeros(1, 1, 10, 20), torch.zeros(1, 1, 10, 20))
