"""Differentiable augmentations: statistics, randomness and gradients."""

from collections import Counter

import pytest
import torch
from torch import nn

from rivals.base.schedules import Clock, Schedule
from rivals.data.affine import QUARTER, identity, rotation, scaling, translation, warp
from rivals.data.augment import ADA, DiffAugment, FlipAndShift, InstanceNoise
from rivals.game.game import Game, Turn
from rivals.game.player import Player, adam
from rivals.losses.gan import hinge


def test_instance_noise_has_the_scheduled_standard_deviation():
    noise = InstanceNoise(Schedule.parse("0.5 -> 0 in 100 images"))
    images = torch.zeros(64, 3, 16, 16)
    torch.manual_seed(0)
    assert abs(noise(images, Clock(0)).std().item() - 0.5) < 0.01
    assert abs(noise(images, Clock(50)).std().item() - 0.25) < 0.01
    assert torch.equal(noise(images, Clock(100)), images)


def test_instance_noise_is_twice_differentiable():
    noise = InstanceNoise(Schedule.parse(0.1))
    images = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)

    def seen(x):
        torch.manual_seed(0)
        return noise(x, Clock(0))

    assert torch.autograd.gradcheck(seen, images)
    assert torch.autograd.gradgradcheck(lambda x: seen(x).square(), images)


def pictures(n=3, channels=3, size=8, dtype=torch.float64, width=None):
    return torch.rand(n, channels, size, width or size, dtype=dtype, generator=torch.Generator().manual_seed(1)) * 2 - 1


CHANGES = {"diff": DiffAugment(), "ada": ADA(Schedule.parse(0.8)), "ada always": ADA(Schedule.parse(1.0))}


@pytest.mark.parametrize("name", list(CHANGES))
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_augmentations_are_twice_differentiable(name, channels):
    images = pictures(2, channels, 5, width=4).requires_grad_()

    def seen(x):
        torch.manual_seed(2)
        return CHANGES[name](x, Clock(0))

    assert torch.autograd.gradcheck(seen, images)
    # Along a random direction: all of them would take a hundred times as many passes.
    assert torch.autograd.gradgradcheck(lambda x: seen(x).square(), images, fast_mode=True)


@pytest.mark.parametrize("name", list(CHANGES))
def test_augmentations_are_random_per_image_and_keep_shape_dtype_and_alpha(name):
    images = pictures(1, 4, 16, torch.float32, width=24).expand(32, -1, -1, -1).contiguous()
    torch.manual_seed(0)
    first = CHANGES[name](images, Clock(0))
    assert first.shape == images.shape and first.dtype == images.dtype and bool(first.isfinite().all())
    assert len({tuple(image.flatten()[:50].tolist()) for image in first}) > 20
    torch.manual_seed(0)
    assert torch.equal(CHANGES[name](images, Clock(0)), first)


def test_ada_changes_the_share_p_of_images():
    images = pictures(400, 1, 8, torch.float32)
    assert ADA(Schedule.parse(0.0))(images, Clock(5)) is images
    torch.manual_seed(0)
    same = (ADA(Schedule.parse(0.02))(images, Clock(0)) - images).abs().amax((1, 2, 3)) < 1e-4
    # 12 changes of gray images, of which flips and turns leave some as they were: about 0.98^11 stay.
    assert 0.7 < same.float().mean() < 0.9


@pytest.mark.parametrize(
    ("maps", "wanted"),
    [
        (scaling(torch.tensor([-1.0]), torch.tensor([1.0])), lambda x: x.flip(3)),
        (rotation(torch.tensor([QUARTER])), lambda x: x.rot90(1, (2, 3))),
        (rotation(torch.tensor([2 * QUARTER])), lambda x: x.flip(2, 3)),
        (translation(torch.tensor([2.0]), torch.tensor([0.0])), lambda x: x[..., [2, 3, 4, 5, 6, 6, 5]]),
        (identity(1, torch.zeros(1)), lambda x: x),
    ],
)
def test_flips_quarter_rotations_and_integer_translations_are_exact(maps, wanted):
    images = pictures(1, 2, 7, torch.float32)
    assert torch.allclose(warp(images, maps), wanted(images), atol=1e-5)


