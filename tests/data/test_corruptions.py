"""The 15 common corruptions: what their definitions say, on images small and large, gray and in color."""

import numpy as np
import pytest
from scipy import ndimage

from helpers.refusals import named
from rivals.data.corruptions import KINDS, SEVERITIES, corrupt
from rivals.data.corruptions.blur import defocus, enlarge, smear
from rivals.data.corruptions.weather import plasma_fractal

RANDOM = np.random.default_rng(0)
SMOOTH = ndimage.gaussian_filter(RANDOM.random((40, 3, 32, 32)), (0, 0, 2, 2))
PHOTOS = (255 * (SMOOTH - SMOOTH.min()) / np.ptp(SMOOTH)).astype(np.uint8)[:6]
LARGE = PHOTOS.repeat(3, 2).repeat(3, 3)[:1]
FEW = ("shot_noise", "glass_blur", "motion_blur", "snow", "fog", "elastic_transform", "pixelate", "zoom_blur")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_every_image_by_its_own_stream_and_keeps_its_shape(kind):
    for images in (PHOTOS, PHOTOS[:, :1], PHOTOS[:3, :, :, :20]):
        made = corrupt(images, kind, 5, seed=1)
        assert (made.dtype, made.shape) == (np.uint8, images.shape)
        assert (made != images).reshape(len(made), -1).any(1).all()
        assert np.array_equal(corrupt(images[2:3], kind, 5, seed=1), made[2:3])
    assert len(SEVERITIES) == 5


@pytest.mark.parametrize("kind", FEW)
def test_large_images_are_corrupted_by_imagenets_parameters(kind):
    made = corrupt(LARGE, kind, 1)
    assert made.shape == LARGE.shape
    assert (made != LARGE).any()


@pytest.mark.parametrize(
    "kind",
    ["gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "zoom_blur", "contrast", "brightness", "fog"],
)
def test_severities_rise(kind):
    change = [np.abs(corrupt(PHOTOS, kind, each).astype(float) - PHOTOS).mean() for each in SEVERITIES]
    assert change == sorted(change)
    assert change[0] < change[-1]


def test_noises_have_their_definitions_moments():
    gray = np.full((4, 3, 32, 32), 127, np.uint8)
    noise = (corrupt(gray, "gaussian_noise", 5).astype(float) - 127) / 255
    assert abs(noise.std() - 0.10) < 0.003
    photons = corrupt(gray, "shot_noise", 5) / 255
    assert abs(photons.std() - np.sqrt(0.5 / 50)) < 0.004
    hit = corrupt(gray, "impulse_noise", 5)
    assert set(np.unique(hit)) == {0, 127, 255}
    assert abs((hit != 127).mean() - 0.07) < 0.01


def test_contrast_and_brightness_are_their_formulas():
    made = corrupt(PHOTOS, "contrast", 5) / 255
    x = PHOTOS / 255
    mean = x.mean((2, 3), keepdims=True)
    assert np.abs(made - ((x - mean) * 0.15 + mean)).max() <= 1 / 255
    bright = corrupt(PHOTOS, "brightness", 5) / 255
    value = x.max(1)
    assert np.abs(bright.max(1) - np.minimum(value + 0.3, 1)).max() <= 1 / 255 + 1e-9
    share = x / np.maximum(value[:, None], 1e-9)  # hue and saturation stay
    assert np.abs(bright - share * bright.max(1, keepdims=True)).max() < 0.02


def test_blurs_keep_a_constant_and_spread_a_point():
    flat = np.full((32, 32, 1), 0.5)
    point = np.zeros((32, 32, 1))
    point[16, 16] = 1
    for severity in ((3, 0.1), (10, 0.5), (0.3, 0.4)):
        assert np.allclose(defocus(flat, severity, RANDOM), 0.5)
    assert (defocus(point, (3, 0.1), RANDOM) > 1e-6).sum() == 29  # a disk of radius 3
    assert np.allclose(smear(flat, 6, 1, 30.0), 0.5)
    trail = smear(point, 6, 2, 0.0)[16, :, 0]
    assert trail[16] == trail.max()
    assert (trail[4:17] > 0).all()  # along the row, to one side
    assert (trail[17:] == 0).all()
    assert np.allclose(enlarge(flat, 1.25), 0.5)
    assert enlarge(point, 1.25).shape == point.shape


def test_fractal_noise_fills_0_to_1_and_is_smooth_where_it_decays_fast():
    rough, smooth = (plasma_fractal(32, decay, np.random.default_rng(0)) for decay in (1.2, 3.0))
    for noise in (rough, smooth):
        assert (noise.min(), noise.max()) == (0, 1)
    assert np.abs(np.diff(smooth)).mean() < np.abs(np.diff(rough)).mean() / 2


def test_an_unknown_kind_names_the_nearest():
    with named("unknown corruption 'gausian_noise': did you mean gaussian_noise"):
        corrupt(PHOTOS, "gausian_noise", 1)
