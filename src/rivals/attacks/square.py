"""Square: random search by windows, without gradients (Andriushchenko et al. 2020; in L1, Croce & Hein 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Unpack

import torch
from torch import Tensor

from rivals.attacks.siege import Model, Shared, Siege, at_least, besiege
from rivals.attacks.standing import Rows, Storm
from rivals.base.balls import L1, Ball, Linf, draw
from rivals.base.errors import UserError

_QUERIES = 5000  # the count for which the schedule is published
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000)  # after these queries a window covers half as much as before
_COVER = 0.8  # the share of the image that the first windows cover
_BLOCK = 100  # an image draws the numbers for so many queries at once


def square(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    queries: int = _QUERIES,
    start: Tensor | None = None,
    clean: Tensor | None = None,
    **shared: Unpack[Shared],
) -> Tensor:
    """Square attack: change a random square window, keep the change if the classifier does worse (no gradients).

    Windows cover 0.8 of the image at first, and half as much after each of 10, 50, 200, 500, 1000, 2000 and 4000
    queries of 5000; with another number of queries these places move in proportion.

    In Linf every value stands at one end of its range: first in vertical stripes, then each window of a channel is put
    at one end (alg. 2). A proposal that would change nothing has some of its signs turned, so no query is wasted on it.
    In L2 and L1, bumps of both signs tile the image first; then a window takes over the change of a second one and
    what is left of eps, and adds a new bump to its own change (alg. 3; in L1 steeper bumps, projected).

    Args:
        model: An ``nn.Module`` from images (n, C, H, W) to logits (n, K), or a frozen one. Needs no gradient.
        x: Images (n, C, H, W) within the ball's bounds.
        y: Labels (n,).
        ball: Where to look.
        queries: How many proposals each image is due after the start: passes forward.
        start: Where to start instead of stripes or tiles: images like ``x`` in ball and box.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        shared: loss (here ``margin`` if not given), targets, seed, batch_size, stop_when_fooled: see
            :class:`~rivals.attacks.siege.Shared`. Each image has windows and signs of its own.

    Returns:
        The best iterate of each image: one that fools before one that does not, then the larger loss.

    Raises:
        UserError: bad input, in one line.
    """
    at_least(queries, 1, "queries")
    shared.setdefault("loss", "margin")
    with besiege(model, x, y, ball, **shared) as siege:
        if x.ndim != 4:
            raise UserError(
                f"the images have the shape {tuple(x.shape)}: for square windows, give them as (n, C, H, W)"
            )
        if siege.stop or clean is not None:
            siege.look(clean)
        search = _Search(siege, ball, queries, start)
        siege.storm(Storm(search.begin, search.advance))
        return siege.best


def cover(queries: int) -> Tensor:
    """For each number of queries made, from 0 to ``queries``: the share of the image that the next window covers."""
    made = torch.arange(queries + 1)[:, None] * (_QUERIES / queries)
    return _COVER * 0.5 ** (made > torch.tensor(_HALVINGS)).sum(1)


@dataclass
class _Trying(Rows):
    """``x_adv`` is the best so far, with the loss ``value``; ``tried`` is what the next pass is to judge."""

    eps: Tensor
    taken: Tensor
    value: Tensor
    tried: Tensor
    draws: Tensor


class _Windows(Protocol):
    """How a norm fills windows. ``draws`` are uniform numbers in [0, 1), as many an image as it asks for."""

    starting: tuple[int, ...]
    trying: int

    def start(self, x: Tensor, ball: Ball, draws: Tensor) -> Tensor: ...

    def propose(self, rows: _Trying, ball: Ball, draws: Tensor) -> Tensor: ...


class _Search:
    """Propose, judge, keep what is better: one query an advance."""

    def __init__(self, siege: Siege, ball: Ball, queries: int, start: Tensor | None) -> None:
        self.siege = siege
        self.ball = ball
        self.radii = ball.radii(siege.x)
        self.queries = queries
        self.start = None if start is None else siege.starts(ball, start)
        self.windows: _Windows = (_Stripes if isinstance(ball, Linf) else _Bumps)(siege.x, ball, cover(queries))

    def begin(self, points: Tensor, trials: Tensor) -> _Trying:
        siege, x, eps = self.siege, self.siege.x[points], self.radii[points]
        if self.start is not None:
            start = self.start[points]
        else:
            generators = siege.generators(points, trials, "square start")
            first = draw(torch.rand, x, generators, size=self.windows.starting)
            start = self.windows.start(x, self.ball.sized(eps), first)
        return _Trying(
            *(points, trials, x, x, siege.y[points], siege.goal(points)),
            eps=eps,
            taken=torch.zeros_like(points),
            value=torch.full_like(eps, -torch.inf),
            tried=start,
            draws=x.new_empty((len(x), _BLOCK, self.windows.trying)),
        )

    def advance(self, rows: _Trying) -> Tensor:
        siege = self.siege
        logits = siege.frozen.logits(rows.tried)
        fools = siege.offer(rows.point, rows.tried, logits)
        values = siege.objective(logits, rows.y, rows.goal)
        better = values > rows.value
        rows.x_adv = torch.where(better.view(-1, 1, 1, 1), rows.tried, rows.x_adv)
        rows.value = torch.where(better, values, rows.value)
        over = (rows.taken == self.queries) | (fools & siege.stop)
        if bool(over.all()):  # the last proposals would go unused
            return over
        place = rows.taken % _BLOCK
        due = (place == 0).nonzero()[:, 0]
        if len(due):
            # The block's number stands in for a trial: a block is a function of the image and of its place.
            generators = siege.generators(rows.point[due], rows.taken[due] // _BLOCK, "square")
            rows.draws[due] = draw(torch.rand, rows.x[due], generators, size=tuple(rows.draws.shape[1:]))
        draws = rows.draws[torch.arange(len(rows), device=place.device), place]
        rows.tried = self.windows.propose(rows, self.ball.sized(rows.eps), draws)
        rows.taken = rows.taken + 1
        return over


class _Stripes:
    """In Linf: windows whose channels stand at one end of their range."""

    def __init__(self, x: Tensor, ball: Ball, shares: Tensor) -> None:
        channels, height, width = x.shape[1:]
        side = (shares * height * width).sqrt().round().long().clamp(1, min(height, width))
        self.sides = side.to(x.device)
        self.starting: tuple[int, ...] = (channels, 1, width)
        self.trying = 2 + 2 * channels

    def start(self, x: Tensor, ball: Ball, draws: Tensor) -> Tensor:
        return ball.maximise(x, draws - 0.5)

    def propose(self, rows: _Trying, ball: Ball, draws: Tensor) -> Tensor:
        side = self.sides[rows.taken]
        inside = _window(rows.x, side, _corner(draws[:, 0], side, rows.x, 2), _corner(draws[:, 1], side, rows.x, 3))
        up, turn = (draws[:, 2:] >= 0.5).view(len(rows), 2, -1, 1, 1).unbind(1)
        tried = self._filled(rows, ball, inside, up)
        same = (tried == rows.x_adv).flatten(1).all(1).view(-1, 1, 1, 1)
        turn = same & (turn | ~turn.any(1, keepdim=True))  # a random set of channels, not empty
        return self._filled(rows, ball, inside, up ^ turn) if bool(same.any()) else tried

    def _filled(self, rows: _Trying, ball: Ball, inside: Tensor, up: Tensor) -> Tensor:
        return torch.where(inside, ball.maximise(rows.x, up.to(rows.x.dtype) - 0.5), rows.x_adv)


class _Bumps:
    """In L2 and L1: windows that hold a positive bump beside a negative one, added to what was there."""

    def __init__(self, x: Tensor, ball: Ball, shares: Tensor) -> None:
        channels, height, width = x.shape[1:]
        self.p = ball.p
        side = (shares * height * width).sqrt().round().long().clamp_min(3)
        side = (side + (side % 2 == 0)).clamp_max(min(height, width))
        kinds, self.kind = (part.to(x.device) for part in torch.unique(side, return_inverse=True))
        self.sides = side.to(x.device)
        self.table = _table(kinds.tolist(), self.p).to(x)
        # Tiles of a fifth of the height, in the middle; those at the rim are cut.
        self.tile = max(height // 5, 1)
        spare = [(self.tile - length % self.tile // 2) % self.tile for length in (height, width)]
        down, across = (
            torch.arange(length, device=x.device) + shift for length, shift in zip((height, width), spare, strict=True)
        )
        self.place = down, across
        self.starting: tuple[int, ...] = (
            channels + 1,
            int(down[-1]) // self.tile + 1,
            int(across[-1]) // self.tile + 1,
        )
        self.trying = 5 + channels

    def start(self, x: Tensor, ball: Ball, draws: Tensor) -> Tensor:
        down, across = self.place
        tiles = draws[:, :, (down // self.tile)[:, None], across // self.tile] >= 0.5
        bumps = _table([self.tile], self.p).to(x)[:, (down % self.tile)[:, None], across % self.tile]
        bump = torch.where(tiles[:, -1:], bumps[0], bumps[1])
        change = torch.where(tiles[:, :-1], bump, -bump)
        reach = ball.radii(x) / torch.linalg.vector_norm(change.flatten(1), self.p, dim=1)
        return ball.project(x + reach.view(-1, 1, 1, 1) * change, x)

    def propose(self, rows: _Trying, ball: Ball, draws: Tensor) -> Tensor:
        x, side = rows.x, self.sides[rows.taken]
        channels = x.shape[1]
        top, left = _corner(draws[:, 0], side, x, 2), _corner(draws[:, 1], side, x, 3)
        here = _window(x, side, top, left)
        there = _window(x, side, _corner(draws[:, 2], side, x, 2), _corner(draws[:, 3], side, x, 3))
        change = rows.x_adv - x
        spent = torch.linalg.vector_norm(change.flatten(1), self.p, dim=1).view(-1, 1, 1, 1)
        unused = (ball.radii(x).view(-1, 1, 1, 1) ** self.p - spent**self.p).clamp_min(0) / channels
        budget = (self._size(change * (here | there)) ** self.p + unused) ** (1 / self.p)  # for each channel

        old = change * here
        down = (torch.arange(x.shape[2], device=x.device) - top[:, None]).clamp(0, self.table.shape[1] - 1)
        across = (torch.arange(x.shape[3], device=x.device) - left[:, None]).clamp(0, self.table.shape[2] - 1)
        kind = 2 * self.kind[rows.taken] + (draws[:, 4] >= 0.5)
        bump = self.table[kind[:, None, None], down[:, :, None], across[:, None, :]][:, None] * here
        sign = (draws[:, 5:] >= 0.5).to(x.dtype).view(-1, channels, 1, 1) * 2 - 1
        new = sign * bump + old / self._size(old)
        if isinstance(ball, L1):  # more than there is, which the projection takes off where it is least
            budget = budget * channels
        new = new * (budget / self._size(new))
        return ball.project(x + torch.where(here | there, new, change), x)

    def _size(self, change: Tensor) -> Tensor:
        """The norm of each channel, (n, C, 1, 1), never 0."""
        size: Tensor = torch.linalg.vector_norm(change, self.p, dim=(2, 3), keepdim=True)
        return size.clamp_min(torch.finfo(size.dtype).tiny)


def _corner(draws: Tensor, side: Tensor, x: Tensor, dim: int) -> Tensor:
    """The first row or column of a window, any with the same chance, the last ones that hold it included."""
    room = x.shape[dim] - side
    return torch.minimum((draws * (room + 1)).long(), room)


def _window(x: Tensor, side: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Where each image's window is, bool (n, 1, H, W)."""
    down = torch.arange(x.shape[2], device=x.device) - top[:, None]
    across = torch.arange(x.shape[3], device=x.device) - left[:, None]
    down, across = ((place >= 0) & (place < side[:, None]) for place in (down, across))
    return down[:, None, :, None] & across[:, None, None, :]