def test_a_quarter_turn_of_a_rectangle_keeps_its_frame():
    images = pictures(1, 2, 4, width=8)
    turned = warp(images, rotation(torch.tensor([QUARTER], dtype=torch.float64)))
    assert turned.shape == images.shape
    # The middle square is turned about its center; left and right of it are reflections of rows that left the frame.
    assert torch.allclose(turned[..., 2:6], images[..., 2:6].rot90(1, (2, 3)))
    assert torch.allclose(turned[..., :2], turned[..., 2:4].flip(3))


def test_the_cutout_of_a_rectangle_is_half_of_each_side():
    torch.manual_seed(0)
    gone = DiffAugment()(torch.full((300, 1, 12, 31), -1.0), Clock(0)) == 0  # brightness leaves no other value at 0
    inside = gone[:, 0, 2:-2, 4:-4]  # what moves in is an eighth of each side at most, rounded
    assert inside.sum((1, 2)).max() == 6 * 16
    assert inside.any(1).sum(1).max() == 16 and inside.any(2).sum(1).max() == 6


def test_warp_agrees_with_grid_sample():
    images, angle = pictures(4, 3, 9), torch.linspace(-2, 2, 4, dtype=torch.float64)
    maps = (
        rotation(angle) @ translation(0.7 * angle, -1.3 * angle) @ scaling(torch.exp(angle / 4), torch.exp(-angle / 5))
    )
    # grid_sample counts from the center in halves of the side.
    grid = torch.nn.functional.affine_grid(maps[:, :2] / torch.tensor([1, 1, 4.5]), (4, 3, 9, 9), align_corners=False)
    sampled = torch.nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    assert torch.allclose(warp(images, maps), sampled, atol=1e-9)


def test_hue_preserves_grays_and_saturation_preserves_brightness():
    gray = torch.full((64, 3, 4, 4), 0.3)
    torch.manual_seed(0)
    painted = ADA(Schedule.parse(1.0))(gray, Clock(0))
    kept = painted[:, :, 0, 0]
    assert torch.allclose(kept, kept.mean(1, keepdim=True).expand(-1, 3), atol=1e-5)  # gray stays gray


def test_an_adaptive_probability_follows_the_discriminator_and_is_in_the_state():
    ada = ADA(Schedule.parse(0.0), target=0.6, pace=1000)
    sure, unsure = torch.ones(100), torch.tensor([1.0, -1.0]).repeat(50)
    assert ada.adjust(sure, len(sure)).item() == 1
    assert ada.p.item() == 0  # it follows in the next step, when all micro-batches are known
    assert ada.adjust(sure, len(sure)).item() == 1
    assert ada.p.item() == pytest.approx(0.1)
    other = ADA(Schedule.parse(0.0), target=0.6, pace=1000)
    other.load_state_dict(ada.state_dict())
    assert other.p.item() == ada.p.item() and other.sign.item() == 1
    for _ in range(4):
        ada.adjust(unsure, len(unsure))
    assert ada.p.item() == 0


@pytest.mark.parametrize("parts", [1, 4, 32])
@pytest.mark.parametrize(("right", "rises"), [(24, False), (28, True)])
def test_micro_batches_hold_the_same_target(parts, right, rises):
    """r_t of 0.5 is below the target of 0.6, one of 0.75 above; of one image it is always -1 or 1."""

    class Batches:
        n, batch_size, micro_batches = 32, 32, parts

        def draw(self, index, stream=0, part=0):
            dark = torch.arange(32).chunk(parts)[part] >= right
            return torch.where(dark, 0, 255).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8), None

    class Bright(nn.Module):
        classes, latent_dim = 0, 1

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x, labels=None):
            return self.weight * (x.flatten(1).mean(1) if x.ndim == 4 else x.view(-1, 1, 1, 1).expand(-1, 1, 8, 8))

    ada = ADA(Schedule.parse(0.5), target=0.6, pace=1000)
    players = {name: Player(Bright(), adam(1e-6)) for name in ("generator", "discriminator")}
    turn = Turn("discriminator", hinge.discriminator, readings=lambda step: {"sign": ada.adjust(step.real, 32)})
    game = Game(players, [turn], modules={"augment": ada})
    for step in range(4):
        values = game.round(step, Batches(), seed=0)
        assert values["sign"].item() == pytest.approx(right / 16 - 1)
    assert ada.p.item() == pytest.approx(0.5 + 3 * 0.032 * (1 if rises else -1))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("augment", [ADA(Schedule.parse(1.0)), DiffAugment(), FlipAndShift()])
