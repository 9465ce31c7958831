"""Modes: how many of the kinds that the data have does a generator draw, and in what shares?

Where the kinds are known (digits, stacked digits, Gaussians on a ring), they are counted. Where they are not, the space
is cut into bins that real images fill evenly (NDB), or twins are counted as at a birthday party (support size).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.seeds import derive, generator
from rivals.metrics.entropy import entropy, jsd

FLOOR_DRAWS = 200  # of the perfect generator's divergence
BLOCK = 2048  # points whose distances to all others are held at a time


@dataclass(frozen=True)
class ModeCount:
    """The modes among n images whose kinds are known.

    Attributes:
        found: How many modes were drawn at least once.
        of: How many there are.
        kl: ``KL(drawn || wanted)`` in nats, of the shares as counted.
        floor: The mean of ``kl`` for a perfect generator that draws as many images: what is left is chance.
        floor_error: The standard deviation of that.
        n: Images.
    """

    found: int
    of: int
    kl: float
    floor: float
    floor_error: float
    n: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def count_modes(labels: Tensor, modes: int, wanted: Tensor | None = None, *, seed: int = 0) -> ModeCount:
    """Count the modes that were drawn, and how far their shares are from the wanted ones.

    With 1,000 modes and 26,000 images (stacked MNIST; Metz et al. 2017, Lin et al. 2018) a perfect generator has a
    divergence of about ``(modes - 1) / 2n = 0.019``, never 0. So the divergence is told beside that floor.

    Args:
        labels: The mode of each image, (n,), whole numbers from 0; -1 for an image that belongs to none, which is left
            out of the shares.
        modes: How many modes there are.
        wanted: Their shares, (modes,), above 0; all alike if none are given.
        seed: Of the draws that the floor is worked out with.

    Raises:
        UserError: no image belongs to a mode, a label is out of range, or the shares do not fit.
    """
    labels = labels.cpu()
    kept = labels[labels >= 0]
    if not len(kept):
        raise UserError("no image belongs to any mode, so there is nothing to count")
    if int(labels.max()) >= modes or int(labels.min()) < -1:
        raise UserError(f"a label is outside -1 to {modes - 1}: give the mode of each image")
    shares = torch.full((modes,), 1 / modes, dtype=torch.float64) if wanted is None else wanted.cpu().double()
    if shares.shape != (modes,) or not bool((shares > 0).all()):
        raise UserError(f"wanted shares of shape {tuple(shares.shape)} do not fit: give {modes} numbers above 0")
    shares = shares / shares.sum()
    counts = torch.bincount(kept, minlength=modes)
    random = np.random.default_rng(derive(seed, "modes"))
    chance = _divergence(torch.from_numpy(random.multinomial(len(kept), shares.numpy(), FLOOR_DRAWS)), shares)
    divergence = float(_divergence(counts[None], shares))
    return ModeCount(int((counts > 0).sum()), modes, divergence, float(chance.mean()), float(chance.std()), len(labels))


def _divergence(counts: Tensor, wanted: Tensor) -> Tensor:
    """KL of each row of counts (m, modes), as shares, from the wanted ones."""
    drawn = counts.double() / counts.sum(1, keepdim=True)
    divergence: Tensor = torch.special.xlogy(drawn, drawn / wanted).sum(1)
    return divergence


def stacked_labels(digits: Tensor) -> Tensor:
    """The modes (n,), 0 to 999, of stacked digits (n, 3): 100 times the first and so on, as one reads them."""
    return (digits.long() * torch.tensor([100, 10, 1], device=digits.device)).sum(1)


@dataclass(frozen=True)
class Mixture:
    """Normal clouds of one size around known centres: the classic data to see modes dropped on.

    Attributes:
        centres: (modes, d).
        std: The standard deviation of each cloud.
    """

    centres: Tensor
    std: float

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """Points (n, d), float32, each of a cloud chosen at random."""
        source = generator(seed, "mixture")
        chosen = torch.randint(len(self.centres), (n,), generator=source)
        return self.centres[chosen] + self.std * torch.randn(n, self.centres.shape[1], generator=source)


def ring(modes: int = 8, radius: float = 2.0, std: float = 0.02) -> Mixture:
    """Clouds on a circle (Metz et al. 2017: 8 of deviation 0.02 on radius 2)."""
    angles = torch.arange(modes) * (2 * math.pi / modes)
    return Mixture(radius * torch.stack([angles.cos(), angles.sin()], 1), std)


def square(side: int = 5, spacing: float = 2.0, std: float = 0.05) -> Mixture:
    """Clouds on a square grid around 0 (Srivastava et al. 2017: 5 x 5 from -4 to 4, deviation 0.05)."""
    line = (torch.arange(side) - (side - 1) / 2) * spacing
    return Mixture(torch.cartesian_prod(line, line), std)


def judge_points(points: Tensor, mixture: Mixture, *, seed: int = 0, reach: float = 3.0) -> tuple[ModeCount, float]:
    """The modes among points (n, d), and the share of them that are good: within ``reach`` deviations of a centre.

    A mode counts as found if one good point at least is nearest to its centre, and the shares are those of good
    points (Srivastava et al. 2017, sec. 4).

    Raises:
        UserError: no point is good, or the points are of another dimension.
    """
    if points.ndim != 2 or points.shape[1] != mixture.centres.shape[1]:
        raise UserError(f"points of shape {tuple(points.shape)} do not fit: give (n, {mixture.centres.shape[1]})")
    distances = torch.cdist(points.double(), mixture.centres.to(points.device).double())
    nearest, mode = distances.min(1)
    good = nearest <= reach * mixture.std
    return count_modes(mode.where(good, -1), len(mixture.centres), seed=seed), float(good.double().mean())


def label_entropy(probabilities: Tensor) -> tuple[float, float]:
    """What a classifier's answers (n, C) tell of n images, in nats: ``H(y)`` and ``H(y | x)``.

    The first is the entropy of the mean answer: how varied the images are as a whole, up to log C. The second is the
    mean entropy of an answer: how unsure the classifier is of a single image, 0 for sharp ones. Their difference is the
    logarithm of the Inception Score (Salimans et al. 2016, sec. 4).

    Raises:
        UserError: the answers are no distributions.
    """
    if probabilities.ndim != 2 or not len(probabilities):
        raise UserError(f"answers of shape {tuple(probabilities.shape)} do not fit: give (n, C), for 1 image or more")
    answers = probabilities.double()
    return float(entropy(answers.mean(0))), float(entropy(answers).mean())


@dataclass(frozen=True)
class Bins:
    """Number of statistically different bins (Richardson & Weiss 2018).

    Attributes:
        different: Bins whose shares of real and of generated points differ significantly.
        of: Bins.
        chance: How many would at a level of 5 %, were the two alike.
        jsd: Jensen-Shannon divergence of the two histograms, in nats.
    """

    different: int
    of: int
    chance: float
    jsd: float


def ndb(train: Tensor, points: Tensor, *, bins: int = 100, alpha: float = 0.05, seed: int = 0) -> Bins:
    """Cut the space into bins by k-means of real points, and count those that generated points fill otherwise.

    A two-proportion z-test of each bin with a pooled deviation (Richardson & Weiss 2018, sec. 3). As the bins are made
    from the training points, held-out real points come out a little above ``chance`` too: tell theirs beside it.

    Args:
        train: Real points (n, d): pixels, or features.
        points: Generated points (m, d).
        bins: How many.
        alpha: The level of each test.
        seed: Of the first centres.

    Raises:
        UserError: fewer real points than bins, no generated ones, or different dimensions.
    """
    if train.ndim != 2 or points.ndim != 2 or train.shape[1] != points.shape[1]:
        raise UserError(
            f"points of shapes {tuple(train.shape)} and {tuple(points.shape)} do not fit: give (n, d) twice"
        )
    if len(train) < bins or not len(points):
        raise UserError(f"{len(train)} real and {len(points)} generated points cannot fill {bins} bins: give more")
    from scipy.stats import norm

    centres = kmeans(train, bins, seed=seed)
    mine, theirs = (
        torch.bincount(nearest_centre(each, centres), minlength=bins).double().cpu() for each in (train, points)
    )
    p, q = mine / len(train), theirs / len(points)
    pooled = (mine + theirs) / (len(train) + len(points))
    error = (pooled * (1 - pooled) * (1 / len(train) + 1 / len(points))).sqrt()
    z = torch.where(error > 0, (p - q) / error, torch.zeros_like(p))
    different = int((z.abs() > float(norm.ppf(1 - alpha / 2))).sum())
    return Bins(different, bins, alpha * bins, float(jsd(p, q)))


def kmeans(points: Tensor, count: int, *, seed: int = 0, rounds: int = 50) -> Tensor:
    """Centres (count, d) of points (n, d): k-means++ (Arthur & Vassilvitskii 2007), then Lloyd's rounds until still."""
    x, source = points.float(), generator(seed, "kmeans")
    first = int(torch.randint(len(x), (1,), generator=source))
    centres = [x[first]]
    far = torch.full((len(x),), math.inf, device=x.device)
    for _ in range(count - 1):
        far = torch.minimum(far, (x - centres[-1]).square().sum(1))
        # Chosen with a probability that grows with the distance to the nearest centre; anywhere, if all are at one.
        odds = (far if bool(far.any()) else torch.ones_like(far)).double().cumsum(0).cpu()
        dice = torch.rand(1, generator=source, dtype=torch.float64) * odds[-1]
        centres.append(x[min(int(torch.searchsorted(odds, dice, right=True)), len(x) - 1)])
    middle = torch.stack(centres)
    for _ in range(rounds):
        chosen = nearest_centre(x, middle)
        sums = torch.zeros_like(middle).index_add_(0, chosen, x)
        sizes = torch.bincount(chosen, minlength=count)[:, None]
        moved = torch.where(sizes > 0, sums / sizes.clamp_min(1), middle)
        still = torch.equal(moved, middle)
        middle = moved
        if still:
            break
    return middle


