"""The transfer attack: what momentum, transforms and variance tuning do; and evaluations through surrogates."""

import shutil
from functools import partial

import pytest
import torch
from torch import nn

from helpers.models import conv_model, linear_model, uniform
from helpers.refusals import named
from rivals import L1, L2, Linf, evaluate
from rivals.api.common.network_io import load as load_network
from rivals.api.common.network_io import save_network
from rivals.api.robustness.attack_spec import _OnDevice
from rivals.api.robustness.surrogates import without_early_stop
from rivals.attacks import LogitsMean, advgan, mifgsm, pgd, transfer
from rivals.attacks.input_transforms import Draw, admix, diverse_inputs, scaled_inputs, translation_invariant
from rivals.base.norm_balls import Ball
from rivals.base.rng import generator
from rivals.nets.factory import build_classifier, build_perturber


def drawn(n, others=None, y=None):
    y = torch.arange(n) if y is None else y
    others = uniform(n, 3, 6, 6) if others is None else others
    return Draw([generator("draw", i) for i in range(n)], others, y[:, None] != y[None])


@pytest.mark.parametrize("ball", [Linf(0.03), L2(0.4)], ids=str)
def test_without_transform_it_ends_where_mifgsm_without_stopping_goes(ball):
    """On a linear model, where the loss rises with every step, the best iterate is the last one."""
    model, x, y = linear_model(2, n=8)
    found = transfer(model, x, y, ball, transform="none", steps=5)
    torch.testing.assert_close(found, mifgsm(model, x, y, ball, steps=5, stop_when_fooled=False))


@pytest.mark.parametrize("transform", ["di", "ti", "si", "admix", "di+ti", "di+si+ti", "none"])
@pytest.mark.parametrize("momentum", ["mi", "ni", "none"])
def test_every_combination_raises_the_loss_inside_the_ball(transform, momentum):
    model, x, y = conv_model(n=8)
    ball = Linf(0.05)
    x_adv = transfer(model, x, y, ball, transform=transform, momentum=momentum, variance=1, steps=3)
    assert ball.contains(x_adv, x).all()
    gained = nn.functional.cross_entropy(model(x_adv), y) - nn.functional.cross_entropy(model(x), y)
    assert gained > 0
    again = transfer(model, x, y, ball, transform=transform, momentum=momentum, variance=1, steps=3, batch_size=3)
    torch.testing.assert_close(again, x_adv, rtol=0, atol=1e-9)


def directly(model, x, y, eps, steps, decay):
    """NI-FGSM in Linf, as in the code of Lin et al. 2020."""
    x_adv, g, alpha = x.clone(), torch.zeros_like(x), eps / steps
    for _ in range(steps):
        ahead = (x_adv + alpha * decay * g).requires_grad_()
        (noise,) = torch.autograd.grad(nn.functional.cross_entropy(model(ahead), y, reduction="sum"), ahead)
        g = decay * g + noise / noise.abs().mean((1, 2, 3), keepdim=True)
        x_adv = torch.clamp(torch.clamp(x_adv + alpha * g.sign(), x - eps, x + eps), 0, 1)
    return x_adv


@pytest.mark.parametrize("decay", [1.0, 0.6])
def test_nesterov_looks_ahead_along_the_momentum_itself(decay):
    model, x, y = conv_model(n=6)
    found = transfer(model, x, y, Linf(0.2), transform="none", momentum="ni", steps=4, decay=decay)
    torch.testing.assert_close(found, directly(model, x, y, 0.2, 4, decay))


