"""The Inception Score: how sure a classifier is of each image, and how evenly it uses its classes."""

from __future__ import annotations

import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.seeds import generator
from rivals.metrics.estimate import Estimate
from rivals.metrics.features import Features, checked, wide


def inception_score(
    probabilities: Features, splits: int = 10, *, logits: bool = False, seed: int | None = 0
) -> Estimate:
    """``exp(E_x KL(p(y|x) || p(y)))`` (Salimans et al. 2016, sec. 4), the mean over splits.

    1 where the classifier says the same of all images, the number of its classes where it is sure of each and all are
    as frequent. It sees no real image. Published for Inception's 1008 classes, 50,000 images and 10 splits.

    Args:
        probabilities: (n, K), rows that sum to 1; or logits.
        splits: In how many parts, of one size within 1, the images are scored; each has a p(y) of its own.
        logits: ``probabilities`` are logits: a softmax is due.
        seed: Of the order in which images go to the splits, since generated ones often come sorted by class; None
            keeps theirs.

    Returns:
        The mean and its standard error over splits (None with 1). The papers' "±" is the splits' deviation, which
        is ``sqrt(splits - 1)`` times that.

    Raises:
        UserError: fewer images than splits, or rows that are no probabilities.
    """
    if splits < 1:
        raise UserError(f"{splits} splits: take 1 or more, the papers' 10")
    answers = wide(checked(probabilities, "probability", splits, f"1 or more for each of {splits} splits"))
    if logits:
        answers = answers.softmax(1)
    elif bool((answers < 0).any()) or not torch.allclose(answers.sum(1), answers.new_ones(()), atol=1e-2):
        raise UserError("rows that do not sum to 1, or are negative, are no probabilities: pass logits=True for logits")
    n = len(answers)
    if seed is not None:
        answers = answers[torch.randperm(n, generator=generator(seed, "splits")).to(answers.device)]
    scores = torch.stack([_score(answers[i * n // splits : (i + 1) * n // splits]) for i in range(splits)])
    error = float(scores.std()) / splits**0.5 if splits > 1 else None
    return Estimate(float(scores.mean()), error)


def _score(p: Tensor) -> Tensor:
    """Of probabilities (n, K); a probability of 0 adds nothing."""
    marginal = p.mean(0)
    return (torch.xlogy(p, p) - torch.xlogy(p, marginal)).sum(1).mean().exp()