def _table(sides: list[int], p: float) -> Tensor:
    """Bumps for windows of some sides, upright and lying by turns, (2 * sides, most, most), padded with 0."""
    table = torch.zeros((2 * len(sides), max(sides), max(sides)))
    for index, side in enumerate(sides):
        upper, lower = _bump(side // 2, side, p), _bump(side - side // 2, side, p)
        pair = torch.cat([upper, -lower])
        pair = pair / torch.linalg.vector_norm(pair, p)
        table[2 * index, :side, :side], table[2 * index + 1, :side, :side] = pair, pair.T
    return table


def _bump(height: int, width: int, p: float) -> Tensor:
    """A hill of square rings (eq. 2): the k-th from the middle is ``sum_{j >= k} 1 / (j + 1)^2`` high, in L1 ``^4``."""
    rings = max(height, width) // 2 + 1
    heights = torch.arange(1, rings + 1).float().pow(-2.0 if p == 2 else -4.0).flip(0).cumsum(0).flip(0)
    down = (torch.arange(height) - height // 2).abs()
    across = (torch.arange(width) - width // 2).abs()
    hill: Tensor = heights[torch.maximum(down[:, None], across)]
    hill /= torch.linalg.vector_norm(hill, p).clamp_min(torch.finfo(hill.dtype).tiny)
    return hill
