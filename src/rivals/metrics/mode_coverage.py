"""Mode coverage: how many of the known modes of the data a generator produces, and in what proportions.

For unknown modes see :mod:`rivals.metrics.ndb` and :mod:`rivals.metrics.support_size`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.rng import derive, generator
from rivals.metrics.entropy import entropy

FLOOR_SAMPLES = 200  # simulated perfect generators


@dataclass(frozen=True)
class ModeCount:
    """Modes among n generated images.

    Attributes:
        found: Modes with at least one image.
        of: Modes of the data.
        kl: ``KL(generated || target)`` of the shares of the modes, in nats, not corrected for bias.
        floor: Mean of ``kl`` for a perfect generator with as many images.
        floor_std: Its standard deviation.
        n: Images.
    """

    found: int
    of: int
    kl: float
    floor: float
    floor_std: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def count_modes(labels: Tensor, modes: int, target: Tensor | None = None, *, seed: int = 0) -> ModeCount:
    """Count the modes that were generated, and compare their shares with the target.

    With 1,000 modes and 26,000 images (stacked MNIST; Metz et al. 2017, Lin et al. 2018) a perfect generator has a
    divergence of about ``(modes - 1) / 2n = 0.019``, never 0. So the floor is reported too.

    Args:
        labels: The mode of each image (n,), integers from 0; -1 for images of no mode, which the shares leave out.
        modes: Modes of the data.
        target: Their shares (modes,), above 0; uniform by default.
        seed: Seed of the simulation of the floor.

    Raises:
        UserError: no image belongs to a mode, a label is out of range, or the shares do not fit.
    """
    labels = labels.cpu()
    valid = labels[labels >= 0]
    if not len(valid):
        raise UserError("no image belongs to a mode, so there is nothing to count: give a label of 0 or more")
    if int(labels.max()) >= modes or int(labels.min()) < -1:
        raise UserError(f"a label is outside -1 to {modes - 1}: give the mode of each image")
    shares = torch.full((modes,), 1 / modes, dtype=torch.float64) if target is None else target.cpu().double()
    if shares.shape != (modes,) or not bool((shares > 0).all()):
        raise UserError(f"target shares of shape {tuple(shares.shape)} do not fit: give {modes} numbers above 0")
    shares = shares / shares.sum()
    counts = torch.bincount(valid, minlength=modes)
    random = np.random.default_rng(derive(seed, "modes"))
    floor = _divergence(torch.from_numpy(random.multinomial(len(valid), shares.numpy(), FLOOR_SAMPLES)), shares)
    divergence = float(_divergence(counts[None], shares))
    return ModeCount(int((counts > 0).sum()), modes, divergence, float(floor.mean()), float(floor.std()), len(labels))


def _divergence(counts: Tensor, target: Tensor) -> Tensor:
    """``KL(shares || target)`` of each row of counts (m, modes): (m,)."""
    shares = counts.double() / counts.sum(1, keepdim=True)
    divergence: Tensor = torch.special.xlogy(shares, shares / target).sum(1)
    return divergence


def stacked_labels(digits: Tensor) -> Tensor:
    """The modes (n,), 0 to 999, of stacked digits (n, 3), read as a decimal number."""
    return (digits.long() * torch.tensor([100, 10, 1], device=digits.device)).sum(1)


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians with equal weights and one standard deviation.

    Attributes:
        centers: (modes, d).
        std: Standard deviation of each Gaussian.
    """

    centers: Tensor
    std: float

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """Points (n, d), float32."""
        source = generator(seed, "mixture")
        chosen = torch.randint(len(self.centers), (n,), generator=source)
        return self.centers[chosen] + self.std * torch.randn(n, self.centers.shape[1], generator=source)


def ring(modes: int = 8, radius: float = 2.0, std: float = 0.02) -> Mixture:
    """Gaussians on a circle (Metz et al. 2017: 8 of standard deviation 0.02 on radius 2)."""
    angles = torch.arange(modes) * (2 * math.pi / modes)
    return Mixture(radius * torch.stack([angles.cos(), angles.sin()], 1), std)


def square(side: int = 5, spacing: float = 2.0, std: float = 0.05) -> Mixture:
    """Gaussians on a square grid (Srivastava et al. 2017: 5 x 5 from -4 to 4, standard deviation 0.05)."""
    line = (torch.arange(side) - (side - 1) / 2) * spacing
    return Mixture(torch.cartesian_prod(line, line), std)


def count_mixture_modes(
    points: Tensor, mixture: Mixture, *, seed: int = 0, max_std: float = 3.0
) -> tuple[ModeCount, float]:
    """Modes of a mixture among points (n, d), and the share of high-quality points.

    A point is of high quality if it is within ``max_std`` standard deviations of a center; only those count for the
    modes (Srivastava et al. 2017, sec. 4).

    Raises:
        UserError: no point is of high quality, or the points have another dimension.
    """
    if points.ndim != 2 or points.shape[1] != mixture.centers.shape[1]:
        raise UserError(f"points of shape {tuple(points.shape)} do not fit: give (n, {mixture.centers.shape[1]})")
    distances = torch.cdist(points.double(), mixture.centers.to(points.device).double())
    nearest, mode = distances.min(1)
    high_quality = nearest <= max_std * mixture.std
    modes = count_modes(mode.where(high_quality, -1), len(mixture.centers), seed=seed)
    return modes, float(high_quality.double().mean())


def label_entropy(probabilities: Tensor) -> tuple[float, float]:
    """``H(y)`` and ``H(y | x)`` in nats, from a classifier's probabilities (n, C) for n images.

    The first is the entropy of the mean prediction: class diversity, up to log C. The second is the mean entropy of a
    prediction: 0 if the classifier is certain of every image. Their difference is the logarithm of the Inception Score
    (Salimans et al. 2016, sec. 4).

    Raises:
        UserError: a row is not a distribution.
    """
    if probabilities.ndim != 2 or not len(probabilities):
        raise UserError(
            f"probabilities of shape {tuple(probabilities.shape)} do not fit: give (n, C), for 1 image or more"
        )
    p = probabilities.double()
    return float(entropy(p.mean(0))), float(entropy(p).mean())