@pytest.mark.parametrize("ball", [Linf(0.3), L2(1.0), L1(8.0)], ids=str)
def test_nesterov_looks_about_a_step_ahead_in_every_norm_inside_the_mask(ball):
    """Of a linear model the first gradient is known; what is asked next lies ahead by its share of a step."""
    model, x, y = linear_model(2, (1, 4, 4), n=3)
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:2] = True
    asked = []
    seen = transfer(
        model,
        x,
        y,
        ball.masked(mask),
        transform=lambda x, draw: asked.append(x.detach()) or [x],
        momentum="ni",
        steps=2,
        step_size=0.25,
        decay=0.5,
    )
    first = transfer(model, x, y, ball.masked(mask), transform="none", steps=1, step_size=0.25)
    assert torch.equal(asked[0], x)
    ahead = asked[1] - first
    assert not ahead[..., 2:, :].any()
    g = ahead[..., :2, :].flatten(1)
    w = (model[1].weight[1 - y] - model[1].weight[y]).detach().view_as(x)[..., :2, :].flatten(1)
    expected = 0.5 * 0.25 * float(ball.eps) * w / w.abs().mean(1, keepdim=True) / 8 ** (1 / ball.p)
    torch.testing.assert_close(g, expected)
    assert ball.contains(seen, x).all()


def test_a_transform_of_ones_own_is_followed_through_its_gradient():
    """Only the left half reaches the model: only that is changed."""
    model, x, y = conv_model(n=4)
    x_adv = transfer(model, x, y, Linf(0.05), transform=lambda x, draw: [x * (torch.arange(6) < 3)], momentum="none")
    assert torch.equal(x_adv[..., 3:], x[..., 3:])
    assert (x_adv[..., :3] != x[..., :3]).any()


def test_diverse_inputs_shrink_by_whole_pixels_and_move_and_keep_values():
    x = uniform(9, 3, 20, 40) + 1
    (made,) = diverse_inputs(x, drawn(9))
    seen = (made != 0).all(1)
    rows, columns = seen.any(2).sum(1), seen.any(1).sum(1)
    assert set(rows.tolist()) == {18, 19}
    assert {37, 38, 39} <= set(columns.tolist()) <= {36, 37, 38, 39}
    assert torch.equal(seen.sum((1, 2)), rows * columns)  # a rectangle
    assert len({tuple(each.nonzero()[0].tolist()) for each in seen}) > 3
    for image, clean, inside in zip(made, x, seen, strict=True):  # the nearest pixels, in order
        assert torch.isin(image[:, inside], clean).all()
        top, left = inside.nonzero()[0]
        assert torch.equal(image[:, top, left], clean[:, 0, 0])
    again = torch.cat([diverse_inputs(x[i : i + 1], Draw([generator("draw", i)], x, x))[0] for i in range(9)])
    assert torch.equal(again, made)  # a stream for each image


def test_scales_and_mixtures():
    x = uniform(3, 3, 6, 6)
    assert all(torch.equal(copy, x / 2**i) for i, copy in enumerate(scaled_inputs(x, drawn(3))))
    y = torch.tensor([0, 0, 1])
    copies = admix(x, drawn(3, others=x, y=y))
    assert len(copies) == 15
    assert all(
        torch.allclose(copies[i][2] - x[2], 0.2 * x[0]) or torch.allclose(copies[i][2] - x[2], 0.2 * x[1])
        for i in (0, 5, 10)
    )
    assert torch.allclose(copies[0][0] - x[0], 0.2 * x[2])  # the only one of another class


def test_the_smoothed_gradient_is_the_mean_over_shifts_and_keeps_a_constant():
    flat = torch.ones(1, 2, 15, 15).double()
    assert torch.allclose(translation_invariant(flat)[:, :, 3:-3, 3:-3], flat[:, :, 3:-3, 3:-3])
    point = torch.zeros(1, 1, 15, 15).double()
    point[..., 7, 7] = 1
    smooth = translation_invariant(point)
    assert torch.allclose(smooth, smooth.flip(2))
    assert torch.allclose(smooth, smooth.mT)
    assert smooth.argmax() == point.argmax()
    assert torch.allclose(smooth.sum(), torch.ones(()).double())


