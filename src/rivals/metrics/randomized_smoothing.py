"""Randomised smoothing: a radius in L2 within which a classifier that answers under noise provably keeps its answer.

The smoothed classifier says what the base classifier says most often of an image under normal noise of deviation
sigma. If its most frequent answer has probability ``p > 1/2``, no change shorter than ``sigma * Phi^-1(p)`` alters it
(Cohen et al. 2019, theorem 1 with its second class bounded by ``1 - p``). p is bounded from below by counting, so each
certificate is wrong with a probability of at most ``alpha``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.seeds import streams

Answer = Callable[[Tensor], Tensor]
ABSTAINS = -1
_BLOCK = 100


@dataclass(frozen=True)
class Certificate:
    """What is certain of one image.

    Attributes:
        label: What the smoothed classifier says; ``ABSTAINS`` where the counts do not tell.
        radius: No change of this length in L2 or less alters it; 0 where it abstains.
        count: How often the base classifier said ``label``, or its first guess at it.
        samples: Of how many draws.
    """

    label: int
    radius: float
    count: int
    samples: int


def lower_bound(count: int, samples: int, alpha: float) -> float:
    """The one-sided lower bound of Clopper & Pearson (1934) on a probability, exact at confidence ``1 - alpha``.

    The p at which ``count`` successes or more in ``samples`` draws have the probability ``alpha``; 0 of no success.
    """
    from scipy.stats import beta

    return float(beta.ppf(alpha, count, samples - count + 1)) if count else 0.0


def radius(count: int, samples: int, sigma: float, alpha: float) -> float:
    """``sigma * Phi^-1(p)`` for the lower bound p on the probability of an answer; 0 if that is not above 1/2."""
    from scipy.stats import norm

    bound = lower_bound(count, samples, alpha)
    return sigma * float(norm.ppf(bound)) if bound > 0.5 else 0.0


def needed(alpha: float) -> int:
    """The fewest draws that can certify anything: if all of them agree, ``alpha^(1/N)`` must be above 1/2."""
    return math.floor(-math.log2(alpha)) + 1


def votes(
    answer: Answer, image: Tensor, sigma: float, draws: int, generator: torch.Generator, batch_size: int = 1000
) -> Tensor:
    """How often the base classifier says each class (K,) of one image (...) under ``draws`` draws of noise.

    Noise is drawn in blocks of one size, so that it does not depend on the size of the batch.
    """
    found = torch.zeros(0, dtype=torch.long)
    stride = max(1, batch_size // _BLOCK)
    for first in range(0, -(-draws // _BLOCK), stride):
        blocks = min(stride, -(-draws // _BLOCK) - first)
        drawn = [torch.randn((_BLOCK, *image.shape), generator=generator, dtype=image.dtype) for _ in range(blocks)]
        for noise in torch.split(torch.cat(drawn)[: draws - first * _BLOCK], batch_size):
            said = answer(image + sigma * noise.to(image.device))
            tally = torch.bincount(said.argmax(1).cpu(), minlength=said.shape[1])
            found = tally if not len(found) else found + tally
    return found


def outvoted(tally: Tensor, label: int, alpha: float) -> bool:
    """Whether counts (K,) show that another class than ``label`` is the smoothed classifier's answer.

    The sign test of PREDICT (Cohen et al. 2019): were ``label`` the most frequent answer, the best other class would
    lead it by so much with a probability of at most ``alpha`` (Hung & Fithian 2019).
    """
    from scipy.stats import binom

    others = tally.clone()
    others[label] = -1
    lead, own = int(others.max()), int(tally[label])
    return lead > own and 2 * float(binom.sf(lead - 1, lead + own, 0.5)) <= alpha


def certify(
    answer: Answer,
    x: Tensor,
    sigma: float,
    *,
    guesses: int = 100,
    samples: int = 10_000,
    alpha: float = 0.001,
    seed: int = 0,
    batch_size: int = 1000,
) -> Iterator[Certificate]:
    """Certify images one after the other (Cohen et al. 2019, CERTIFY).

    ``guesses`` draws choose the class, ``samples`` others bound its probability: were they the same, the bound would
    not hold. Each image has a random stream of its own, made of the seed and its values.

    Args:
        answer: The base classifier: images (m, ...) to logits (m, K), without a graph. Noisy images leave [0, 1], as
            they do in the classifier's training under noise.
        x: Images (n, ...) in [0, 1].
        sigma: The deviation of the noise, in the unit of the images.
        guesses: N0 of the paper.
        samples: N of the paper. The largest radius that can be had is ``sigma * Phi^-1(alpha^(1/N))``.
        alpha: The probability with which a certificate may be wrong.
        seed: Of the noise.
        batch_size: The most images in one pass.

    Yields:
        A certificate for each image.

    Raises:
        UserError: numbers that certify nothing.
    """
    if not sigma > 0:
        raise UserError(f"a sigma of {sigma:g} smooths nothing: give the noise's deviation, above 0, as 0.25")
    if not 0 < alpha < 0.5:
        raise UserError(f"an alpha of {alpha:g} certifies nothing: take a small probability, as 0.001")
    if guesses < 1 or samples < 1 or batch_size < 1:
        raise UserError(f"{guesses} guesses and {samples} samples by {batch_size}: take 1 or more of each")

    for image, generator in zip(x, streams(x, [0] * len(x), seed, "certify"), strict=True):
        label = int(votes(answer, image, sigma, guesses, generator, batch_size).argmax())
        count = int(votes(answer, image, sigma, samples, generator, batch_size)[label])
        reach = radius(count, samples, sigma, alpha)
        yield Certificate(label if reach else ABSTAINS, reach, count, samples)
