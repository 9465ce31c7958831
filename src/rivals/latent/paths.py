"""Ways between latents."""

from __future__ import annotations

import torch
from torch import Tensor

from rivals.base.errors import UserError


def slerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Points on the great circle between latents (Shoemake 1985), as normal latents lie near a sphere (White 2016).

    Args:
        start: Latents (..., latent).
        end: Latents (..., latent).
        t: Where, from 0 (start) to 1 (end), broadcast against the latents, as (frames, 1).

    Returns:
        Latents (..., latent). Their length goes evenly from one's to the other's; between latents that point exactly
        apart, the way is straight and leads through 0.
    """
    lengths = start.norm(dim=-1, keepdim=True), end.norm(dim=-1, keepdim=True)
    one, other = (each / length.clamp_min(1e-12) for each, length in zip((start, end), lengths, strict=True))
    angle = torch.arccos((one * other).sum(-1, keepdim=True).clamp(-1, 1))
    sine = torch.sin(angle)
    # Between latents that point alike, or exactly apart, no circle is told apart from the others: a straight line then.
    round_ = (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * other) / sine
    unit = torch.where(sine > 1e-4, round_, torch.lerp(one, other, t))
    return unit * torch.lerp(*lengths, t)


def lerp(start: Tensor, end: Tensor, t: Tensor) -> Tensor:
    """Points on the straight line between latents, which passes nearer to 0 than a generator ever saw."""
    return torch.lerp(start, end, t)


WAYS = {"sphere": slerp, "line": lerp}


def walk(corners: Tensor, frames: int, way: str = "sphere", *, closed: bool = True) -> Tensor:
    """A path through latents.

    Args:
        corners: Latents (n, latent) to pass through, in order.
        frames: How many points from one to before the next.
        way: sphere or line.
        closed: Whether it goes back to the first.

    Returns:
        Latents (n * frames, latent), or ((n - 1) * frames + 1, latent) where it is not closed.

    Raises:
        UserError: there is no such way, no frame, or less than two corners of an open path.
    """
    if way not in WAYS:
        raise UserError(f"unknown way '{way}' between latents: choose from {', '.join(WAYS)}")
    if frames < 1 or len(corners) < (1 if closed else 2):
        raise UserError(f"{len(corners)} latents and {frames} frames between them make no path: give 2 and 1 or more")
    nexts = corners.roll(-1, 0) if closed else corners[1:]
    starts = corners[: len(nexts)]
    t = (torch.arange(frames, dtype=corners.dtype, device=corners.device) / frames).view(1, frames, 1)
    path = WAYS[way](starts[:, None], nexts[:, None], t).flatten(0, 1)
    return path if closed else torch.cat([path, corners[-1:]])
