"""Gradient attacks against closed forms, and the promises every attack keeps about its result."""

import pytest
import torch
from torch import nn

from helpers.models import BALLS, conv_model, linear_model, uniform
from rivals.attacks import apgd, augment, bim, fgsm, freeze, mifgsm, noise, pgd
from rivals.base.norm_balls import L1, L2, Linf
from rivals.base.rng import generator

EVERY = {"fgsm": fgsm, "bim": bim, "pgd": pgd, "mifgsm": mifgsm, "apgd": apgd, "noise": noise}
CLIMBERS = {name: EVERY[name] for name in ("fgsm", "bim", "pgd", "mifgsm", "apgd")}


def gains(model, x, y, x_adv):
    """How much the other class gains on the label, in a model of two classes."""
    change = model(x_adv) - model(x)
    return (change.gather(1, 1 - y[:, None]) - change.gather(1, y[:, None]))[:, 0].detach()


@pytest.mark.parametrize("loss", ["ce", "dlr", "margin"])
@pytest.mark.parametrize("kind", [Linf, L2, L1])
@pytest.mark.parametrize("name", CLIMBERS)
def test_the_optimum_of_a_linear_model_away_from_the_walls(name, kind, loss):
    """The largest gain is eps times the dual norm of the difference of the weights."""
    model, x, y = linear_model(2)
    x = 0.3 + 0.4 * x
    y = model(x).argmax(1)
    ball = kind(0.2)
    weights = model[1].weight.detach()
    dual = {Linf: 1, L2: 2, L1: torch.inf}[kind]
    best = 0.2 * (weights[0] - weights[1]).norm(p=dual)
    x_adv = CLIMBERS[name](model, x, y, ball, loss=loss, stop_when_fooled=False)
    assert ball.contains(x_adv, x).all()
    assert torch.allclose(gains(model, x, y, x_adv), best.expand(12), rtol=1e-4)


@pytest.mark.parametrize("ball", [Linf(0.3), L2(0.5), L2(1.5), L1(2.0), L1(5.0)], ids=str)
@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_the_optimum_of_a_linear_model_between_walls(name, ball):
    model, x, y = linear_model(2)
    weights = model[1].weight.detach()
    best = ball.linear_max(x, (weights[1 - y] - weights[y]).view_as(x))
    options = {} if name == "fgsm" else {"steps": 100}
    x_adv = CLIMBERS[name](model, x, y, ball, stop_when_fooled=False, **options)
    assert torch.allclose(gains(model, x, y, x_adv), gains(model, x, y, best), rtol=1e-4)


@pytest.mark.parametrize("name", CLIMBERS)
def test_the_smallest_ball_that_fools_a_linear_model_is_found_to_one_in_a_thousand(name):
    model, x, y = linear_model(2)
    x = 0.3 + 0.4 * x
    y = model(x).argmax(1)
    logits, weights = model(x).detach(), model[1].weight.detach()
    lead = (logits.gather(1, y[:, None]) - logits.gather(1, 1 - y[:, None]))[:, 0]
    eps = lead / (weights[0] - weights[1]).norm()
    short = CLIMBERS[name](model, x, y, L2(eps * 0.999))
    assert (model(short).argmax(1) == y).all()
    enough = CLIMBERS[name](model, x, y, L2(eps * 1.001))
    assert (model(enough).argmax(1) != y).all()


@pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS)
@pytest.mark.parametrize("name", EVERY)
def test_results_lie_in_ball_and_box_and_are_like_the_images(name, ball):
    model, x, y = conv_model()
    x_adv = EVERY[name](model, x, y, ball)
    assert ball.contains(x_adv, x).all()
    assert (x_adv.shape, x_adv.dtype, x_adv.requires_grad) == (x.shape, x.dtype, False)
    assert x_adv.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS)
