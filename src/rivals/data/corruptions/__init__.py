"""The 15 common corruptions of Hendrycks & Dietterich (2019), in 5 severities, made on this machine.

Parameters are those of ImageNet-C for images above 64 pixels, and those of CIFAR-10-C for smaller ones. All follow
their definitions; only frost, which pastes photographs there, is a synthetic texture here (:func:`weather.frost`), so
numbers for frost, and means over all 15, are near but not comparable to published ones. For those there are
CIFAR-10-C's own files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rivals.base.registry import Registry
from rivals.base.rng import derive
from rivals.data.corruptions import blur, digital, noise, weather

Image = npt.NDArray[Any]
Corruption = Callable[[Image, Any, np.random.Generator], Image]

SMALL = 64  # images up to this side are corrupted as CIFAR-10-C's
SEVERITIES = (1, 2, 3, 4, 5)


# kind: (function of an image in [0, 1] (H, W, C), ImageNet-C's parameters by severity, CIFAR-10-C's)
KINDS: Registry[tuple[Corruption, tuple[Any, ...], tuple[Any, ...]]] = Registry(
    "corruption",
    {
        "gaussian_noise": (noise.gaussian, (0.08, 0.12, 0.18, 0.26, 0.38), (0.04, 0.06, 0.08, 0.09, 0.10)),
        "shot_noise": (noise.shot, (60, 25, 12, 5, 3), (500, 250, 100, 75, 50)),
        "impulse_noise": (noise.impulse, (0.03, 0.06, 0.09, 0.17, 0.27), (0.01, 0.02, 0.03, 0.05, 0.07)),
        "defocus_blur": (
            blur.defocus,
            ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
            ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ),
        "glass_blur": (
            blur.glass,
            ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
            ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ),
        "motion_blur": (
            blur.motion,
            ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
            ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ),
        "zoom_blur": (
            blur.zoom,
            ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
            ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        ),
        "snow": (
            weather.snow,
            (
                (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
                (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
                (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
            ),
            (
                (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
                (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
                (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
                (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
            ),
        ),
        "frost": (
            weather.frost,
            ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
            ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ),
        "fog": (
            weather.fog,
            ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
            ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ),
        "brightness": (digital.brightness, (0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.15, 0.2, 0.3)),
        "contrast": (digital.contrast, (0.4, 0.3, 0.2, 0.1, 0.05), (0.75, 0.5, 0.4, 0.3, 0.15)),
        "elastic_transform": (
            digital.elastic,
            ((488, 170.8, 24.4), (488, 19.52, 48.8), (12.2, 2.44, 4.88), (17.08, 2.44, 4.88), (29.28, 2.44, 4.88)),
            ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
        ),
        "pixelate": (digital.pixelate, (0.6, 0.5, 0.4, 0.3, 0.25), (0.95, 0.9, 0.85, 0.75, 0.65)),
        "jpeg_compression": (digital.jpeg, (25, 18, 15, 10, 7), (80, 65, 58, 50, 40)),
    },
)


def corrupt(images: npt.NDArray[np.uint8], kind: str, severity: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Images with a corruption. Each has its own random stream, from the seed and its values.

    Args:
        images: uint8 (n, C, H, W), of 1 or 3 channels.
        kind: One of :data:`KINDS`.
        severity: 1 to 5.
        seed: Of everything random.

    Returns:
        uint8, of the same shape.

    Raises:
        UserError: there is no such corruption.
    """
    function, large, small = KINDS[kind]
    parameters = (small if max(images.shape[2:]) <= SMALL else large)[severity - 1]
    made = np.empty_like(images)
    for index, image in enumerate(images):
        random = np.random.default_rng(derive(seed, kind, severity, image.tobytes().hex()))
        pixels = image.transpose(1, 2, 0).astype(np.float64) / 255
        corrupted = np.clip(function(pixels, parameters, random), 0, 1)
        made[index] = (corrupted * 255).astype(np.uint8).transpose(2, 0, 1)  # cut off, as the authors do
    return made
