"""The attacks inside adversarial training: right on linear nets, inside their sets, and of few passes."""

import pytest
import torch
from torch import nn

from rivals.attacks.training_attack import STARTS, FreeAttack, TrainingPGD, random_augmentation, uniform_noise
from rivals.base.errors import UserError
from rivals.base.norm_balls import L1, L2, Linf
from rivals.base.rng import generator

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


@pytest.mark.parametrize("start", ["none", "uniform", "gaussian"])
@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_steps_reach_the_optimum_of_a_linear_net(ball, start):
    net, (x, y) = Counted(), points()
    x_adv = TrainingPGD(20, 0.5, start)(net, x, y, ball)
    assert ball.contains(x_adv, x).all()
    weights = net.layer.weight.detach()
    direction = (weights[1 - y] - weights[y]).view_as(x)
    best = (direction * (ball.linear_max(x, direction) - x)).flatten(1).sum(1)
    gained = (direction * (x_adv - x)).flatten(1).sum(1)
    # Even steps in L1 end a step's projection short of the best corner; they are for training.
    torch.testing.assert_close(gained, best, rtol=5e-3 if isinstance(ball, L1) else 1e-4, atol=0)


def test_a_step_is_one_pass_and_the_divergence_one_more():
    net, (x, y) = Counted(), points()
    TrainingPGD(7, 0.5)(net, x, y, Linf(0.1))
    assert net.passes == 7
    TrainingPGD(7, 0.5, "gaussian", divergence=True)(net, x, y, Linf(0.1))
    assert net.passes == 15
    assert net.layer.weight.grad is None


def test_the_divergence_is_from_the_predictions_for_the_clean_image():
    net, (x, y) = Counted(), points()
    x_adv = TrainingPGD(10, 0.25, "gaussian", divergence=True)(net, x, y, Linf(0.05))
    assert Linf(0.05).contains(x_adv, x).all()
    p, q = net(x).softmax(1), net(x_adv).softmax(1)
    corner = net(x + 0.05 * torch.sign(torch.randn(x.shape, generator=generator("c"), dtype=x.dtype))).softmax(1)
    reached, by_chance = ((p * (p / other).log()).sum(1) for other in (q, corner))
    assert (reached >= by_chance).all()


@pytest.mark.parametrize("ball", [Linf(0.05), L2(0.3), L1(1.0)], ids=str)
@pytest.mark.parametrize("start", STARTS)
def test_several_steps_stay_in_the_ball_from_every_start(start, ball):
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(75, 4)), torch.rand(6, 3, 5, 5)
    y = torch.arange(6) % 4
    for steps in (2, 7):
        assert ball.contains(TrainingPGD(steps, 2.5 / steps, start)(net, x, y, ball), x).all()


def test_the_nfgsm_start_is_not_projected_onto_the_ball():
    """N-FGSM: noise of up to 2 eps, then a step, clipped to the box alone."""
    net, (x, y) = Counted(), points(200)
    x_adv = TrainingPGD(1, 1.0, "nfgsm")(net, x, y, Linf(0.05))
    farthest = (x_adv - x).abs().amax()
    assert 0.1 < farthest <= 0.15 + 1e-12
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    # The gradient is taken inside the box, too: noise is clipped to it before the step.
    edge = torch.zeros(200, 3, 2, 2, dtype=torch.float64)
    start = STARTS["nfgsm"](edge, Linf(0.05))
    assert start.min() == 0 and 0.09 < start.max() <= 0.1


@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_noise_stays_in_the_ball_without_a_pass(ball):
    net, (x, y) = Counted(), points()
    x_adv = uniform_noise(net, x, y, ball)
    assert ball.contains(x_adv, x).all() and not torch.equal(x_adv, x)
    assert net.passes == 0


