"""The Inception Score."""

from __future__ import annotations

import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.rng import generator
from rivals.metrics.feature_checks import Features, checked, to_double
from rivals.metrics.results import Estimate


def inception_score(
    probabilities: Features, splits: int = 10, *, logits: bool = False, seed: int | None = 0
) -> Estimate:
    """``exp(E_x KL(p(y|x) || p(y)))`` (Salimans et al. 2016, sec. 4), the mean over splits.

    From 1, if all predictions are the same, to the number of classes, if each is certain and all classes are equally
    frequent. It uses no real images. Published with Inception's 1008 classes, 50,000 images and 10 splits.

    Args:
        probabilities: (n, K), rows that sum to 1; or logits.
        splits: Parts of equal size (within 1 image), each with its own p(y).
        logits: Whether ``probabilities`` are logits.
        seed: Seed of the shuffle before splitting, as generated images are often sorted by class; None keeps the order.

    Returns:
        The mean and its standard error over splits (None with 1). The "±" in papers is the standard deviation over
        splits, which is ``sqrt(splits - 1)`` times that.

    Raises:
        UserError: fewer images than splits, or rows that are not probabilities.
    """
    if splits < 1:
        raise UserError(f"{splits} splits: take 1 or more, such as the paper's 10")
    p = to_double(checked(probabilities, "probability", splits, f"1 or more for each of {splits} splits"))
    if logits:
        p = p.softmax(1)
    elif bool((p < 0).any()) or not torch.allclose(p.sum(1), p.new_ones(()), atol=1e-2):
        raise UserError(
            "a row is negative or does not sum to 1, so it is not a distribution: pass logits=True for logits"
        )
    n = len(p)
    if seed is not None:
        p = p[torch.randperm(n, generator=generator(seed, "splits")).to(p.device)]
    scores = torch.stack([_score(p[i * n // splits : (i + 1) * n // splits]) for i in range(splits)])
    error = float(scores.std()) / splits**0.5 if splits > 1 else None
    return Estimate(float(scores.mean()), error)


def _score(p: Tensor) -> Tensor:
    """Score of one split (n, K); xlogy takes 0 log 0 as 0."""
    marginal = p.mean(0)
    return (torch.xlogy(p, p) - torch.xlogy(p, marginal)).sum(1).mean().exp()
