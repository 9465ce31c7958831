"""Losses and penalties against their definitions and against games whose course is known in closed form."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rivals.base.errors import UserError
from rivals.losses.gan import LOSSES, hinge, make_loss, minimax, nonsaturating, relativistic
from rivals.losses.penalties import LeCam, Penalty, consistency, r1, r2, wgan_gp

logits = st.lists(st.floats(-30, 30), min_size=4, max_size=4)


def answers(real, fake):
    return SimpleNamespace(
        real=torch.tensor(real, dtype=torch.float64, requires_grad=True),
        fake=torch.tensor(fake, dtype=torch.float64, requires_grad=True),
    )


def total(parts):
    return sum(parts.values())


@given(logits, logits, st.sampled_from([0.0, 0.1, 0.5]))
def test_cross_entropy_on_logits_is_the_textbooks_on_probabilities(real, fake, smoothing):
    a = answers(real, fake)  # to 1e-8, as torch's softplus takes the line above 20, which is e^-20 off
    d_real, d_fake = torch.sigmoid(a.real), torch.sigmoid(a.fake)
    target = 1 - smoothing
    textbook = -(target * d_real.log() + (1 - target) * (-a.real - torch.nn.functional.softplus(-a.real))).mean()
    textbook = textbook - (-torch.nn.functional.softplus(a.fake)).mean()
    assert total(nonsaturating(smoothing).discriminator(a)).item() == pytest.approx(textbook.item(), abs=1e-8)
    assert total(nonsaturating().generator(a)).item() == pytest.approx(-d_fake.log().mean().item(), abs=1e-8)
    log_one_minus = (-a.fake).sigmoid().log().mean().item()
    assert total(minimax().generator(a)).item() == pytest.approx(log_one_minus, abs=1e-8)


def test_cross_entropy_survives_logits_that_a_clamped_sigmoid_does_not():
    a = answers([-1000.0, 1000.0], [1000.0, -1000.0])
    loss = total(nonsaturating().discriminator(a))
    loss.backward()
    assert loss.item() == 1000
    assert a.real.grad.tolist() == [-0.5, 0]
    assert a.fake.grad.tolist() == [0.5, 0]


@given(logits, logits)
def test_values_and_gradients_of_the_other_losses(real, fake):
    a = answers(real, fake)
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    expected = {
        "hinge": (
            mean([max(0, 1 - r) for r in real]) + mean([max(0, 1 + f) for f in fake]),
            -mean(fake),
        ),
        "least-squares": (
            0.5 * mean([(r - 1) ** 2 for r in real]) + 0.5 * mean([f**2 for f in fake]),
            0.5 * mean([(f - 1) ** 2 for f in fake]),
        ),
        "wasserstein": (mean(fake) - mean(real), -mean(fake)),
        "relativistic": (
            mean([math.log1p(math.exp(f - r)) for r, f in zip(real, fake, strict=True)]),
            mean([math.log1p(math.exp(r - f)) for r, f in zip(real, fake, strict=True)]),
        ),
    }
    for name, (discriminator, generator) in expected.items():
        assert total(LOSSES[name].discriminator(a)).item() == pytest.approx(discriminator, abs=1e-9)
        assert total(LOSSES[name].generator(a)).item() == pytest.approx(generator, abs=1e-9)
    (slope,) = torch.autograd.grad(total(relativistic.discriminator(a)), a.real)
    by_hand = [-1 / (1 + math.exp(r - f)) / 4 for r, f in zip(real, fake, strict=True)]
    assert slope.tolist() == pytest.approx(by_hand, abs=1e-9)


@pytest.mark.parametrize("name", ["minimax", "nonsaturating", "least-squares"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_draw_is_the_best_that_one_answer_for_all_can_do(name, smoothing):
    """Where p_G = p_data no discriminator does better than the best constant: find that by search."""
    loss = make_loss(name, smoothing)
    levels = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    losses = [total(loss.discriminator(SimpleNamespace(real=level, fake=level))).item() for level in levels]
    best = int(torch.tensor(losses).argmin())
    assert losses[best] == pytest.approx(loss.equilibrium["loss/discriminator"], abs=1e-6)
    at_best = SimpleNamespace(real=levels[best], fake=levels[best])
    assert total(loss.generator(at_best)).item() == pytest.approx(loss.equilibrium["loss/generator"], abs=1e-3)
    assert loss.readings(at_best)["d_real"].item() == pytest.approx(loss.equilibrium["d"], abs=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_the_draw_of_every_loss_is_what_equal_answers_give(name):
    loss = LOSSES[name]
    level = loss.equilibrium["d"] or 0.0
    logit = math.log(level / (1 - level)) if loss.unit == "probability" else level
    a = answers([logit] * 4, [logit] * 4)
    assert total(loss.discriminator(a)).item() == pytest.approx(loss.equilibrium["loss/discriminator"])
    if loss.equilibrium["loss/generator"] is not None:
        assert total(loss.generator(a)).item() == pytest.approx(loss.equilibrium["loss/generator"])


def test_readings_are_probabilities_where_the_loss_has_them_and_scores_elsewhere():
    a = answers([0.0, 0.0], [2.0, 4.0])
    assert nonsaturating().readings(a)["d_real"].item() == 0.5
    assert hinge.readings(a)["d_fake"].item() == 3
    assert not hinge.readings(a)["d_fake"].requires_grad


def test_smoothing_is_refused_where_there_is_no_label():
    with pytest.raises(UserError, match="'hinge' has no labels to smooth"):
        make_loss("hinge", 0.1)
    with pytest.raises(UserError, match=r"smoothing of 1\.5"):
        make_loss("minimax", 1.5)
    with pytest.raises(UserError, match="did you mean hinge"):
        make_loss("hing")


# Dirac-GAN (Mescheder et al. 2018): data at 0, G(z) = theta, D(x) = psi * x. All of its course is known.


def dirac(steps, rate, penalties=(), loss=None):
    """Simultaneous gradient descent of both players; the distance from the draw (0, 0) after each step."""
    loss = loss or nonsaturating()
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    psi = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    distances = []
    for _ in range(steps):
        x = torch.zeros(1, 1, 1, 1, dtype=torch.float64, requires_grad=True)
        real = (psi * x).flatten()
        (slopes,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        a = SimpleNamespace(real=real, fake=(psi * theta).view(1), real_slopes=slopes)
        score = total(loss.discriminator(a)) + sum(p.weight.at(0) * p.score(a) for p in penalties)
        (down_psi,) = torch.autograd.grad(score, psi, retain_graph=True)
        (down_theta,) = torch.autograd.grad(total(loss.generator(a)), theta)
        with torch.no_grad():
            psi -= rate * down_psi
            theta -= rate * down_theta
        distances.append(math.hypot(psi.item(), theta.item()))
    return distances


@pytest.mark.parametrize("name", ["minimax", "wasserstein"])
def test_the_plain_dirac_game_circles(name):
    distances = dirac(4000, 0.01, loss=make_loss(name))
    assert min(distances) > 0.99  # it never comes nearer to the draw


@pytest.mark.parametrize("name", ["nonsaturating", "relativistic"])
def test_the_nonsaturating_dirac_game_never_gets_there(name):
    """Its eigenvalues at the draw are imaginary as well: it may creep inwards, but slower and slower."""
    distances = dirac(8000, 0.02, loss=make_loss(name))
    assert distances[-1] > 0.1
    first, second = distances[0] / distances[3999], distances[3999] / distances[-1]
    assert second < first


def test_r1_brings_the_dirac_game_to_the_draw_at_the_rate_of_theory():
    """Eigenvalues there: -gamma/2 +- sqrt(gamma^2/4 - f'(0)^2), f'(0) = 1/2 (Mescheder et al. 2018, lemma 2.6)."""
    rate, gamma = 0.01, 0.4
    distances = dirac(6000, rate, [r1(gamma)])
    assert distances[-1] < 1e-4
    decay = math.log(distances[2000] / distances[4000]) / (2000 * rate)
    assert decay == pytest.approx(gamma / 2, rel=0.05)


def quadratic():
    """D(x) = x'Ax/2 + b'x with A symmetric, so grad D = Ax + b."""
    torch.manual_seed(0)
    a = torch.randn(12, 12, dtype=torch.float64)
    return a + a.T, torch.randn(12, dtype=torch.float64)


def test_penalties_of_a_quadratic_discriminator():
    a, b = quadratic()
    real = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    fake = torch.randn(5, 3, 2, 2, dtype=torch.float64)

    def slopes(x):
        return (x.flatten(1) @ a + b).view_as(x)

    scene = SimpleNamespace(real_slopes=slopes(real), fake_slopes=slopes(fake))
    for penalty, images in ((r1(3.0), real), (r2(3.0), fake)):
        by_hand = 3 / 2 * sum((a @ x + b).norm().item() ** 2 for x in images.flatten(1)) / 5
        assert (penalty.score(scene) * penalty.weight.at(0)).item() == pytest.approx(by_hand)


def test_wgan_gp_of_a_linear_discriminator():
    _, b = quadratic()
    scene = SimpleNamespace(
        real_images=torch.randn(5, 3, 2, 2, dtype=torch.float64),
        fake_images=torch.randn(5, 3, 2, 2, dtype=torch.float64),
        critic=lambda x: x.flatten(1) @ b,
    )
    assert wgan_gp().score(scene).item() == pytest.approx((b.norm().item() - 1) ** 2)


def test_wgan_gp_looks_between_each_real_and_its_fake():
    """With D(x) = |x|^2 / 2 the slope is x itself: it must lie on the segment."""
    real, fake = torch.full((64, 1, 1, 1), 2.0), torch.full((64, 1, 1, 1), 4.0)
    scene = SimpleNamespace(real_images=real, fake_images=fake, critic=lambda x: 0.5 * x.flatten(1).square().sum(1))
    torch.manual_seed(0)
    score = wgan_gp().score(scene).item()
    # E (u - 1)^2 for u uniform in [2, 4] is (27 - 1) / 6
    assert score == pytest.approx(26 / 6, rel=0.15)


def test_a_penalty_that_cannot_work_is_refused():
    with pytest.raises(UserError, match="every 0 steps"):
        r1(1.0, every=0)
    with pytest.raises(UserError, match="negative weight"):
        r2(-1.0)
    assert isinstance(r1("0.1 -> 0.01 in 1M images"), Penalty)


def test_consistency_of_a_linear_discriminator_is_the_square_of_what_the_change_moves():
    weight = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1)
    real, fake = torch.randn(2, 4, 3, 1, 1, generator=torch.Generator().manual_seed(0))

    def critic(x):
        return (x * weight).sum((1, 2, 3))

    scene = SimpleNamespace(real_images=real, fake_images=fake, real=critic(real), fake=critic(fake), critic=critic)
    nudge = torch.tensor([0.1, 0.2, -0.4]).view(1, 3, 1, 1)
    found = consistency(10, lambda images, seen: images + nudge).score(scene)
    assert found.item() == pytest.approx(2 * (0.1 - 0.4 - 0.2) ** 2, rel=1e-4)
    assert consistency(10, lambda images, seen: images).score(scene).item() == 0


def test_lecam_pulls_answers_to_the_averages_of_the_other_side():
    averages = LeCam()
    first = SimpleNamespace(real=torch.tensor([3.0, 5.0]), fake=torch.tensor([-1.0, -3.0], requires_grad=True))
    value = averages(first)  # the averages begin with the first batch's means, 4 and -2
    assert value.item() == pytest.approx((25 + 49) / 2 + (25 + 49) / 2)
    (slope,) = torch.autograd.grad(value, first.fake)
    assert torch.allclose(slope, torch.tensor([-5.0, -7.0]))  # 2 (d - 4) / 2, and none through the averages
    averages(SimpleNamespace(real=torch.tensor([14.0]), fake=torch.tensor([-2.0])))
    assert averages.real.item() == pytest.approx(4 * 0.99 + 14 * 0.01)
    copy = LeCam()
    copy.load_state_dict(averages.state_dict())
    assert copy.real.item() == averages.real.item()
