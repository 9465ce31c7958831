"""The minimum-norm attacks against closed forms, and the promises they keep about their results."""

import functools

import pytest
import torch
from torch import nn

from helpers.models import centered_linear_model, conv_model, uniform
from rivals.attacks import carlini_wagner, ddn, deepfool, fab, fmn, freeze
from rivals.base.errors import UserError
from rivals.base.norm_balls import L1, L2, Linf
from rivals.base.rng import generator

SHORT = {
    "fab": functools.partial(fab, steps=10),
    "deepfool": deepfool,
    "fmn": functools.partial(fmn, steps=30),
    "ddn": functools.partial(ddn, steps=30),
    "carlini_wagner": functools.partial(carlini_wagner, steps=30, searches=4, step_size=0.05, weight=1.0),
}
FAR = {"Linf": Linf(1.0), "L2": L2(100.0), "L1": L1(1e4)}
CASES = [(name, norm) for name in SHORT for norm in FAR if norm == "L2" or name not in ("ddn", "carlini_wagner")]
TARGETED = [case for case in CASES if case[0] != "deepfool"]
every = pytest.mark.parametrize(("name", "norm"), CASES)


def closest(model, x, y, p):
    """The distance of every boundary of a linear model, in closed form: (n, classes), infinite for the label."""
    z, weights = model(x).detach(), model[1].weight.detach()
    q = {1.0: torch.inf, 2.0: 2.0}.get(p, 1.0)
    far = (z.gather(1, y[:, None]) - z) / (weights[None] - weights[y][:, None]).norm(p=q, dim=2)
    return far.scatter(1, y[:, None], torch.inf)


@pytest.mark.parametrize("classes", [2, 3, 6])
@every
def test_the_closed_form_of_a_linear_model(name, norm, classes):
    model, x, y = centered_linear_model(classes)
    x_adv = SHORT[name](model, x, y, FAR[norm])
    assert (model(x_adv).argmax(1) != y).all()
    assert torch.allclose(FAR[norm].distance(x_adv, x), closest(model, x, y, FAR[norm].p).amin(1), rtol=1e-4)


@pytest.mark.parametrize(("name", "norm"), TARGETED)
def test_the_closed_form_with_a_target(name, norm):
    """With two classes, and a target, the boundary is the same plane."""
    model, x, y = centered_linear_model(2)
    x_adv = SHORT[name](model, x, y, FAR[norm], targets=1 - y)
    assert torch.allclose(FAR[norm].distance(x_adv, x), closest(model, x, y, FAR[norm].p).amin(1), rtol=1e-4)


@pytest.mark.parametrize(("name", "norm"), TARGETED)
def test_targets_are_reached_and_cost_more(name, norm):
    model, x, y = conv_model(n=12)
    targets = (y + 2) % 5
    options = {"steps": 40} if name == "fab" else {}
    x_adv = SHORT[name](model, x, y, FAR[norm], targets=targets, **options)
    reached = model(x_adv).argmax(1) == targets
    assert reached.double().mean() >= 0.9
    assert torch.equal(x_adv[~reached], x[~reached])
    free = FAR[norm].distance(SHORT[name](model, x, y, FAR[norm]), x)
    aimed = FAR[norm].distance(x_adv, x)
    assert (aimed >= free * 0.97)[reached].all()
    assert (aimed > free * 1.05)[reached].any()


@pytest.mark.parametrize("classes", [2, 3, 5])
@every
def test_the_result_is_adversarial_inside_the_box_or_the_image_itself(name, norm, classes):
    model, x, y = conv_model(classes, n=12)
    x_adv = SHORT[name](model, x, y, FAR[norm])
    assert (model(x_adv).argmax(1) != y).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    assert (x_adv.shape, x_adv.dtype, x_adv.requires_grad) == (x.shape, x.dtype, False)
    assert x_adv.data_ptr() != x.data_ptr()


