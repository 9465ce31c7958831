"""Randomized smoothing (Cohen et al. 2019): certified L2 radii of a classifier under Gaussian noise.

The smoothed classifier ``g(x)`` predicts the class that the base classifier ``f(x + noise)`` predicts most often, for
noise of standard deviation sigma. If that class has probability ``p > 1/2``, no perturbation with an L2 norm below
``sigma * Phi^-1(p)`` changes the prediction (theorem 1, with the second class bounded by ``1 - p``). p is bounded from
below by sampling, so each certificate is wrong with probability alpha at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.images_under_noise import images_under_noise
from rivals.base.rng import on_device, streams

LogitsFn = Callable[[Tensor], Tensor]
ABSTAIN = -1
_BLOCK = 100  # noise samples drawn at a time


@dataclass(frozen=True)
class Certificate:
    """The certificate of one image.

    Attributes:
        label: The prediction of the smoothed classifier; ``ABSTAIN`` if the samples do not determine it.
        radius: L2 radius within which the prediction is constant; 0 if it abstains.
        count: How often the base classifier predicted ``label``, or the guess if it abstains.
        samples: Of how many noise samples.
    """

    label: int
    radius: float
    count: int
    samples: int


def lower_confidence_bound(count: int, samples: int, alpha: float) -> float:
    """One-sided lower bound on a probability, exact at confidence ``1 - alpha`` (Clopper & Pearson 1934).

    The p at which ``count`` or more successes in ``samples`` trials have probability ``alpha``; 0 without a success.
    """
    from scipy.stats import beta

    return float(beta.ppf(alpha, count, samples - count + 1)) if count else 0.0


def certified_radius(count: int, samples: int, sigma: float, alpha: float) -> float:
    """``sigma * Phi^-1(p)`` for the lower bound p on the probability of the prediction; 0 if p is not above 1/2."""
    from scipy.stats import norm

    p = lower_confidence_bound(count, samples, alpha)
    return sigma * float(norm.ppf(p)) if p > 0.5 else 0.0


def min_samples(alpha: float) -> int:
    """The fewest samples that certify anything: if all agree, the bound ``alpha^(1/n)`` must exceed 1/2."""
    return math.floor(-math.log2(alpha)) + 1


def sample_under_noise(
    model: LogitsFn, image: Tensor, sigma: float, samples: int, generator: torch.Generator, batch_size: int = 1000
) -> Tensor:
    """How often the base classifier predicts each class (K,) of one image (...) with added noise (SAMPLEUNDERNOISE).

    Noise is drawn in blocks of one size, so that it does not depend on the batch size; on the image's device, which
    must be that of the generator. Nothing is copied to the host.
    """
    counts = torch.zeros((), dtype=torch.long, device=image.device)
    stride = max(1, batch_size // _BLOCK)
    for first in range(0, -(-samples // _BLOCK), stride):
        blocks = min(stride, -(-samples // _BLOCK) - first)
        how: dict[str, Any] = {"generator": generator, "dtype": image.dtype, "device": image.device}
        drawn = [torch.randn((_BLOCK, *image.shape), **how) for _ in range(blocks)]
        for noise in torch.split(torch.cat(drawn)[: samples - first * _BLOCK], batch_size):
            with images_under_noise():
                logits = model(image + sigma * noise)
            classes = torch.arange(logits.shape[1], device=image.device)
            counts = counts + (logits.argmax(1, keepdim=True) == classes).sum(0)
    return counts


def outvoted(counts: Tensor, label: int, alpha: float) -> bool:
    """Whether counts (K,) show, at level ``alpha``, that the smoothed classifier does not predict ``label``.

    The two-sided sign test of PREDICT on the two top classes: were ``label`` the most frequent class, another would
    lead it by so much with probability ``alpha`` at most (Hung & Fithian 2019).
    """
    from scipy.stats import binom

    others = counts.clone()
    others[label] = -1
    top, own = int(others.max()), int(counts[label])
    return top > own and 2 * float(binom.sf(top - 1, top + own, 0.5)) <= alpha


def certify(
    model: LogitsFn,
    x: Tensor,
    sigma: float,
    *,
    guesses: int = 100,
    samples: int = 10_000,
    alpha: float = 0.001,
    seed: int = 0,
    batch_size: int = 1000,
) -> Iterator[Certificate]:
    """Certify one image after the other (CERTIFY).

    Each image has a random stream of its own, derived from the seed and its pixels, and drawn on its device: on a GPU
    the numbers are others than on the CPU.

    Args:
        model: The base classifier: images (m, ...) to logits (m, K), without a graph. Noisy images are not clipped to
            [0, 1], as in training with noise.
        x: Images (n, ...) in [0, 1].
        sigma: Standard deviation of the noise, in the unit of the images.
        guesses: n0 of the paper: samples that choose the class.
        samples: n of the paper: samples that bound its probability. The largest possible radius is
            ``sigma * Phi^-1(alpha^(1/n))``.
        alpha: Probability that a certificate is wrong.
        seed: Seed of the noise.
        batch_size: Images in one forward pass at most.

    Yields:
        A certificate for each image.

    Raises:
        UserError: an option is out of range.
    """
    if not sigma > 0:
        raise UserError(f"a sigma of {sigma:g} adds no noise: give a standard deviation above 0, such as 0.25")
    if not 0 < alpha < 0.5:
        raise UserError(f"an alpha of {alpha:g} certifies nothing: take a small probability, such as 0.001")
    if guesses < 1 or samples < 1 or batch_size < 1:
        raise UserError(f"{guesses} guesses and {samples} samples by {batch_size}: take 1 or more of each")

    for image, source in zip(x, streams(x, [0] * len(x), seed, "certify"), strict=True):
        generator = on_device(source, image.device)
        # Two independent sets of samples: the bound does not hold for a class chosen by the same samples.
        guess = int(sample_under_noise(model, image, sigma, guesses, generator, batch_size).argmax())
        count = int(sample_under_noise(model, image, sigma, samples, generator, batch_size)[guess])
        radius = certified_radius(count, samples, sigma, alpha)
        yield Certificate(guess if radius else ABSTAIN, radius, count, samples)
