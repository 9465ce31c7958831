"""Differentiable changes to images: their statistics, their randomness, their gradients."""

import pytest
import torch

from rivals.base.schedules import Schedule
from rivals.data.augment import Ada, DiffAugment, InstanceNoise
from rivals.data.warp import QUARTER, identity, scaled, shifted, turned, warp


def test_instance_noise_has_the_scheduled_deviation_and_fades():
    noise = InstanceNoise(Schedule.parse("0.5 -> 0 in 100 images"))
    images = torch.zeros(64, 3, 16, 16)
    torch.manual_seed(0)
    assert abs(noise(images, 0).std().item() - 0.5) < 0.01
    assert abs(noise(images, 50).std().item() - 0.25) < 0.01
    assert torch.equal(noise(images, 100), images)


def test_instance_noise_lets_gradients_through_twice():
    noise = InstanceNoise(Schedule.parse(0.1))
    images = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)

    def seen(x):
        torch.manual_seed(0)
        return noise(x, 0)

    assert torch.autograd.gradcheck(seen, images)
    assert torch.autograd.gradgradcheck(lambda x: seen(x).square(), images)


def pictures(n=3, channels=3, size=8, dtype=torch.float64):
    return torch.rand(n, channels, size, size, dtype=dtype, generator=torch.Generator().manual_seed(1)) * 2 - 1


CHANGES = {"diff": DiffAugment(), "ada": Ada(Schedule.parse(0.8)), "ada always": Ada(Schedule.parse(1.0))}


@pytest.mark.parametrize("name", list(CHANGES))
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_change_lets_gradients_through_twice(name, channels):
    images = pictures(2, channels, 5).requires_grad_()

    def seen(x):
        torch.manual_seed(2)
        return CHANGES[name](x, 0)

    assert torch.autograd.gradcheck(seen, images)
    assert torch.autograd.gradgradcheck(lambda x: seen(x).square(), images)


@pytest.mark.parametrize("name", list(CHANGES))
def test_changes_are_drawn_for_each_image_and_keep_shape_type_and_alpha_s_place(name):
    images = pictures(1, 4, 16, torch.float32).expand(32, -1, -1, -1).contiguous()
    torch.manual_seed(0)
    first = CHANGES[name](images, 0)
    assert first.shape == images.shape and first.dtype == images.dtype and bool(first.isfinite().all())
    assert len({tuple(image.flatten()[:50].tolist()) for image in first}) > 20
    torch.manual_seed(0)
    assert torch.equal(CHANGES[name](images, 0), first)


def test_ada_at_0_changes_nothing_and_at_a_probability_that_share_of_images():
    images = pictures(400, 1, 8, torch.float32)
    assert Ada(Schedule.parse(0.0))(images, 5) is images
    torch.manual_seed(0)
    same = (Ada(Schedule.parse(0.02))(images, 0) - images).abs().amax((1, 2, 3)) < 1e-4
    # 12 changes of grey images, of which flips and turns leave some as they were: about 0.98^11 stay.
    assert 0.7 < same.float().mean() < 0.9


@pytest.mark.parametrize(
    ("maps", "wanted"),
    [
        (scaled(torch.tensor([-1.0]), torch.tensor([1.0])), lambda x: x.flip(3)),
        (turned(torch.tensor([QUARTER])), lambda x: x.rot90(1, (2, 3))),
        (turned(torch.tensor([2 * QUARTER])), lambda x: x.flip(2, 3)),
        (shifted(torch.tensor([2.0]), torch.tensor([0.0])), lambda x: x[..., [2, 3, 4, 5, 6, 6, 5]]),
        (identity(1, torch.zeros(1)), lambda x: x),
    ],
)
def test_whole_moves_are_exact(maps, wanted):
    images = pictures(1, 2, 7, torch.float32)
    assert torch.allclose(warp(images, maps), wanted(images), atol=1e-5)


def test_warping_agrees_with_the_library_s_sampler():
    images, angle = pictures(4, 3, 9), torch.linspace(-2, 2, 4, dtype=torch.float64)
    maps = turned(angle) @ shifted(0.7 * angle, -1.3 * angle) @ scaled(torch.exp(angle / 4), torch.exp(-angle / 5))
    # grid_sample counts from the centre in halves of the side.
    grid = torch.nn.functional.affine_grid(maps[:, :2] / torch.tensor([1, 1, 4.5]), (4, 3, 9, 9), align_corners=False)
    sampled = torch.nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    assert torch.allclose(warp(images, maps), sampled, atol=1e-9)


def test_hue_keeps_greys_and_saturation_brightness():
    grey = torch.full((64, 3, 4, 4), 0.3)
    torch.manual_seed(0)
    painted = Ada(Schedule.parse(1.0))(grey, 0)
    kept = painted[:, :, 0, 0]
    assert torch.allclose(kept, kept.mean(1, keepdim=True).expand(-1, 3), atol=1e-5)  # grey stays grey


def test_an_adaptive_probability_follows_the_discriminator_and_survives_a_kill():
    ada = Ada(Schedule.parse(0.0), target=0.6, pace=1000)
    sure, unsure = torch.ones(100), torch.tensor([1.0, -1.0]).repeat(50)
    assert ada.heed(sure).item() == 1
    assert ada.p.item() == pytest.approx(0.1)
    other = Ada(Schedule.parse(0.0), target=0.6, pace=1000)
    other.load_state_dict(ada.state_dict())
    assert other.p.item() == ada.p.item()
    for _ in range(3):
        ada.heed(unsure)
    assert ada.p.item() == 0


def test_diffaugment_s_changes_are_as_large_as_published():
    images = torch.zeros(2000, 1, 16, 16)
    torch.manual_seed(0)
    seen = DiffAugment()(images, 0)
    level = seen[:, 0].flatten(1)
    inside = level[(level != 0) & (level != -1)]
    assert inside.abs().max() <= 0.5 and inside.abs().max() > 0.45
    black = (seen == -1).float().mean()  # a shift by up to an eighth: 1/16 a side on average, before the cut-out
    assert 0.05 < black < 0.13