@every
def test_eps_for_each_image_is_how_far_a_point_may_lie(name, norm):
    model, x, y = conv_model(n=12)
    ball = FAR[norm]
    everywhere = SHORT[name](model, x, y, ball)
    distances = ball.distance(everywhere, x)
    eps = distances * torch.where(torch.arange(12) % 2 == 0, 1.001, 0.999)
    x_adv = SHORT[name](model, x, y, type(ball)(eps))
    near = torch.arange(12) % 2 == 0
    torch.testing.assert_close(x_adv[near], everywhere[near])  # in another batch, so to rounding
    assert torch.equal(x_adv[~near], x[~near])
    assert torch.equal(SHORT[name](model, x, y, type(ball)(0.0)), x)


@every
def test_images_that_fool_already_come_back_and_cost_one_pass(name, norm):
    model, x, y = conv_model(n=12)
    wrong = torch.where(torch.arange(12) < 6, (y + 1) % 5, y)
    x_adv = SHORT[name](model, x, wrong, FAR[norm])
    assert torch.equal(x_adv[:6], x[:6])
    assert not (x_adv[6:] == x[6:]).flatten(1).all(1).any()
    with freeze(model, x) as frozen:
        SHORT[name](frozen, x, (y + 1) % 5, FAR[norm])
        assert (frozen.forwards, frozen.backwards) == (12, 0)
        SHORT[name](frozen, x, (y + 1) % 5, FAR[norm], clean=model(x).detach())
        assert frozen.forwards == 12


@every
def test_neither_batch_size_nor_order_nor_other_images_matter(name, norm):
    """In double precision, where sums over other batch sizes differ by 1e-16 and nothing turns on that."""
    model, x, y = conv_model(n=12)
    few = {"fab": {"restarts": 2, "n_targets": 2, "steps": 5}, "carlini_wagner": {"searches": 2}, "deepfool": {}}
    attack = functools.partial(SHORT[name], refine_steps=3, **few.get(name, {"steps": 12}))
    together = attack(model, x, y, FAR[norm], batch_size=100, seed=5)
    assert torch.allclose(attack(model, x, y, FAR[norm], batch_size=5, seed=5), together, atol=1e-6)
    order = torch.randperm(12, generator=generator("order"))
    shuffled = attack(model, x[order], y[order], FAR[norm], batch_size=5, seed=5)
    assert torch.allclose(shuffled, together[order], atol=1e-6)
    assert torch.allclose(attack(model, x[3:4], y[3:4], FAR[norm], seed=5), together[3:4], atol=1e-6)


@every
def test_the_model_comes_back_as_it_was(name, norm):
    model, x, y = conv_model(n=12)
    model.train()
    model[0].weight.requires_grad_(False)
    model(x).sum().backward()
    before = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    values = [value.clone() for value in model.state_dict().values()]
    random = torch.get_rng_state()
    SHORT[name](model, x, y, FAR[norm])
    assert model.training
    assert model[0].training
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    for old, parameter in zip(before, model.parameters(), strict=True):
        assert (old is None and parameter.grad is None) or torch.equal(old, parameter.grad)
    assert all(torch.equal(a, b) for a, b in zip(values, model.state_dict().values(), strict=True))
    assert torch.equal(random, torch.get_rng_state())


class Flat(nn.Module):
    """Logits that depend on the images by a graph, and not in value; only in bright images class 1 wins."""

    def forward(self, x):
        zero = x.flatten(1).sum(1) * 0
        return torch.stack([zero, zero + (x.flatten(1).amax(1) > 0.999) * 2.0 - 1], 1)


@every
def test_a_zero_gradient_yields_no_nan(name, norm):
    x, y = 0.9 * uniform(4, 3, 5, 5).float(), torch.zeros(4, dtype=torch.int64)
    x_adv = SHORT[name](Flat(), x, y, FAR[norm])
    assert x_adv.isfinite().all()
    assert torch.equal(x_adv, x)