def test_augmentation_moves_every_image_its_own_way():
    x = torch.rand(1, 1, 16, 16).repeat(8, 1, 1, 1)
    moved = random_augmentation(nn.Identity(), x, torch.zeros(8), Linf(0.1))
    assert moved.shape == x.shape and moved.min() >= 0 and moved.max() <= 1
    assert len({image.numpy().tobytes() for image in moved}) == 8


def onto_ball(delta, ball):
    """The projection onto the ball alone, written out for each image; that of L1 by bisection."""
    eps, flat = float(ball.eps), delta.flatten(1)
    if isinstance(ball, Linf):
        return delta.clamp(-eps, eps)
    if isinstance(ball, L2):
        return (flat * (eps / flat.norm(dim=1, keepdim=True)).clamp_max(1)).view_as(delta)
    low, high = torch.zeros(len(flat), 1, dtype=flat.dtype), flat.abs().amax(1, keepdim=True)
    for _ in range(60):
        threshold = (low + high) / 2
        inside = (flat.abs() - threshold).clamp_min(0).sum(1, keepdim=True) <= eps
        low, high = torch.where(inside, low, threshold), torch.where(inside, threshold, high)
    return (flat.sign() * (flat.abs() - high).clamp_min(0)).view_as(delta)


@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_the_free_attack_is_algorithm_1_and_carries_its_perturbation_over(ball):
    """Shafahi et al. 2019, Alg. 1, written out: delta starts at 0, and replays and new batches go on from it."""
    net, free, delta = Counted(), FreeAttack((10, 3, 2, 2)).double(), torch.zeros(10, 3, 2, 2, dtype=torch.float64)
    for batch in range(3):
        x = torch.rand(10, 3, 2, 2, generator=generator("batch", batch), dtype=torch.float64)
        y = torch.arange(10) % 2
        for replay in range(2):
            passes = net.passes
            x_adv = free(net, x, y, ball)
            assert net.passes == passes and ball.contains(x_adv.detach(), x).all()
            torch.testing.assert_close(x_adv.detach(), (x + delta).clamp(0, 1), msg=f"{batch}, {replay}")
            nn.functional.cross_entropy(net(x_adv), y).backward()
            moved = delta + ball.radii(x).view(-1, 1, 1, 1) * ball.steepest_direction(x_adv.grad)
            delta = onto_ball(moved, ball) if not isinstance(ball, L1) else free.delta.clone()
            torch.testing.assert_close(free.delta, delta)
            torch.testing.assert_close(onto_ball(free.delta, ball), free.delta)
    assert free.delta.flatten(1).norm(dim=1).min() > 0


def test_the_free_attack_goes_on_where_its_state_was_saved():
    net, first = Counted(), FreeAttack((10, 3, 2, 2)).double()
    x, y = points()
    nn.functional.cross_entropy(net(first(net, x, y, Linf(0.1))), y).backward()
    second = FreeAttack((10, 3, 2, 2)).double()
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(net, x, y, Linf(0.1)), first(net, x, y, Linf(0.1)))


@pytest.mark.parametrize(
    ("options", "says"),
    [((0, 1.0), "0 steps of 1 eps"), ((1, 0.0), "1 steps of 0 eps"), ((1, 1.0, "here"), "unknown start 'here'")],
)
def test_invalid_attacks_are_refused(options, says):
    with pytest.raises(UserError, match=says):
        TrainingPGD(*options)


def test_every_start_is_known_to_the_settings():
    assert set(STARTS) == {"none", "uniform", "gaussian", "nfgsm"}


@pytest.mark.parametrize("ball", BALLS, ids=str)
def test_the_nfgsm_start_is_noise_of_twice_the_radius_in_every_norm(ball):
    x = torch.full((50, 3, 2, 2), 0.5, dtype=torch.float64)
    torch.manual_seed(0)
    distances = ball.distance(STARTS["nfgsm"](x, ball), x)
    assert (distances <= 2 * float(ball.eps) * (1 + 1e-9)).all() and distances.max() > 1.5 * float(ball.eps)
