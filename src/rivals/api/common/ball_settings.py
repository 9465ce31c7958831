"""From a ball, as it is given in Python, to the settings that a run records."""

from __future__ import annotations

from typing import Any

from rivals.base.ball import Ball
from rivals.base.errors import UserError


def ball_settings(ball: Ball, what: str) -> dict[str, Any]:
    """The settings norm and eps of a ball with one radius over images in [0, 1].

    Args:
        ball: The ball.
        what: What is to be done over it, in the plural, such as "certificates".

    Raises:
        UserError: it has other bounds, a mask, or a radius for each image or feature.
    """
    if ball.per_feature or not isinstance(ball.eps, int | float):
        raise UserError(f"{what} take one radius, and bounds, for all features: give numbers")
    if tuple(map(float, ball.bounds)) != (0.0, 1.0):
        low, high = ball.bounds
        raise UserError(
            f"{what} are over images in [0, 1], and the ball has the bounds {low:g} to {high:g}: scale the images, and "
            "let the model scale them back"
        )
    return {"norm": type(ball).__name__.lower(), "eps": repr(float(ball.eps))}
