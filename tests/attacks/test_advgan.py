"""The attack by a generator: in ball and box, one forward pass, refusals in one line."""

import pytest
import torch
from torch import nn

import rivals
from rivals.attacks import advgan, freeze
from rivals.base.errors import UserError
from rivals.base.norm_balls import L2, Linf

SHAPE = (3, 8, 8)


class Known(nn.Module):
    """Raises the logit of the target of a linear model as fast as the ball allows, or lowers that of the label."""

    size, channels, target = 8, 3, None

    def __init__(self, layer, eps, classes=0, condition="target"):
        super().__init__()
        self.layer, self.eps, self.classes = layer, eps, classes
        self.condition = condition if classes else "none"

    def forward(self, x, labels=None):
        assert (labels is None) == (not self.classes)
        gradient = -x if labels is None else self.layer.weight[labels].view_as(x)
        gradient = -gradient if self.condition == "label" else gradient
        return (x + self.eps * gradient.sign()).clamp(0, 1)


@pytest.fixture
def case():
    torch.manual_seed(0)
    layer = nn.Linear(192, 4)
    model = nn.Sequential(nn.Flatten(), layer)
    x = 0.2 + 0.6 * torch.rand(12, *SHAPE)
    return model, layer, x, model(x).argmax(1)


def test_a_generator_that_is_told_targets_reaches_them(case):
    model, layer, x, y = case
    targets = (y + 1) % 4
    x_adv = advgan(model, x, y, Linf(0.3), generator=Known(layer, 0.3, 4), targets=targets)
    assert Linf(0.3).contains(x_adv, x).all()
    assert (model(x_adv).argmax(1) == targets).all()


def test_untargeted_it_is_told_the_strongest_wrong_class_and_costs_two_passes(case):
    model, layer, x, y = case
    with freeze(model, x) as frozen:
        x_adv = advgan(frozen, x, y, Linf(0.3), generator=Known(layer, 0.3, 4))
        assert (frozen.forwards, frozen.backwards) == (2 * len(x), 0)
    assert (model(x_adv).argmax(1) != y).all()


def test_images_in_another_range_reach_the_generator_in_its_own(case):
    model, layer, x, y = case
    wide = nn.Sequential(_Halved(), *model)
    x_adv = advgan(wide, x * 2 - 1, y, Linf(0.6, bounds=(-1, 1)), generator=Known(layer, 0.3, 4), seed=0)
    assert torch.allclose(x_adv, advgan(model, x, y, Linf(0.3), generator=Known(layer, 0.3, 4)) * 2 - 1, atol=1e-5)


class _Halved(nn.Module):
    def forward(self, x):
        return (x + 1) / 2


def test_a_generator_that_is_told_the_label_lowers_its_logit(case):
    model, layer, x, y = case
    x_adv = advgan(model, x, y, Linf(0.3), generator=Known(layer, 0.3, 4, "label"))
    assert (model(x_adv).argmax(1) != y).all()


def test_another_ball_cuts_the_perturbation_off(case):
    model, layer, x, y = case
    for ball in (Linf(0.05), L2(0.5)):
        x_adv = advgan(model, x, y, ball, generator=Known(layer, 0.3, 4), stop_when_fooled=False)
        assert ball.contains(x_adv, x).all()
        assert (ball.distance(x_adv, x) > 0.9 * ball.eps).any()


def test_double_images_pass_through_a_single_generator(case):
    model, layer, x, y = case
    found = advgan(model.double(), x.double(), y, Linf(0.3), generator=Known(layer, 0.3))
    assert found.dtype == torch.float64


@pytest.mark.parametrize(
    ("generator", "options", "part"),
    [
        (lambda layer: nn.Identity(), {}, "perturbs no images"),
        (lambda layer: Known(layer, 0.3), {"targets": torch.zeros(12, dtype=torch.int64)}, "cannot be given a target"),
        (lambda layer: Known(layer, 0.3, 4, "label"), {"targets": torch.zeros(12, dtype=torch.int64)}, "--condition"),
        (lambda layer: Known(layer, 0.3, 3), {}, "3 classes and the model has 4"),
    ],
)
def test_a_generator_that_does_not_fit_is_refused(case, generator, options, part):
    model, layer, x, y = case
    with pytest.raises(UserError, match=part) as caught:
        advgan(model, x, y, Linf(0.3), generator=generator(layer), **options)
    assert "\n" not in str(caught.value)


def test_images_of_another_size_are_refused(case):
    model, layer, x, y = case
    with pytest.raises(UserError, match="images of 3 x 8 x 8, and these are 3 x 4 x 4"):
        advgan(model, x[..., :4, :4], y, Linf(0.3), generator=Known(layer, 0.3))


def test_another_target_than_its_own_is_refused(case):
    model, layer, x, y = case
    generator = Known(layer, 0.3)
    generator.target = 1
    with pytest.raises(UserError, match="only target is class 1, not 2"):
        advgan(model, x, y, Linf(0.3), generator=generator, targets=torch.full_like(y, 2))


def test_unknown_options_are_refused_by_name(case):
    model, layer, x, y = case
    with pytest.raises(UserError, match="option of advgan 'step'"):
        rivals.attacks.advgan(model, x, y, Linf(0.3), generator=Known(layer, 0.3), step=3)
