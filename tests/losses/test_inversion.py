"""The loss of an encoder, against values worked out by hand."""

from types import SimpleNamespace

import pytest
import torch

from rivals.base.errors import UserError
from rivals.losses.inversion import inversion


def test_it_is_the_mean_squared_error_of_images_and_of_latents():
    zeros, ones = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    output = SimpleNamespace(images=zeros, reconstructed=3 * ones, latents=zeros[:, 0, 0], recovered=2 * ones[:, 0, 0])
    assert inversion(0.5)(output) == {"image": torch.tensor(9.0), "latent": torch.tensor(2.0)}
    assert list(inversion(0)(output)) == ["image"]


def test_a_negative_weight_is_refused():
    with pytest.raises(UserError, match="latent_weight -1 is negative"):
        inversion(-1)
