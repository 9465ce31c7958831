"""APGD against the published schedule, written out for one image at a time."""

import math

import pytest
import torch
from torch import nn

from rivals.attacks import apgd, freeze
from rivals.attacks.apgd import checkpoints
from rivals.attacks.attack_losses import cross_entropy, dlr, margin, strongest_others
from rivals.base.norm_balls import L1, L2, Linf
from rivals.base.rng import generator, streams

CHECKS = [22, 41, 57, 70, 80, 87, 93, 99]


def net(classes=5):
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 36, classes)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator("apgd"), dtype=torch.float64) * 0.5)
    x = torch.rand(8, 3, 6, 6, generator=generator("apgd x"), dtype=torch.float64)
    return model, x, model(x).argmax(1)


def evaluate(model, x, y, loss):
    x = x.detach().requires_grad_()
    logits = model(x)
    value = loss(logits, y).sum()
    return bool(logits.argmax(1) != y), value.item(), torch.autograd.grad(value, x)[0]


class Best:
    """One that fools before one that does not, then the larger loss."""

    def __init__(self):
        self.key, self.x = (False, -math.inf), None

    def keep_best(self, fools, value, x):
        if (fools, value) > self.key:
            self.key, self.x = (fools, value), x


def by_the_book(model, x, y, ball, loss):
    """Croce & Hein 2020, algorithm 1, for one image and 100 steps."""
    eta = 2 * float(ball.eps)
    here = before = ball.sample_sphere(x, streams(x, [0], 0, "apgd"))
    fools, value, gradient = evaluate(model, here, y, loss)
    kept, history = Best(), [value]
    kept.keep_best(fools, value, here)
    top, top_value, top_gradient = here, value, gradient
    last, halved, best_at_last = 0, True, value
    halvings = 0
    for step in range(1, 101):
        aim = ball.project(here + eta * ball.steepest_direction(gradient), x)
        keep = 0.75 if step > 1 else 1.0
        there = ball.project(here + keep * (aim - here) + (1 - keep) * (here - before), x)
        before, here = here, there
        fools, value, gradient = evaluate(model, here, y, loss)
        kept.keep_best(fools, value, here)
        history.append(value)
        if value > top_value:
            top, top_value, top_gradient = here, value, gradient
        if step in CHECKS:
            rises = sum(history[k + 1] > history[k] for k in range(last, step))
            stale = not halved and best_at_last >= top_value
            halved = rises <= 0.75 * (step - last) or stale
            last, best_at_last = step, top_value
            if halved:
                halvings += 1
                eta, here, gradient = eta / 2, top, top_gradient
    return kept.x, halvings


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(reduction="none"), dlr], ids=["ce", "dlr"])
@pytest.mark.parametrize("ball", [Linf(0.02), L2(0.3)], ids=str)
def test_apgd_matches_algorithm_1(ball, loss):
    model, x, y = net()
    found = apgd(model, x, y, ball, loss="dlr" if loss is dlr else "ce", stop_when_fooled=False, batch_size=3)
    halvings = set()
    for i in range(len(x)):
        expected, halved = by_the_book(model, x[i : i + 1], y[i : i + 1], ball, loss)
        assert torch.allclose(found[i : i + 1], expected, atol=1e-7)
        halvings.add(halved)
    assert max(halvings) >= 4


def sparse_by_the_book(model, x, y, eps):
    """Croce & Hein 2021, sec. 3, for one image: 30, 30 and 40 steps with radii of 3, 2 and 1 eps."""
    kept, top = Best(), None
    for factor, steps in ((3, 30), (2, 30), (1, 40)):
        ball = L1(factor * eps)
        here = ball.sample_sphere(x, streams(x, [0], 0, "apgd")) if top is None else ball.project(top, x)
        fools, value, gradient = evaluate(model, here, y, cross_entropy)
        top, top_value, top_gradient = here, value, gradient
        eta, support = factor * eps, (here != x).sum().item()
        for step in range(steps + 1):
            if step:
                count = torch.tensor([max(1, int(support / 1.5))])
                here = ball.project(here + eta * ball.steepest_direction(gradient, count=count), x)
                fools, value, gradient = evaluate(model, here, y, cross_entropy)
                if value > top_value:
                    top, top_value, top_gradient = here, value, gradient
                now = (top != x).sum().item()
                if now < 0.95 * support:
                    eta, here_next, gradient = factor * eps, top, top_gradient
                else:
                    eta, here_next = max(eta / 1.5, factor * eps / 10), here
                support = now
            else:
                here_next = here
            if factor == 1:
                kept.keep_best(fools, value, here)
            here = here_next
    return kept.x


