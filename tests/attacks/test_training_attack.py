"""The attacks inside adversarial training: right on linear nets, inside their sets, and of few passes."""

import pytest
import torch
from torch import nn

from rivals.attacks.inner import STARTS, Free, Inner, augmented, noisy
from rivals.base.balls import L1, L2, Linf
from rivals.base.errors import UserError
from rivals.base.seeds import generator

BALLS = [Linf(0.1), L2(0.5), L1(2.0)]


class Counted(nn.Module):
    """A net of two classes, linear but for the final layer's shape, that counts its passes."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 2).double()
        self.passes = 0
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(2, 12, generator=generator("w"), dtype=torch.float64))

    def forward(self, x):
        self.passes += 1
        return self.layer(x.flatten(1))


def points(n=10):
    x = 0.3 + 0.4 * torch.rand(n, 3, 2, 2, generator=generator("x"), dtype=torch.float64)
    return x, torch.arange(n) % 2


@pytest.mark.parametrize("start", ["image", "anywhere", "nearby"])
@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_steps_reach_the_optimum_of_a_linear_net(ball, start):
    net, (x, y) = Counted(), points()
    x_adv = Inner(20, 0.5, start)(net, x, y, ball)
    assert ball.contains(x_adv, x).all()
    weights = net.layer.weight.detach()
    direction = (weights[1 - y] - weights[y]).view_as(x)
    best = (direction * (ball.maximise(x, direction) - x)).flatten(1).sum(1)
    gained = (direction * (x_adv - x)).flatten(1).sum(1)
    # Even steps in L1 end a step's projection short of the best corner; they are for training.
    torch.testing.assert_close(gained, best, rtol=5e-3 if isinstance(ball, L1) else 1e-4, atol=0)


def test_a_step_is_one_pass_and_the_divergence_one_more():
    net, (x, y) = Counted(), points()
    Inner(7, 0.5)(net, x, y, Linf(0.1))
    assert net.passes == 7
    Inner(7, 0.5, "nearby", divergence=True)(net, x, y, Linf(0.1))
    assert net.passes == 15
    assert net.layer.weight.grad is None


def test_the_divergence_climbs_away_from_the_answers_to_the_image():
    net, (x, y) = Counted(), points()
    x_adv = Inner(10, 0.25, "nearby", divergence=True)(net, x, y, Linf(0.05))
    assert Linf(0.05).contains(x_adv, x).all()
    p, q = net(x).softmax(1), net(x_adv).softmax(1)
    corner = net(x + 0.05 * torch.sign(torch.randn(x.shape, generator=generator("c"), dtype=x.dtype))).softmax(1)
    reached, by_chance = ((p * (p / other).log()).sum(1) for other in (q, corner))
    assert (reached >= by_chance).all()


def test_the_start_beyond_the_ball_is_not_drawn_back():
    """N-FGSM: noise of up to 2 eps, then a step, clipped to the box alone."""
    net, (x, y) = Counted(), points(200)
    x_adv = Inner(1, 1.0, "beyond")(net, x, y, Linf(0.05))
    farthest = (x_adv - x).abs().amax()
    assert 0.1 < farthest <= 0.15 + 1e-12
    assert x_adv.min() >= 0 and x_adv.max() <= 1


@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_noise_stays_in_the_ball_and_asks_nothing(ball):
    net, (x, y) = Counted(), points()
    x_adv = noisy(net, x, y, ball)
    assert ball.contains(x_adv, x).all() and not torch.equal(x_adv, x)
    assert net.passes == 0


def test_augmentation_moves_every_image_its_own_way():
    x = torch.rand(1, 1, 16, 16).repeat(8, 1, 1, 1)
    moved = augmented(nn.Identity(), x, torch.zeros(8), Linf(0.1))
    assert moved.shape == x.shape and moved.min() >= 0 and moved.max() <= 1
    assert len({image.numpy().tobytes() for image in moved}) == 8


def test_the_free_attack_steps_by_the_gradient_that_the_classifier_left():
    net, (x, y) = Counted(), points()
    ball, free = Linf(0.1), Free()
    torch.manual_seed(0)
    first = free(net, x, y, ball)
    assert ball.contains(first.detach(), x).all()
    nn.functional.cross_entropy(net(first), y).backward()
    wanted = ball.project(first.detach() + 0.1 * first.grad.sign(), x)
    passes = net.passes
    second = free(net, x, y, ball)
    assert torch.equal(second.detach(), wanted)
    assert net.passes == passes
    other = free(net, x.flip(0), y, ball)
    assert not torch.equal(other.detach(), ball.project(second.detach(), x))
    assert ball.contains(other.detach(), x.flip(0)).all()


@pytest.mark.parametrize(
    ("knobs", "says"),
    [((0, 1.0), "0 steps of 1 eps"), ((1, 0.0), "1 steps of 0 eps"), ((1, 1.0, "here"), "unknown start 'here'")],
)
def test_what_makes_no_attack_is_refused(knobs, says):
    with pytest.raises(UserError, match=says):
        Inner(*knobs)


def test_every_start_is_known_to_the_settings():
    assert set(STARTS) == {"image", "anywhere", "nearby", "beyond"}
