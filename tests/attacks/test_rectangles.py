"""Attacks on images that are wide or tall."""

import pytest
import torch

from helpers.attack_norms import RADII, norms_of, short
from helpers.models import linear_model
from rivals.attacks import ATTACKS

SHAPES = [(2, 4, 9), (2, 9, 4)]


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_works_on_rectangles_in_every_norm(name):
    for shape in SHAPES:
        model, x, y = linear_model(3, shape, n=4)
        for norm in norms_of(name):
            ball = norm(RADII[norm])
            x_adv = ATTACKS[name](model, x, y, ball, **short(name))
            assert x_adv.shape == x.shape
            assert ball.contains(x_adv, x).all(), (shape, norm)


@pytest.mark.parametrize("name", ["pgd", "square", "sparse_rs"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_whole_frame_is_reached(name, shape):
    """A model that sees the corners alone is fooled there."""

    class Corners(torch.nn.Module):
        def forward(self, x):
            corners = x[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].sum(1)
            return torch.stack([corners.amin(1), corners.new_full((len(corners),), 1.0)], 1)

    model, x = Corners(), torch.full((3, *shape), 0.55, dtype=torch.float64)
    ball = norms_of(name)[0](1.0 if name == "sparse_rs" else 0.2)
    budget = {"pgd": {"steps": 3}, "square": {"queries": 300}, "sparse_rs": {"queries": 400}}[name]
    x_adv = ATTACKS[name](model, x, torch.zeros(3, dtype=torch.int64), ball, **budget)
    assert (model(x_adv).argmax(1) == 1).all()
