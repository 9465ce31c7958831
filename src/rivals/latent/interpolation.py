"""Interpolation between latents."""

from __future__ import annotations

import torch
from torch import Tensor

from rivals.base.errors import UserError


def slerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation (Shoemake 1985), since normal latents lie near a sphere (White 2016).

    Args:
        start: Latents (..., latent_dim).
        end: Latents (..., latent_dim).
        t: From 0 (start) to 1 (end), broadcast against the latents, such as (frames, 1).

    Returns:
        Latents (..., latent_dim). Directions follow the great circle, lengths are interpolated linearly; for opposite
        directions the path is straight, through 0.
    """
    lengths = start.norm(dim=-1, keepdim=True), end.norm(dim=-1, keepdim=True)
    one, other = (each / length.clamp_min(1e-12) for each, length in zip((start, end), lengths, strict=True))
    angle = torch.arccos((one * other).sum(-1, keepdim=True).clamp(-1, 1))
    sine = torch.sin(angle)
    # Parallel and opposite directions define no great circle: linear interpolation.
    on_circle = (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * other) / sine
    unit = torch.where(sine > 1e-4, on_circle, torch.lerp(one, other, t))
    return unit * torch.lerp(*lengths, t)


def lerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Linear interpolation of latents (..., latent_dim); its midpoints are shorter than the latents of training.

    ``t``, from 0 to 1, is broadcast against the latents, such as (frames, 1).
    """
    return torch.lerp(start, end, t)


INTERPOLATIONS = {"sphere": slerp, "line": lerp}


def walk(waypoints: Tensor, frames: int, interpolation: str = "sphere", *, closed: bool = True) -> Tensor:
    """A path through latents.

    Args:
        waypoints: Latents (n, latent_dim) to pass through, in order.
        frames: Points from each waypoint up to the next.
        interpolation: sphere or line.
        closed: Whether the path returns to the first waypoint.

    Returns:
        Latents (n * frames, latent_dim), or ((n - 1) * frames + 1, latent_dim) of an open path.

    Raises:
        UserError: unknown interpolation, no frames, or less than two waypoints of an open path.
    """
    if interpolation not in INTERPOLATIONS:
        raise UserError(f"unknown interpolation '{interpolation}': choose from {', '.join(INTERPOLATIONS)}")
    if frames < 1 or len(waypoints) < (1 if closed else 2):
        raise UserError(f"{len(waypoints)} latents and {frames} frames between them make no path: give 2 and 1 or more")
    nexts = waypoints.roll(-1, 0) if closed else waypoints[1:]
    starts = waypoints[: len(nexts)]
    # Without t = 1, which is the next segment's t = 0.
    t = (torch.arange(frames, dtype=waypoints.dtype, device=waypoints.device) / frames).view(1, frames, 1)
    path = INTERPOLATIONS[interpolation](starts[:, None], nexts[:, None], t).flatten(0, 1)
    return path if closed else torch.cat([path, waypoints[-1:]])