def test_logits_of_surrogates_are_averaged():
    one, x, _ = conv_model(n=4)
    other, _, _ = linear_model(5, (3, 6, 6))
    assert torch.allclose(LogitsMean([one, other])(x), (one(x) + other(x)) / 2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    home = tmp_path_factory.mktemp("models")
    with torch.random.fork_rng():
        for seed, name, classes in ((0, "a", 3), (1, "b", 3), (2, "four", 4)):
            torch.manual_seed(seed)
            net = build_classifier("cnn", size=8, channels=1, classes=classes, widths=(4,))
            save_network(net, home / f"{name}.safetensors", {"classes": [str(i) for i in range(classes)]})
    return home


def test_an_evaluation_through_surrogates_never_asks_the_target_for_gradients(saved):
    net = build_classifier("cnn", size=8, channels=1, classes=3, widths=(4,)).eval()
    x = torch.rand(10, 1, 8, 8)
    data = (x, net(x).argmax(1))
    asked = []
    own = lambda model, x, y, ball, **options: asked.append(model) or x  # noqa: E731
    evaluate(net, data, Linf(0.2), attack=own, surrogate=str(saved / "a.safetensors"), alarms=False, quiet=True)
    assert asked
    assert asked[0] is not net
    names = f"{saved / 'a.safetensors'},{saved / 'b.safetensors'}"
    report = evaluate(net, data, Linf(0.2), attack="transfer,pgd", surrogate=names, alarms=False, quiet=True)
    assert report.protocol["surrogate"] == names
    assert report.stages["transfer"].backwards == 0
    assert any("transfer" in note for note in report.notes)
    itself = evaluate(net, data, Linf(0.2), attack="pgd", alarms=False, quiet=True)
    assert report.robust.count >= itself.robust.count


def test_examples_for_another_model_take_all_steps_also_those_of_a_generator():
    perturber = build_perturber(size=8, channels=1, widths=(4, 4, 8))
    for attack in (pgd, _OnDevice(advgan, perturber)):
        assert without_early_stop(attack).keywords == {"stop_when_fooled": False}
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    x = torch.rand(64, 1, 8, 8)
    wrong = (model(x).argmax(1) + 1) % 3  # misclassified from the start
    assert torch.equal(_OnDevice(advgan, perturber)(model, x, wrong, Linf(0.1)), x)
    changed = without_early_stop(_OnDevice(advgan, perturber))(model, x, wrong, Linf(0.1))
    assert (changed != x).any()  # where its loss is higher than that of the image itself
    own = lambda model, x, y, ball, **options: x  # noqa: E731
    assert without_early_stop(own) is own


def test_a_run_is_not_resumed_with_a_surrogate_that_was_trained_again(saved, tmp_path):
    def train_again(name):
        for kind in ("safetensors", "json"):
            shutil.copy(saved / f"{name}.{kind}", tmp_path / f"surrogate.{kind}")

    net, x = load_network(str(saved / "b.safetensors")), torch.rand(10, 1, 8, 8)
    options = {"attack": "fgsm", "surrogate": str(tmp_path / "surrogate.safetensors"), "quiet": True}
    again = partial(evaluate, net, (x, net(x).argmax(1)), Linf(0.2), out=tmp_path / "run", **options)
    train_again("a")
    first = again()
    assert again(resume=True).robust == first.robust
    train_again("b")
    with named("the networks of the attack 'fgsm' are not what the run began with"):
        again(resume=True)


def test_bad_surrogates_and_options_are_refused_in_one_line(saved, tmp_path):
    net = build_classifier("cnn", size=8, channels=1, classes=3, widths=(4,)).eval()
    data = (torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))
    with named("the surrogate", "four.safetensors", "has 4 classes and the model 3"):
        evaluate(net, data, Linf(0.1), surrogate=str(saved / "four.safetensors"), quiet=True)
    with named("there is no model"):
        evaluate(net, data, Linf(0.1), surrogate=str(tmp_path / "none"), quiet=True)
    model, x, y = conv_model(n=2)
    with named("unknown transform 'dii': did you mean di"):
        transfer(model, x, y, Linf(0.1), transform="dii")
    with named("unknown momentum 'vmi'"):
        transfer(model, x, y, Linf(0.1), momentum="vmi")
    flat, x, y = linear_model(2, (7,))
    with named("transforms are for (n, C, H, W); take transform=none"):
        transfer(flat, x, y, Linf(0.1))
    assert isinstance(Linf(0.1), Ball)