@pytest.mark.parametrize("name", ["pgd", "apgd", "noise", "augment"])
def test_neither_batch_size_nor_order_nor_other_images_matter(name, ball):
    """In double precision, where sums over other batch sizes differ by 1e-16 and no sign turns on that."""
    model, x, y = conv_model()
    attack = {**EVERY, "augment": lambda model, x, y, ball, **options: augment(model, x, y, **options)}[name]
    options = {"pgd": {"steps": 7, "restarts": 2}, "apgd": {"steps": 20, "n_targets": 2}}.get(name, {"trials": 3})
    together = attack(model, x, y, ball, batch_size=100, seed=5, **options)
    for size in (1, 3):
        assert torch.allclose(attack(model, x, y, ball, batch_size=size, seed=5, **options), together, atol=1e-9)
    order = torch.randperm(16, generator=generator("order"))
    shuffled = attack(model, x[order], y[order], ball, batch_size=5, seed=5, **options)
    assert torch.allclose(shuffled, together[order], atol=1e-9)
    few = attack(model, x[3:6], y[3:6], ball, seed=5, **options)
    assert torch.allclose(few, together[3:6], atol=1e-9)
    assert not torch.allclose(attack(model, x, y, ball, seed=6, **options), together, atol=1e-3)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("kind", [Linf, L2, L1])
def test_one_call_with_many_eps_is_the_same_as_many_calls(name, kind):
    model, x, y = conv_model()
    radii = torch.tensor([0.0, 0.01, 0.05, 0.3], dtype=torch.float64) * (1 if kind is Linf else 5)
    eps = radii.repeat_interleave(len(x))
    together = EVERY[name](model, x.repeat(4, 1, 1, 1), y.repeat(4), kind(eps), batch_size=10)
    for radius, part in zip(radii.tolist(), together.split(len(x)), strict=True):
        assert torch.allclose(EVERY[name](model, x, y, kind(radius)), part, atol=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_a_ball_of_radius_zero_gives_the_images_back(name):
    model, x, y = conv_model()
    for kind in (Linf, L2, L1):
        assert torch.equal(EVERY[name](model, x, y, kind(0.0), stop_when_fooled=False), x)


@pytest.mark.parametrize("name", EVERY)
def test_images_that_fool_already_are_left_alone_unless_asked(name):
    model, x, y = conv_model()
    wrong = (y + 1) % 5
    assert torch.equal(EVERY[name](model, x, wrong, Linf(0.1)), x)
    assert not torch.equal(EVERY[name](model, x, wrong, Linf(0.1), stop_when_fooled=False), x)


@pytest.mark.parametrize("name", CLIMBERS)
@pytest.mark.parametrize("loss", ["ce", "dlr", "margin"])
def test_targeted_attacks_reach_their_class(name, loss):
    model, x, y = conv_model()
    targets = (y + 2) % 5
    x_adv = CLIMBERS[name](model, x, y, L2(3.0), targets=targets, loss=loss)
    reached = (model(x_adv).argmax(1) == targets).double().mean()
    assert reached >= (0.5 if name == "fgsm" else 0.9)
    untargeted = CLIMBERS[name](model, x, y, L2(3.0), loss=loss)
    assert (model(untargeted).argmax(1) == targets).double().mean() < reached


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("loss", ["ce", "dlr", "margin"])
@pytest.mark.parametrize("name", CLIMBERS)
def test_few_classes(name, loss, classes):
    model, x, y = conv_model(classes)
    x_adv = CLIMBERS[name](model, x, y, Linf(0.2), loss=loss)
    assert (model(x_adv).argmax(1) != y).all()
    x_adv = CLIMBERS[name](model, x, y, Linf(0.5), loss=loss, targets=(y + 1) % classes)
    assert (model(x_adv).argmax(1) == (y + 1) % classes).all()


def test_apgd_with_more_targets_than_wrong_classes():
    model, x, y = conv_model(3)
    x_adv = apgd(model, x, y, Linf(0.02), loss="dlr", n_targets=9, steps=10)
    few = apgd(model, x, y, Linf(0.02), loss="dlr", n_targets=2, steps=10)
    assert torch.equal(x_adv, few)


class Flat(nn.Module):
    """Logits that depend on the images by a graph, and not in value."""

    def forward(self, x):
        return torch.stack([x.flatten(1).sum(1) * 0, x.flatten(1).sum(1) * 0 - 1], 1)


@pytest.mark.parametrize("name", CLIMBERS)
@pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS)
def test_a_zero_gradient_yields_no_nan(name, ball):
    x, y = uniform(4, 3, 5, 5).float(), torch.zeros(4, dtype=torch.int64)
    x_adv = CLIMBERS[name](Flat(), x, y, ball, stop_when_fooled=False)
    assert ball.contains(x_adv, x).all()