def test_images_in_half_precision_are_augmented_like_others(augment, dtype):
    images = pictures(3, 3, 20).to(dtype)
    torch.manual_seed(0)
    found = augment(images, Clock(0))
    assert found.dtype == dtype and found.shape == images.shape and bool(found.isfinite().all())
    if isinstance(augment, ADA):
        torch.manual_seed(0)
        exact = augment(images.float(), Clock(0))
        torch.testing.assert_close(found.float(), exact, atol=0.02, rtol=0.02)


def published_masks(side):
    """Which pixels DiffAugment keeps, over all its shifts and cutouts of one axis, written out from the paper's code.

    A shift of s pixels leaves zeros on |s| of them; a cutout at c takes the pixels from c - k // 2 on, clipped.
    """
    k, most, masks = int(side * 0.5 + 0.5), int(side * 0.125 + 0.5), Counter()
    for s in range(-most, most + 1):
        for c in range(side + (1 - k % 2)):
            kept = [0 <= at - s < side for at in range(side)]
            cut = [c - k // 2 <= at < c - k // 2 + k for at in range(side)]
            masks[tuple(kept), tuple(cut)] += 1
    return masks


@pytest.mark.parametrize("side", [16, 17, 28, 10, 15])
def test_diffaugment_shifts_and_cuts_as_published_and_fills_with_mid_gray(side):
    torch.manual_seed(0)
    n = 5_000
    seen = DiffAugment()(torch.ones(n, 1, side, side), Clock(0))[:, 0]  # brightness lifts ones to 0.5 or more
    gray = seen.abs() < 1e-6
    assert seen[~gray].min() > 0.49  # so nothing is filled with black
    levels = seen.amax((1, 2))
    assert levels.min() < 0.51 and levels.max() > 1.49
    published = published_masks(side)
    uncut = Counter()
    for (kept, _), count in published.items():
        uncut[kept] += count
    total = sum(published.values())
    for axis in (1, 2):
        kept = Counter(tuple(map(bool, row)) for row in (~gray).any(axis).tolist())
        # A row or column vanishes whole only if it is shifted in: the cutout covers half the side at most.
        assert set(kept) == set(uncut)
        for mask, count in uncut.items():
            share, error = count / total, (count / total / n) ** 0.5
            assert abs(kept[mask] / n - share) < 5 * error, mask
    area = sum(count * sum(kept) for (kept, _), count in published.items()) / total
    overlap = sum(count * sum(a and b for a, b in zip(*key, strict=True)) for key, count in published.items()) / total
    visible = (~gray).float().sum((1, 2)).mean().item()
    assert visible == pytest.approx(area**2 - overlap**2, rel=0.02)


def test_diffaugment_changes_colors_as_published():
    """Brightness, then saturation about the gray of each pixel, then contrast about the mean of the image."""
    image = torch.tensor([0.8, -0.4, 0.2], dtype=torch.float64).view(1, 3, 1, 1).expand(4000, 3, 8, 8).contiguous()
    torch.manual_seed(0)
    seen = DiffAugment()(image, Clock(0))
    color = seen.flatten(2)[torch.arange(4000), :, seen.abs().sum(1).flatten(1).argmax(1)]
    gray = color.mean(1)
    # Of a constant image contrast leaves the mean alone, which is that of the image and the brightness.
    shift = gray - 0.2
    assert -0.5 <= shift.min() < -0.49 and 0.49 < shift.max() <= 0.5
    # Saturation (0 to 2) and contrast (0.5 to 1.5) both scale the distance from it.
    factor = (color - gray[:, None])[:, 0] / 0.6
    torch.testing.assert_close((color - gray[:, None])[:, 1], -0.6 * factor)
    assert 0 <= factor.min() < 0.01 and 2.7 < factor.max() <= 3 and factor.mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("side", [16, 9, 28])
def test_the_transform_of_consistency_reflects_borders(side):
    """All flips and shifts of an image whose every pixel has its own value, against reflection padding."""
    image = torch.arange(float(side * side)).view(1, 1, side, side)
    most = int(side * 0.125 + 0.5)
    padded = torch.nn.functional.pad(image, [most] * 4, mode="reflect")
    wanted = {
        tuple(each[..., y : y + side, x : x + side].flatten().tolist())
        for each in (padded, padded.flip(3))
        for y in range(2 * most + 1)
        for x in range(2 * most + 1)
    }
    torch.manual_seed(0)
    seen = FlipAndShift()(image.expand(1000, -1, -1, -1), Clock(0))
    assert {tuple(each.flatten().tolist()) for each in seen} == wanted