def nearest_centre(points: Tensor, centres: Tensor) -> Tensor:
    """Which centre (k, d) is nearest to each point (n, d): (n,)."""
    return torch.cat([torch.cdist(block.float(), centres).argmin(1) for block in torch.split(points, BLOCK)])


@dataclass(frozen=True)
class Support:
    """How many different images a generator draws, from how often it repeats itself.

    Attributes:
        value: The effective number of images; infinite where no two were twins.
        low: Its 95 % interval, exact for counts of rare events (Garwood 1936).
        high: Likewise.
        twins: Pairs of twins that were found.
        pairs: Of how many pairs.
        party: So many images hold twins with a probability of about one half: what one tests by eye.
        threshold: The distance below which two images are twins.
    """

    value: float
    low: float
    high: float
    twins: int
    pairs: int
    party: float
    threshold: float


def support_size(points: Tensor, threshold: float) -> Support:
    """The birthday paradox turned round (Arora & Zhang 2017): twins among s images mean about s^2 different ones.

    The paper draws batches until one of two holds twins. Here all pairs are counted: two images are twins with
    probability ``1 / value``, where a generator that draws one of N images evenly has value N. Where it does not draw
    evenly, the value counts the frequent ones only, so it is from below.

    Args:
        points: Images as points (n, d), in whatever space nearness means sameness to the eye.
        threshold: Twins are at most so far apart; :func:`twin_distance` finds a value from real images.

    Raises:
        UserError: fewer than two points.
    """
    if points.ndim != 2 or len(points) < 2:
        raise UserError(f"points of shape {tuple(points.shape)} have no pairs: give (n, d), 2 or more")
    from scipy.stats import chi2

    twins = sum(int((block <= threshold).sum()) for block in _pair_distances(points))
    pairs = len(points) * (len(points) - 1) // 2
    least = float(chi2.ppf(0.025, 2 * twins)) / 2 if twins else 0.0
    most = float(chi2.ppf(0.975, 2 * twins + 2)) / 2
    value = pairs / twins if twins else math.inf
    # The chance that s images hold no twins is about exp(-s^2 / 2 value).
    party = math.sqrt(2 * math.log(2) * value)
    return Support(value, pairs / most, pairs / least if least else math.inf, twins, pairs, party, threshold)


def twin_distance(real: Tensor) -> float:
    """The distance of the nearest two among real points (n, d): images nearer than that are nearer than data ever are.

    Raises:
        UserError: two of them are the same, or there are fewer than two.
    """
    if real.ndim != 2 or len(real) < 2:
        raise UserError(f"points of shape {tuple(real.shape)} have no pairs: give (n, d), 2 or more")
    nearest = min(float(block.min()) for block in _pair_distances(real) if block.numel())
    if nearest == 0:
        raise UserError("the real images hold copies of one another, so twins mean nothing: leave copies out first")
    return nearest


def _pair_distances(points: Tensor) -> Any:
    """The distances of all pairs, each once, in blocks (k,)."""
    x = points.float()
    for start in range(0, len(x), BLOCK):
        block = x[start : start + BLOCK]
        # Exact: by products of matrices the distance of twins would drown in rounding.
        distances = torch.cdist(block, x[start:], compute_mode="donot_use_mm_for_euclid_dist")
        later = torch.ones_like(distances, dtype=torch.bool).triu(1)
        yield distances[later]
