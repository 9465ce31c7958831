"""How close images are to others, pixel by pixel: PSNR and SSIM, and how far a translation is from its input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.base.errors import UserError
from rivals.metrics.feature_checks import to_double

WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian window, in pixels (Wang et al. 2004, sec. III-B)
K1, K2 = 0.01, 0.03
LEAST_ERROR = 1e-10  # of PSNR: equal images have 100 dB


def psnr(images: Tensor, targets: Tensor) -> Tensor:
    """The peak signal-to-noise ratio ``10 log10(1 / MSE)`` of each image, (B,), in dB; 100 for equal images.

    Args:
        images: (B, C, H, W) in [0, 1].
        targets: Likewise.

    Raises:
        UserError: the shapes differ.
    """
    _check(images, targets)
    error = (to_double(images) - to_double(targets)).square().flatten(1).mean(1)
    return -10 * error.clamp_min(LEAST_ERROR).log10()


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """The structural similarity (Wang et al. 2004, eq. 13) of each image, (B,), at most 1.

    With the paper's settings: a Gaussian window of 11 x 11 pixels with sigma 1.5 that is moved over all places where it
    fits, K1 = 0.01, K2 = 0.03, L = 1, population variances. Of color images it is the mean over the channels.

    Args:
        images: (B, C, H, W) in [0, 1].
        targets: Likewise.

    Raises:
        UserError: the shapes differ, or the images are smaller than the window.
    """
    _check(images, targets)
    if min(images.shape[2:]) < WINDOW:
        raise UserError(
            f"images of {images.shape[2]}x{images.shape[3]} have no SSIM: its window takes {WINDOW} pixels a side"
        )
    x, y = (to_double(each).flatten(0, 1)[:, None] for each in (images, targets))
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = (-0.5 * (offsets / SIGMA) ** 2).exp()
    weights = weights / weights.sum()

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(values, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    c1, c2 = K1**2, K2**2
    values = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    values = values / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return values.flatten(1).mean(1).view(len(images), -1).mean(1)


def relative_change(outputs: Tensor, inputs: Tensor, targets: Tensor) -> float:
    """How much a translation changes its inputs, by what there is to change: 0 for a copy, about 1 for other images.

    The mean absolute difference of outputs and inputs, divided by that of targets and inputs in this order; where all
    of these are equal, 0.

    Args:
        outputs: (B, C, H, W), the translated inputs.
        inputs: Likewise.
        targets: Any images to translate to, likewise; their number may differ.
    """
    n = min(len(inputs), len(targets))
    changed = (to_double(outputs) - to_double(inputs)).abs().mean()
    other = (to_double(targets[:n]) - to_double(inputs[:n])).abs().mean()
    return float(changed / other) if other > 0 else 0.0


def _check(images: Tensor, targets: Tensor) -> None:
    if images.shape != targets.shape or images.ndim != 4:
        raise UserError(
            f"images of shape {tuple(images.shape)} and targets of shape {tuple(targets.shape)} are no pairs: give "
            "(B, C, H, W) twice"
        )
