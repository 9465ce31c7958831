"""Masks: no attack changes anything outside, and inside they are as strong as where nothing else is there to change."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from helpers.attack_norms import RADII, norms_of, short
from helpers.models import conv_model, linear_model, uniform
from helpers.refusals import named
from rivals import L0, L1, L2, Linf, UserError, evaluate
from rivals.api.robustness.mask_file import read_mask
from rivals.attacks import ATTACKS, freeze, pgd, square
from rivals.base.rng import generator


def masks(shape):
    """A region, a channel, a scatter of values and a single one."""
    region = torch.zeros(shape[1:], dtype=torch.bool)
    region[..., 1:3, 2:5] = True
    channel = torch.zeros(shape[0], *[1] * (len(shape) - 1), dtype=torch.bool)
    channel[0] = True
    one = torch.zeros(shape, dtype=torch.bool)
    one[(1,) * len(shape)] = True
    return {"region": region, "channel": channel, "scatter": uniform(*shape, seed="mask") < 0.3, "one": one}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_stays_inside_every_mask_in_every_norm(name):
    model, x, y = conv_model(n=5)
    for norm in norms_of(name):
        for kind, mask in masks((3, 6, 6)).items():
            ball = norm(RADII[norm])
            x_adv = ATTACKS[name](model, x, y, ball, mask=mask, **short(name))
            assert torch.equal(x_adv.masked_select(~mask), x.masked_select(~mask)), (norm, kind)
            assert ball.masked(mask).contains(x_adv, x).all(), (norm, kind)


@pytest.mark.parametrize("name", ["pgd", "noise", "square", "fab", "sparse_rs"])
def test_frames_of_a_video_are_masked(name):
    model, x, y = linear_model(3, (2, 3, 6, 6), n=4)
    mask = torch.tensor([True, False, True]).view(3, 1, 1)
    norm = Linf if Linf in norms_of(name) else L0
    x_adv = ATTACKS[name](model, x, y, norm(RADII[norm]), mask=mask, **short(name))
    assert torch.equal(x_adv[:, :, 1], x[:, :, 1])
    assert (x_adv != x)[:, :, [0, 2]].any()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.02, 1), st.sampled_from([Linf, L2, L1, L0]), st.booleans())
def test_balls_keep_to_random_masks(seed, density, norm, pixels):
    mask = torch.rand(2, 3, 3, generator=generator(seed)) < density
    mask[0, 0, 0] = True
    x = uniform(3, 2, 3, 3)
    ball = (L0(2, pixels=pixels) if norm is L0 else norm(0.4)).masked(mask)
    wild = x + torch.randn(3, 2, 3, 3, generator=generator(seed, "wild"), dtype=x.dtype)
    random = [generator(seed, i) for i in range(3)]
    for point in (
        ball.project(wild, x),
        ball.linear_max(x, wild),
        ball.sample(x, random),
        ball.sample_sphere(x, random),
        ball.project(ball.step(x, wild, ball.radii(x)), x),
    ):
        assert torch.equal(point.masked_select(~mask), x.masked_select(~mask))
        assert ball.contains(point, x).all()
    outside = torch.where(mask, x, 1 - x)
    assert bool(mask.all()) or not ball.contains(outside, x).any()


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.6), L1(2.0)], ids=str)
def test_a_mask_is_as_strong_as_a_model_of_the_masked_values_alone(ball):
    """The loss of a linear model is maximal in closed form: that of its masked values."""
    model, x, y = linear_model(2, n=8)
    mask = uniform(3, 4, 4, seed="mask") < 0.4
    weights = (model[1].weight[1 - y] - model[1].weight[y]).view_as(x).detach()
    best = ball.masked(mask).linear_max(x, weights)
    found = pgd(model, x, y, ball, mask=mask, steps=40, loss="margin", stop_when_fooled=False)
    gains = [(weights * (z - x)).flatten(1).sum(1) for z in (found, best)]
    assert (gains[0] >= 0.98 * gains[1]).all()
    assert (gains[1] > 0).all()


class Deaf(nn.Module):
    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, x):
        self.asked.append(x.detach().clone())
        return torch.tensor([2.0, 0.0], dtype=x.dtype).expand(len(x), 2)


def test_squares_proposals_stay_inside_too():
    model, x, mask = Deaf(), uniform(2, 3, 8, 8), torch.zeros(8, 8, dtype=torch.bool)
    mask[2:6, 3:7] = True
    with freeze(model, x) as frozen:
        model.asked.clear()
        square(frozen, x, torch.zeros(2, dtype=torch.int64), Linf(0.1), queries=20, mask=mask)
    for images in model.asked:
        assert torch.equal(images.masked_select(~mask), x.masked_select(~mask))


@pytest.mark.parametrize(
    ("mask", "parts"),
    [
        (torch.ones(5, 5, dtype=torch.bool), ("mask has the shape (5, 5)", "one image of (3, 6, 6)")),
        (torch.ones(2, 3, 6, 6, dtype=torch.bool), ("mask has the shape (2, 3, 6, 6)",)),
        (torch.ones(6, 6), ("the mask is a tensor of torch.float32: give a tensor of torch.bool",)),
        (torch.zeros(6, 6, dtype=torch.bool), ("the mask is nowhere True",)),
        ("all", ("the mask is a str",)),
    ],
)
def test_bad_masks_are_refused_in_one_line(mask, parts):
    model, x, y = conv_model(n=2)
    with named(*parts):
        pgd(model, x, y, Linf(0.1), mask=mask)


def test_a_mask_is_read_from_a_picture(tmp_path):
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[2:4, 1:5] = 255
    Image.fromarray(pixels).save(tmp_path / "gray.png")
    assert torch.equal(read_mask(tmp_path / "gray.png", (3, 6, 8)), torch.from_numpy(pixels[:, :, 0] > 0))
    pixels[0, 0, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "colors.png")
    assert torch.equal(read_mask(tmp_path / "colors.png", (3, 6, 8)), torch.from_numpy(pixels > 0).permute(2, 0, 1))
    with named("is 8 x 6 and the images are 6 x 6: give one of their size"):
        read_mask(tmp_path / "gray.png", (3, 6, 6))
    (tmp_path / "text.png").write_text("no picture")
    with named("cannot be read as an image"):
        read_mask(tmp_path / "text.png", (3, 6, 6))
    with named("there is no mask"):
        read_mask(tmp_path / "none.png", (3, 6, 6))
    Image.new("L", (6, 6)).save(tmp_path / "dark.png")
    with named("is dark everywhere"):
        read_mask(tmp_path / "dark.png", (3, 6, 6))


def test_an_evaluation_keeps_to_a_mask_from_a_file_or_of_the_ball(tmp_path):
    model, x, y = conv_model(n=8)
    mask = np.zeros((6, 6), np.uint8)
    mask[:3] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    out = tmp_path / "run"
    report = evaluate(
        model, (x, y), Linf(0.3), attack="pgd(steps=5)", mask=str(tmp_path / "mask.png"), out=out, quiet=True
    )
    own = evaluate(model, (x, y), Linf(0.3).masked(torch.from_numpy(mask > 0)), attack="pgd(steps=5)", quiet=True)
    assert (report.robust, report.protocol["masked"]) == (own.robust, 0.5)
    with np.load(out / "adversarial.npz") as saved:
        changed = saved["x_adv"] != x.numpy().astype(np.float32)[saved["index"]]
    assert changed[:, :, :3].any()
    assert not changed[:, :, 3:].any()


def test_an_attack_without_a_ball_has_no_mask():
    model, x, y = conv_model(n=2)
    from rivals.attacks import augment

    with pytest.raises(UserError, match="unknown option of augment 'mask'"):
        augment(model, x, y, mask=torch.ones(6, 6, dtype=torch.bool))
