"""GAN losses and penalties against their definitions and against games with a known solution."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rivals.base.errors import UserError
from rivals.base.schedules import Clock, Schedule
from rivals.data.augment import InstanceNoise
from rivals.losses.gan import LOSSES, hinge, make_loss, minimax, nonsaturating, relativistic
from rivals.losses.penalties import LeCam, Penalty, consistency, fd_r1, fd_r2, r1, r2, wgan_gp

logits = st.lists(st.floats(-30, 30), min_size=4, max_size=4)


def output_of(real, fake):
    return SimpleNamespace(
        real=torch.tensor(real, dtype=torch.float64, requires_grad=True),
        fake=torch.tensor(fake, dtype=torch.float64, requires_grad=True),
    )


def total(terms):
    return sum(terms.values())


@given(logits, logits, st.sampled_from([0.0, 0.1, 0.5]))
def test_cross_entropy_of_logits_equals_that_of_probabilities(real, fake, label_smoothing):
    a = output_of(real, fake)  # to 1e-8: torch's softplus is linear above 20, which is e^-20 off
    d_real, d_fake = torch.sigmoid(a.real), torch.sigmoid(a.fake)
    target = 1 - label_smoothing
    textbook = -(target * d_real.log() + (1 - target) * (-a.real - torch.nn.functional.softplus(-a.real))).mean()
    textbook = textbook - (-torch.nn.functional.softplus(a.fake)).mean()
    assert total(nonsaturating(label_smoothing).discriminator(a)).item() == pytest.approx(textbook.item(), abs=1e-8)
    assert total(nonsaturating().generator(a)).item() == pytest.approx(-d_fake.log().mean().item(), abs=1e-8)
    log_one_minus = (-a.fake).sigmoid().log().mean().item()
    assert total(minimax().generator(a)).item() == pytest.approx(log_one_minus, abs=1e-8)


def test_cross_entropy_of_huge_logits_neither_overflows_nor_loses_its_gradient():
    a = output_of([-1000.0, 1000.0], [1000.0, -1000.0])
    loss = total(nonsaturating().discriminator(a))
    loss.backward()
    assert loss.item() == 1000
    assert a.real.grad.tolist() == [-0.5, 0]
    assert a.fake.grad.tolist() == [0.5, 0]


@given(logits, logits)
def test_values_and_gradients_of_the_other_losses(real, fake):
    a = output_of(real, fake)
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
    for name, (discriminator, generator) in expected.items():  # to 1e-8: see above
        assert total(LOSSES[name].discriminator(a)).item() == pytest.approx(discriminator, abs=1e-8)
        assert total(LOSSES[name].generator(a)).item() == pytest.approx(generator, abs=1e-8)
    (grad,) = torch.autograd.grad(total(relativistic.discriminator(a)), a.real)
    by_hand = [-1 / (1 + math.exp(r - f)) / 4 for r, f in zip(real, fake, strict=True)]
    assert grad.tolist() == pytest.approx(by_hand, abs=1e-9)


@pytest.mark.parametrize("name", ["minimax", "nonsaturating", "least-squares"])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_equilibrium_is_that_of_the_best_constant_discriminator(name, label_smoothing):
    """Where p_G = p_data no discriminator beats the best constant: find that by search."""
    loss = make_loss(name, label_smoothing)
    levels = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    losses = [total(loss.discriminator(SimpleNamespace(real=level, fake=level))).item() for level in levels]
    best = int(torch.tensor(losses).argmin())
    assert losses[best] == pytest.approx(loss.equilibrium["loss/discriminator"], abs=1e-6)
    at_best = SimpleNamespace(real=levels[best], fake=levels[best])
    assert total(loss.generator(at_best)).item() == pytest.approx(loss.equilibrium["loss/generator"], abs=1e-3)
    assert loss.readings(at_best)["d_real"].item() == pytest.approx(loss.equilibrium["d"], abs=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_the_equilibrium_of_every_loss_is_its_value_at_equal_logits(name):
    loss = LOSSES[name]
    level = loss.equilibrium["d"] or 0.0
    logit = math.log(level / (1 - level)) if loss.unit == "probability" else level
    a = output_of([logit] * 4, [logit] * 4)
    assert total(loss.discriminator(a)).item() == pytest.approx(loss.equilibrium["loss/discriminator"])
    if loss.equilibrium["loss/generator"] is not None:
        assert total(loss.generator(a)).item() == pytest.approx(loss.equilibrium["loss/generator"])


@pytest.mark.parametrize("name", LOSSES)
def test_a_value_at_the_equilibrium_is_told_only_where_every_optimal_constant_has_it(name):
    """Of all constant discriminators the optimal ones are found by search; where they disagree there is no value."""
    loss, levels = LOSSES[name], torch.linspace(-3, 3, 601, dtype=torch.float64)
    constants = [SimpleNamespace(real=level[None], fake=level[None]) for level in levels]
    losses = torch.stack([total(loss.discriminator(each)) for each in constants])
    best = [each for each, value in zip(constants, losses, strict=True) if value < losses.min() + 1e-9]
    found = {
        "loss/discriminator": [total(loss.discriminator(each)).item() for each in best],
        "loss/generator": [total(loss.generator(each)).item() for each in best],
        "d": [loss.readings(each)["d_real"].item() for each in best],
    }
    for key, values in found.items():
        if max(values) - min(values) > 0.1:
            assert loss.equilibrium[key] is None
        else:
            assert loss.equilibrium[key] == pytest.approx(values[0], abs=1e-2)


def test_readings_are_probabilities_where_the_loss_has_them_and_scores_elsewhere():
    a = output_of([0.0, 0.0], [2.0, 4.0])
    assert nonsaturating().readings(a)["d_real"].item() == 0.5
    assert hinge.readings(a)["d_fake"].item() == 3
    assert not hinge.readings(a)["d_fake"].requires_grad


def test_label_smoothing_is_refused_for_a_loss_without_labels():
    with pytest.raises(UserError, match="'hinge' has no labels to smooth"):
        make_loss("hinge", 0.1)
    with pytest.raises(UserError, match=r"smoothing of 1\.5"):
        make_loss("minimax", 1.5)
    with pytest.raises(UserError, match="did you mean hinge"):
        make_loss("hing")


# Dirac-GAN (Mescheder et al. 2018): data at 0, G(z) = theta, D(x) = psi * x. Its dynamics are known.


def dirac(steps, rate, penalties=(), loss=None):
    """Simultaneous gradient descent of both players; the distance from the equilibrium (0, 0) after each step."""
    loss = loss or nonsaturating()
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    psi = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    distances = []
    for _ in range(steps):
        x = torch.zeros(1, 1, 1, 1, dtype=torch.float64, requires_grad=True)
        real = (psi * x).flatten()
        (input_grad,) = torch.autograd.grad(real.sum(), x, create_graph=True)
        a = SimpleNamespace(real=real, fake=(psi * theta).view(1), real_input_grad=input_grad, real_images=x)
        a.critic_and_moved = lambda x, offset, d=psi: ((d * x).flatten(), (d * (x + offset)).flatten())
        score = total(loss.discriminator(a)) + sum(p.weight.at(Clock(0)) * p.score(a) for p in penalties)
        (down_psi,) = torch.autograd.grad(score, psi, retain_graph=True)
        (down_theta,) = torch.autograd.grad(total(loss.generator(a)), theta)
        with torch.no_grad():
            psi -= rate * down_psi
            theta -= rate * down_theta
        distances.append(math.hypot(psi.item(), theta.item()))
    return distances


@pytest.mark.parametrize("name", ["minimax", "wasserstein"])
def test_the_dirac_gan_without_penalty_cycles(name):
    distances = dirac(1500, 0.02, loss=make_loss(name))
    assert min(distances) > 0.99  # it never gets closer to the equilibrium


@pytest.mark.parametrize("name", ["nonsaturating", "relativistic"])
def test_the_nonsaturating_dirac_gan_does_not_converge(name):
    """Its eigenvalues at the equilibrium are imaginary too: it spirals inward, slower and slower."""
    distances = dirac(3200, 0.05, loss=make_loss(name))
    assert distances[-1] > 0.1
    first, second = distances[0] / distances[1599], distances[1599] / distances[-1]
    assert second < first


def test_r1_makes_the_dirac_gan_converge_at_the_predicted_rate():
    """Eigenvalues: -gamma/2 +- sqrt(gamma^2/4 - f'(0)^2), f'(0) = 1/2 (Mescheder et al. 2018, lemma 2.6)."""
    rate, gamma = 0.02, 0.4
    distances = dirac(3000, rate, [r1(gamma)])
    assert distances[-1] < 1e-4
    decay = math.log(distances[1000] / distances[2000]) / (1000 * rate)
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

    def input_grad(x):
        return (x.flatten(1) @ a + b).view_as(x)

    step = SimpleNamespace(real_input_grad=input_grad(real), fake_input_grad=input_grad(fake))
    for penalty, images in ((r1(3.0), real), (r2(3.0), fake)):
        by_hand = 3 / 2 * sum((a @ x + b).norm().item() ** 2 for x in images.flatten(1)) / 5
        assert (penalty.score(step) * penalty.weight.at(Clock(0))).item() == pytest.approx(by_hand)


class Quadratic:
    """What a finite difference reads of the quadratic discriminator."""

    def __init__(self, real, fake):
        self.real_images, self.fake_images = real, fake
        self.a, self.b = quadratic()

    def critic(self, x):
        x = x.flatten(1)
        return (x @ self.a * x).sum(1) / 2 + x @ self.b

    def critic_and_moved(self, images, offset):
        return self.critic(images), self.critic(images + offset)


@pytest.mark.parametrize(("penalty", "which"), [(fd_r1, "real_images"), (fd_r2, "fake_images")])
def test_a_finite_difference_is_the_exact_penalty_on_average(penalty, which):
    torch.manual_seed(1)
    step = Quadratic(*(torch.randn(20_000, 3, 2, 2, dtype=torch.float64) for _ in range(2)))
    x = getattr(step, which).flatten(1)
    exact = 0.5 * (x @ step.a + step.b).square().sum(1).mean()
    assert penalty(1.0, sigma=1e-4).score(step).item() == pytest.approx(exact.item(), rel=0.05)
    # Of a quadratic function the error is that of the second order: sigma^2 / 4 E (n'An)^2, halved as the penalty.
    curvature = (step.a.trace() ** 2 + 2 * step.a.square().sum()) / 8
    wide = penalty(1.0, sigma=2.0).score(step).item()
    assert wide == pytest.approx((exact + 4 * curvature).item(), rel=0.1)


def test_finite_differences_make_the_dirac_gan_converge():
    torch.manual_seed(0)
    assert dirac(3000, 0.02, [fd_r1(0.4)])[-1] < 1e-3


def test_wgan_gp_of_a_linear_discriminator():
    _, b = quadratic()
    step = SimpleNamespace(
        real_images=torch.randn(5, 3, 2, 2, dtype=torch.float64),
        fake_images=torch.randn(5, 3, 2, 2, dtype=torch.float64),
        critic=lambda x: x.flatten(1) @ b,
    )
    assert wgan_gp().score(step).item() == pytest.approx((b.norm().item() - 1) ** 2)


def test_wgan_gp_interpolates_between_each_real_image_and_its_fake():
    """With D(x) = |x|^2 / 2 the gradient is x itself, which must lie between the two."""
    real, fake = torch.full((64, 1, 1, 1), 2.0), torch.full((64, 1, 1, 1), 4.0)
    step = SimpleNamespace(real_images=real, fake_images=fake, critic=lambda x: 0.5 * x.flatten(1).square().sum(1))
    torch.manual_seed(0)
    score = wgan_gp().score(step).item()
    # E (u - 1)^2 for u uniform in [2, 4] is (27 - 1) / 6
    assert score == pytest.approx(26 / 6, rel=0.15)


def test_a_penalty_out_of_range_is_refused():
    with pytest.raises(UserError, match="every 0 steps"):
        r1(1.0, every=0)
    with pytest.raises(UserError, match="negative weight"):
        r2(-1.0)
    assert isinstance(r1("0.1 -> 0.01 in 1M images"), Penalty)


def test_consistency_of_a_linear_discriminator_is_the_squared_change_of_its_output():
    weight = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1)
    real, fake = torch.randn(2, 4, 3, 1, 1, generator=torch.Generator().manual_seed(0))

    def critic(x):
        return (x * weight).sum((1, 2, 3))

    logits = {"real": critic(real), "fake": critic(fake)}
    step = SimpleNamespace(real_images=real, fake_images=fake, **logits, critic=critic, clock=Clock(300))
    nudge = torch.tensor([0.1, 0.2, -0.4]).view(1, 3, 1, 1)
    found = consistency(10, lambda images, clock: images + nudge).score(step)
    assert found.item() == pytest.approx(2 * (0.1 - 0.4 - 0.2) ** 2, rel=1e-4)
    assert consistency(10, lambda images, clock: images).score(step).item() == 0


def test_the_transform_of_consistency_is_told_where_the_run_is():
    """A scheduled augmentation changes more later in the run: noise of 0 at first, of 0.5 in the end."""
    noise = InstanceNoise(Schedule.parse("0 -> 0.5 in 100 images"))
    images = torch.zeros(4000, 1, 1, 1)
    step = SimpleNamespace(
        real_images=images,
        fake_images=images,
        real=torch.zeros(4000),
        fake=torch.zeros(4000),
        critic=lambda x: x.flatten(),
    )
    penalty = consistency(10, noise)
    torch.manual_seed(0)
    step.clock = Clock(0)
    assert penalty.score(step).item() == 0
    step.clock = Clock(100)
    assert penalty.score(step).item() == pytest.approx(2 * 0.5**2, rel=0.1)  # 6 sigma of the mean of 8000 squares


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_lecam_takes_logits_of_any_precision(dtype):
    logits = SimpleNamespace(real=torch.tensor([3.0, 5.0], dtype=dtype), fake=torch.tensor([-1.0, -3.0], dtype=dtype))
    assert LeCam()(logits).item() == pytest.approx((25 + 49) / 2 + (25 + 49) / 2)


def test_lecam_pulls_logits_toward_the_average_of_the_other_kind():
    averages = LeCam()
    first = SimpleNamespace(real=torch.tensor([3.0, 5.0]), fake=torch.tensor([-1.0, -3.0], requires_grad=True))
    value = averages(first)  # the averages start at the first batch's means, 4 and -2
    assert value.item() == pytest.approx((25 + 49) / 2 + (25 + 49) / 2)
    (grad,) = torch.autograd.grad(value, first.fake)
    assert torch.allclose(grad, torch.tensor([-5.0, -7.0]))  # 2 (d - 4) / 2, and none through the averages
    averages(SimpleNamespace(real=torch.tensor([14.0]), fake=torch.tensor([-2.0])))
    assert averages.real.item() == pytest.approx(4 * 0.99 + 14 * 0.01)
    copy = LeCam()
    copy.load_state_dict(averages.state_dict())
    assert copy.real.item() == averages.real.item()
