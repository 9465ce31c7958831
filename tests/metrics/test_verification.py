"""Predictions by majority, and verification of adversarial examples outside the attack."""

import math

import torch

from rivals.base.norm_balls import Linf
from rivals.metrics.verification import predict, verify


def bright(x):
    """Logits of class 1 are higher where the mean is above a half."""
    mean = x.flatten(1).mean(1)
    return torch.stack([0.5 - mean, mean - 0.5], 1)


def test_only_misclassified_finite_images_inside_the_ball_count():
    x, y = torch.full((5, 1, 2, 2), 0.45), torch.zeros(5, dtype=torch.int64)
    x_adv = x.clone()
    x_adv[0] += 0.1  # misclassified
    x_adv[1] += 0.04  # classified correctly
    x_adv[2] += 0.3  # misclassified, but outside the ball
    x_adv[3] = torch.nan
    x_adv[4, :, 0] += 0.1  # the mean is exactly a half: a tie goes to the first class
    fooled, fooled_8bit, predictions = verify(bright, x, y, x_adv, Linf(0.1), batch_size=4)
    assert fooled.tolist() == fooled_8bit.tolist() == [True, False, False, False, False]
    assert predictions.tolist() == [1, 0, -1, -1, 0]


def test_an_example_that_rounding_to_8_bits_undoes_is_reported():
    """The boundary is at 127.4 levels: 127.49 is beyond it, and is rounded back to 127."""
    x, y = torch.full((2, 1, 2, 2), 0.45), torch.zeros(2, dtype=torch.int64)
    model = lambda x: torch.stack([0 * x.flatten(1)[:, 0], x.flatten(1).mean(1) - 127.4 / 255], 1)  # noqa: E731
    x_adv = (torch.tensor([127.49, 127.51]) / 255).view(2, 1, 1, 1).repeat(1, 1, 2, 2)
    fooled, fooled_8bit, _ = verify(model, x, y, x_adv, Linf(0.1), batch_size=8)
    assert fooled.tolist() == [True, True]
    assert fooled_8bit.tolist() == [False, True]


def test_a_randomized_model_predicts_by_majority():
    turns = iter([0, 1, 1, 0, 1] * 2)

    def randomized(x):
        return torch.nn.functional.one_hot(torch.full((len(x),), next(turns)), 2).float()

    predictions, logits = predict(randomized, torch.zeros(3, 1), batch_size=8, votes=5)
    assert predictions.tolist() == [1, 1, 1]
    assert torch.allclose(logits, torch.tensor([0.4, 0.6]).expand(3, 2))


def test_a_tie_of_votes_goes_to_the_class_with_the_higher_mean():
    """Ten passes, five for each class; the more confident class wins, whatever its number."""
    for confident in (0, 1):
        turns = iter([confident, 1 - confident] * 5)

        def randomized(x, confident=confident, turns=turns):
            turn = next(turns)
            one_hot = torch.nn.functional.one_hot(torch.full((len(x),), turn), 2)
            return one_hot * (3.0 if turn == confident else 1.0)

        predictions, _ = predict(randomized, torch.zeros(3, 1), batch_size=8, votes=10)
        assert predictions.tolist() == [confident] * 3


def test_nan_logits_still_give_a_prediction():
    predictions, logits = predict(lambda x: x, torch.tensor([[0.0, math.nan], [1.0, 2.0]]), batch_size=8)
    assert predictions.tolist() == [1, 1] and logits[0].isnan().any()
