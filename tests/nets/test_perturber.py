"""Perturbers: in ball and box by construction, independent of the batch, rebuilt from their spec."""

import pytest
import torch

from rivals.base.errors import UserError
from rivals.nets.factory import build_perturber, rebuild

EPS = {"linf": 0.3, "l2": 2.0, "l1": 10.0}
SHAPE = {"size": "10x13", "channels": 3, "widths": (4, 4, 8)}


def perturber(**options):
    torch.manual_seed(0)
    net = build_perturber(**SHAPE, **options)
    with torch.no_grad():
        net.last.weight.mul_(100)  # far out of the ball, if it were not bounded
    return net


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("universal", [False, True])
@pytest.mark.parametrize("condition", ["none", "label", "target"])
def test_perturbed_images_lie_in_ball_and_box(norm, universal, condition):
    classes = 0 if condition == "none" else 5
    net = perturber(norm=norm, eps=EPS[norm], universal=universal, condition=condition, classes=classes)
    x = torch.rand(6, 3, 13, 10)
    x_adv = net(x, torch.arange(6) % 5 if classes else None)
    assert net.ball.contains(x_adv, x).all()
    assert (net.ball.distance(x_adv, x) > 0.4 * EPS[norm]).all()
    x_adv.sum().backward()
    assert net.stem[0].weight.grad.abs().sum() > 0


def test_a_perturbation_does_not_depend_on_the_rest_of_the_batch():
    net, x = perturber().eval(), torch.rand(5, 3, 13, 10)
    assert torch.allclose(net(x)[2:3], net(x[2:3]), atol=1e-6)


def test_its_raw_perturbation_has_a_fixed_size_and_takes_the_whole_ball_in_evaluation():
    net, x = perturber(), 0.4 + 0.2 * torch.rand(5, 3, 13, 10)
    assert torch.allclose(net.raw(x).square().mean((1, 2, 3)), torch.ones(5), atol=1e-5)
    in_training = (net(x) - x).abs().mean()
    in_evaluation = (net.eval()(x) - x).abs().mean()
    assert in_training < 0.7 * 0.3 < 0.85 * 0.3 < in_evaluation


def test_in_l1_its_raw_perturbation_is_as_long_however_sparse_it_is():
    net, x = perturber(norm="l1", eps=10.0), torch.full((2, 3, 13, 10), 0.5)
    assert torch.allclose(net.raw(x).abs().mean((1, 2, 3)), torch.ones(2), atol=1e-5)


def test_a_pixel_changes_the_perturbation_of_its_neighbors_at_full_resolution():
    net, x = perturber().eval(), torch.rand(1, 3, 13, 10)
    other = x.clone()
    other[..., 6, 5] = 1 - other[..., 6, 5]
    changed = (net.raw(other) - net.raw(x)).abs().sum(1)[0]
    assert changed[5:8, 4:7].mean() > 2 * changed.mean()


def test_a_universal_perturbation_is_the_same_for_all_images():
    net = perturber(universal=True)
    middle = torch.full((1, 3, 13, 10), 0.5)
    changes = [net(image) - image for image in (middle, middle + 0.1)]
    assert torch.allclose(*changes, atol=1e-6)


def test_the_spec_rebuilds_the_same_function():
    net = perturber(norm="l2", eps=1.5, classes=3, condition="label", universal=True)
    other = rebuild(net.spec)
    other.load_state_dict(net.state_dict())
    x, y = torch.rand(3, 3, 13, 10), torch.tensor([0, 1, 2])
    assert torch.equal(other(x, y), net(x, y))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"eps": 0.0}, "eps of 0"),
        ({"widths": (4,)}, "widths 4"),
        ({"blocks": -1}, "-1 residual"),
        ({"z": 1}, "'z'"),
    ],
)
def test_what_cannot_be_built_is_refused(options, part):
    with pytest.raises(UserError, match=part):
        build_perturber(**{**SHAPE, **options})