def test_apgd_l1_matches_the_published_algorithm():
    model, x, y = net()
    found = apgd(model, x, y, L1(1.5), stop_when_fooled=False, batch_size=3)
    for i in range(len(x)):
        expected = sparse_by_the_book(model, x[i : i + 1], y[i : i + 1], 1.5)
        assert torch.allclose(found[i : i + 1], expected, atol=1e-7)


def test_checkpoints_are_the_published_ones():
    ends = checkpoints(100)
    assert [end for end, window in enumerate(ends) if window] == CHECKS
    assert [ends[end] for end in CHECKS] == [22, 19, 16, 13, 10, 7, 6, 6]
    for steps in (1, 2, 10, 33):
        assert len(checkpoints(steps)) == steps + 1


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
@pytest.mark.parametrize("ball", [Linf(0.02), L1(1.0)], ids=str)
def test_few_steps(ball, steps):
    model, x, y = net()
    with freeze(model, x) as frozen:
        x_adv = apgd(frozen, x, y, ball, steps=steps, stop_when_fooled=False)
        extra = 3 if isinstance(ball, L1) else 1  # each of the three stages begins with an evaluation
        assert frozen.forwards == 8 * (steps + extra)
    assert ball.contains(x_adv, x).all()


def test_targets_are_tried_in_turn_and_any_wrong_class_counts():
    model, x, y = net()
    ball = Linf(0.03)
    ranks = strongest_others(model(x), y, 3)
    assert not (ranks == y[:, None]).any()
    assert torch.equal(ranks[:, 0], model(x).scatter(1, y[:, None], -math.inf).argmax(1))
    for count in (1, 3):
        x_adv = apgd(model, x, y, ball, loss="dlr", n_targets=count)
        said = model(x_adv).argmax(1)
        aimed = [apgd(model, x, y, ball, loss="dlr", targets=ranks[:, k]) for k in range(count)]
        reached = torch.stack([model(z).argmax(1) != y for z in aimed]).any(0)
        assert (said != y)[reached].all()


def logits_and_labels():
    return torch.tensor([[3.0, 1.0, 0.5, -1.0], [3.0, 1.0, 0.5, -1.0]]), torch.tensor([0, 2])


def test_losses_by_hand():
    z, y = logits_and_labels()
    goal = torch.tensor([1, 3])
    assert torch.allclose(margin(z, y), torch.tensor([-2.0, 2.5]))
    assert torch.allclose(margin(z, y, goal), torch.tensor([-2.0, -4.0]))
    assert torch.allclose(dlr(z, y), torch.tensor([-2 / 2.5, 2.5 / 2.5]))
    assert torch.allclose(dlr(z, y, goal), torch.tensor([-2 / (3 + 0.25), -1.5 / (3 + 0.25)]))
    assert torch.allclose(dlr(z[:, :2], torch.tensor([0, 1])), torch.tensor([-2.0, 2.0]))
    assert torch.allclose(dlr(z[:, :3], y, torch.tensor([1, 0])), torch.tensor([-2.0, 2.5]))
    ce = nn.CrossEntropyLoss(reduction="none")
    assert torch.allclose(nn.functional.softplus(cross_entropy(z, y)), ce(z, y))
    assert torch.allclose(nn.functional.softplus(-cross_entropy(z, y, goal)), ce(z, goal))


@pytest.mark.parametrize("loss", [dlr, cross_entropy, margin])
def test_losses_do_not_change_with_a_shift_of_the_logits_and_dlr_not_with_scale(loss):
    z, y = logits_and_labels()
    assert torch.allclose(loss(z + 100, y), loss(z, y), atol=1e-4)
    if loss is dlr:
        assert torch.allclose(loss(7 * z, y), loss(z, y))