@every
def test_no_images_and_single_precision(name, norm):
    model, x, y = conv_model(n=12)
    model, x = model.float(), x.float()
    none = SHORT[name](model, x[:0], y[:0], FAR[norm])
    assert none.shape == (0, 3, 6, 6)
    x_adv = SHORT[name](model, x, y, FAR[norm])
    assert x_adv.dtype == torch.float32
    alone = torch.cat([model(image[None]) for image in x_adv])
    assert (alone.argmax(1) != y).all()
    assert (model.double()(x_adv.double()).argmax(1) != y).all()


@every
def test_refinement_never_increases_the_distance(name, norm):
    model, x, y = conv_model(n=12)
    plain, slid = (FAR[norm].distance(SHORT[name](model, x, y, FAR[norm], refine_steps=n), x) for n in (0, 10))
    assert (slid <= plain * (1 + 1e-4)).all()
    if name == "deepfool":
        assert slid.mean() < 0.999 * plain.mean()


@pytest.mark.parametrize("name", ["ddn", "fmn", "carlini_wagner"])
def test_more_steps_find_nearer_points(name):
    model, x, y = conv_model(n=12)
    few = {"steps": 3} if name != "carlini_wagner" else {"steps": 20, "searches": 2, "weight": 1.0}
    many = {"steps": 60} if name != "carlini_wagner" else {"steps": 60, "searches": 8, "weight": 1.0}

    def distances(**options):
        x_adv = SHORT[name](model, x, y, FAR["L2"], refine_steps=0, **options)
        return FAR["L2"].distance(x_adv, x).masked_fill(model(x_adv).argmax(1) == y, 100.0)

    assert distances(**many).mean() < distances(**few).mean()


@pytest.mark.parametrize(
    ("attack", "ball", "options", "line"),
    [
        (deepfool, L2(1.0), {"targets": torch.ones(12, dtype=torch.int64)}, "deepfool has no targeted form"),
        (deepfool, L2(1.0), {"classes": 1}, "classes of 1"),
        (deepfool, L2(1.0), {"overshoot": -1}, "an overshoot of -1"),
        (ddn, Linf(0.1), {}, "ddn is an attack in L2, the ball is Linf"),
        (ddn, L2(1.0), {"gamma": 1.0}, "a gamma of 1"),
        (ddn, L2(1.0), {"radius": -1}, "a radius of -1"),
        (fmn, L1(1.0), {"steps": 0}, "steps of 0"),
        (fmn, L1(1.0), {"step_size": -2}, "a step size of -2"),
        (carlini_wagner, L1(1.0), {}, "carlini_wagner is an attack in L2, the ball is L1"),
        (carlini_wagner, L2(1.0), {"searches": 0}, "searches of 0"),
        (carlini_wagner, L2(1.0), {"step_size": 0}, "a step size of 0"),
        (carlini_wagner, L2(1.0), {"weight": 0}, "a weight of 0"),
        (fmn, 8 / 255, {}, "the ball is a float"),
        (ddn, 8 / 255, {}, "the ball is a float"),
        (fmn, L2(1.0), {"refine_steps": -1}, "refine_steps of -1"),
    ],
)
def test_bad_input(attack, ball, options, line):
    model, x, y = conv_model(n=12)
    with pytest.raises(UserError, match=line) as caught:
        attack(model, x, y, ball, **options)
    assert "\n" not in str(caught.value)


class Rounded(nn.Module):
    """A model whose logits are rounded to another precision, as under autocast."""

    def __init__(self, model, dtype):
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, x):
        return self.model(x).to(self.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every
def test_logits_in_half_precision_are_fooled_as_exact_ones(name, norm, dtype):
    model, x, y = centered_linear_model(3)
    x_adv = SHORT[name](Rounded(model, dtype), x, y, FAR[norm])
    assert (model(x_adv).argmax(1) != y).double().mean() >= 0.9
    # Not much farther than need be.
    ratio = FAR[norm].distance(x_adv, x) / closest(model, x, y, FAR[norm].p).amin(1)
    assert ratio.median() < 1.2
