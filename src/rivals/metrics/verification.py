"""Checks adversarial examples outside the attack: no success that an attack claims is taken on trust."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rivals.base.norm_balls import Ball

LogitsFn = Callable[[Tensor], Tensor]
"""Images (n, ...) to logits (n, K), without a graph."""


def predict(model: LogitsFn, x: Tensor, *, batch_size: int, votes: int = 1) -> tuple[Tensor, Tensor]:
    """Predictions (n,) by a majority of forward passes, and the mean logits (n, K).

    Args:
        model: Images to logits.
        x: Images (n, ...), n of 1 or more.
        batch_size: Images in one forward pass at most.
        votes: Forward passes of each image. More than 1 only makes sense for a randomized model.
    """
    predictions, means = [], []
    for batch in torch.split(x, batch_size):
        logits = torch.stack([model(batch) for _ in range(votes)])
        counts = torch.nn.functional.one_hot(logits.argmax(2), logits.shape[2]).sum(0)
        means.append(logits.mean(0))
        # Ties go to the class with the higher mean: half a probability is less than a vote, so it decides nothing else.
        predictions.append((counts + means[-1].float().softmax(1).nan_to_num() / 2).argmax(1))
    return torch.cat(predictions), torch.cat(means)


def verify(
    model: LogitsFn,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor,
    ball: Ball,
    *,
    batch_size: int,
    votes: int = 1,
    targets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Which adversarial examples the model really misclassifies, inside the ball and the range of images.

    Args:
        model: The model as it was given, with nothing folded: images to logits.
        x: Clean images (n, ...).
        y: Their labels (n,).
        x_adv: Adversarial examples (n, ...).
        ball: Where they must lie.
        batch_size: Images in one forward pass at most.
        votes: Forward passes of each image, whose majority is the prediction.
        targets: The classes to be predicted in a targeted attack (n,).

    Returns:
        ``(fooled, fooled_8bit, predictions)``, each (n,): which are misclassified, or as their targets; which of
        those still are when rounded to 8 bits, even if rounding moves them out of the ball by half a step; and the
        predictions, -1 for images that are not finite or not in the ball.
    """
    valid = x_adv.isfinite().flatten(1).all(1) & ball.contains(x_adv, x)
    predictions = torch.full_like(y, -1)
    fooled_8bit = torch.zeros_like(valid)
    chosen = valid.nonzero()[:, 0]
    if len(chosen):
        predictions[chosen] = predict(model, x_adv[chosen], batch_size=batch_size, votes=votes)[0]

    def succeeds(predicted: Tensor, chosen: Tensor) -> Tensor:
        return predicted != y[chosen] if targets is None else predicted == targets[chosen]

    fooled = valid & succeeds(predictions, torch.arange(len(y), device=y.device))
    chosen = fooled.nonzero()[:, 0]
    if len(chosen):
        low, high = ball.bounds
        levels = (x_adv[chosen] - low) / (high - low) * 255
        rounded = (levels.round() / 255 * (high - low) + low).to(x.dtype)
        fooled_8bit[chosen] = succeeds(predict(model, rounded, batch_size=batch_size, votes=votes)[0], chosen)
    return fooled, fooled_8bit, predictions
