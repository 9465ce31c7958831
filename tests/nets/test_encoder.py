"""Encoders: one latent an image, whatever its batch, rebuilt from their spec."""

import pytest
import torch

from rivals.base.errors import UserError
from rivals.nets.factory import build_encoder, rebuild


@pytest.mark.parametrize("size", [8, 11, 28, "13x8"])
def test_a_latent_does_not_depend_on_the_rest_of_the_batch(size):
    torch.manual_seed(0)
    net = build_encoder(size=size, channels=3, latent_dim=5, widths=(4, 8))
    x = torch.rand(6, 3, *net.size) * 2 - 1
    assert net(x).shape == (6, 5)
    torch.testing.assert_close(net(x)[2:3], net(x[2:3]))


def test_it_is_rebuilt_from_its_spec():
    net = build_encoder(size=8, channels=1, latent_dim=3)
    other = rebuild(net.spec)
    assert other.spec == net.spec
    other.load_state_dict(net.state_dict())
    for wrong in ({"classes": 2}, {"net": "dcgan"}, {"widths": (4,) * 7}, {"latent_dim": 0}):
        with pytest.raises(UserError):
            rebuild({**net.spec, **wrong})