@pytest.mark.parametrize("name", CLIMBERS)
def test_a_model_so_sure_that_its_cross_entropy_has_no_gradient(name):
    model, x, y = conv_model()
    model[3].weight.data.mul_(1e4)
    model[3].bias.data.mul_(1e4)
    model, x = model.float(), x.float()
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(leaf), y), leaf)
    assert (gradient == 0).flatten(1).all(1).any()
    assert (model(CLIMBERS[name](model, x, y, Linf(0.2))).argmax(1) != y).all()


class Trap(nn.Module):
    """A ridge: class 1 wins on a narrow band of the mean value, and the loss falls again beyond it."""

    def forward(self, x):
        height = x.flatten(1).mean(1)
        rise = 1 - 40 * (height - 0.6).abs()
        return torch.stack([torch.zeros_like(rise), rise], 1)


@pytest.mark.parametrize("stop", [True, False])
def test_the_best_iterate_is_kept_not_the_last(stop):
    """Steps of 0.099 from 0.5: the first lands on the ridge, the second beyond it, and so on."""
    x, y = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64)
    for attack in (bim, mifgsm, lambda *args, **options: pgd(*args, random_start=False, **options)):
        x_adv = attack(Trap(), x, y, Linf(0.3), steps=4, step_size=0.33, stop_when_fooled=stop)
        assert (Trap()(x_adv).argmax(1) == 1).all()
        assert torch.allclose(x_adv, torch.full_like(x_adv, 0.599))


def test_without_stopping_the_loss_keeps_rising():
    model, x, y = conv_model()
    loss = nn.CrossEntropyLoss(reduction="none")
    first = pgd(model, x, y, L2(1.0))
    most = pgd(model, x, y, L2(1.0), stop_when_fooled=False)
    fooled = model(first).argmax(1) != y
    assert fooled.any()
    assert (model(most).argmax(1) != y)[fooled].all()
    assert (loss(model(most), y) > loss(model(first), y))[fooled].all()


def test_restarts_attack_only_where_the_first_trial_failed():
    model, x, y = conv_model()
    one, twenty = (pgd(model, x, y, Linf(0.016), steps=1, restarts=restarts) for restarts in (1, 20))
    fooled, more = (model(x_adv).argmax(1) != y for x_adv in (one, twenty))
    assert torch.equal(one[fooled], twenty[fooled])
    assert more.sum() > fooled.sum()


def test_clean_logits_save_the_pass_and_change_nothing():
    model, x, y = conv_model()
    passes, found = [], []
    for clean in (None, model(x).detach()):
        with freeze(model, x) as frozen:
            found.append(pgd(frozen, x, y, Linf(0.01), steps=3, clean=clean))
            passes.append(frozen.forwards)
    assert torch.equal(*found)
    assert passes[0] == passes[1] + 16


def test_no_pass_is_wasted_where_none_is_fooled_and_few_where_all_are():
    model, x, y = conv_model()
    with freeze(model, x) as frozen:
        pgd(frozen, x, y, Linf(1e-6), steps=5)
        assert (frozen.forwards, frozen.backwards) == (16 * (1 + 6), 16 * 5)
    with freeze(model, x) as frozen:
        apgd(frozen, x, y, Linf(1e-6), steps=100)
        assert (frozen.forwards, frozen.backwards) == (16 * (1 + 101), 16 * 100)
    with freeze(model, x) as frozen:
        apgd(frozen, x, y, L1(1e-6), steps=100)  # one more evaluation at each of two changes of radius, by full passes
        assert (frozen.forwards, frozen.backwards) == (16 * (1 + 103), 16 * 102)
    with freeze(model, x) as frozen:
        pgd(frozen, x, (y + 1) % 5, Linf(1e-6), steps=5)
        assert (frozen.forwards, frozen.backwards) == (16, 0)
    with freeze(model, x) as frozen:
        fgsm(frozen, x, y, Linf(0.1))
        assert (frozen.forwards, frozen.backwards) == (16, 16)


def test_momentum_of_zero_is_bim():
    model, x, y = conv_model()
    options = {"steps": 6, "stop_when_fooled": False}
    same = bim(model, x, y, L2(0.3), **options)
    assert torch.allclose(mifgsm(model, x, y, L2(0.3), decay=0.0, **options), same, atol=1e-9)
    assert not torch.allclose(mifgsm(model, x, y, L2(0.3), **options), same, atol=1e-3)
