"""Dropout against its definition."""

import pytest
import torch

from rivals.nets.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.99])
def test_the_dropped_share_is_p_and_the_rest_is_scaled(p):
    torch.manual_seed(0)
    y = Dropout(p)(torch.ones(1000, 1001))
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=3e-3)
    kept = y[y != 0]
    assert kept.min() == kept.max()
    assert kept[0].item() == pytest.approx(1 / (1 - p), rel=2e-3)
    assert y.mean().item() == pytest.approx(1, abs=0.05)


def test_positions_are_dropped_independently():
    torch.manual_seed(0)
    dropped = (Dropout(0.5)(torch.ones(400, 400)) == 0).float()
    for shift in (1, 2, 3, 4, 8, 400):
        a, b = dropped.flatten()[shift:], dropped.flatten()[:-shift]
        assert (a * b).mean().item() == pytest.approx(0.25, abs=6e-3)


def test_gradients_pass_where_values_were_kept():
    torch.manual_seed(0)
    x = torch.rand(7, 3, dtype=torch.float64).add(1).requires_grad_()
    y = Dropout(0.4)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_evaluation_mode_and_p_of_zero_are_the_identity():
    x = torch.rand(5, 5)
    assert torch.equal(Dropout(0.3).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


def test_the_mask_follows_the_seed():
    x, draws = torch.ones(3, 5), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(Dropout(0.5)(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
