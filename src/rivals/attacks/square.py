"""Square: score-based random search with square windows (Andriushchenko et al. 2020; in L1, Croce & Hein 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Unpack

import torch
from torch import Tensor

from rivals.attacks.active_batch import ActiveBatch, Rows
from rivals.attacks.attack_state import AttackState, CommonOptions, Model, check_at_least, check_norm, prepare
from rivals.base.norm_balls import L1, L2, Ball, Linf
from rivals.base.rng import draw_per_image

_QUERIES = 5000  # AutoAttack's, which cuts the paper's schedule for 10,000 there instead of compressing it
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # after these queries p, the share of a window, is halved
_P_INIT = 0.8  # p of the first windows, AutoAttack's; the paper has 0.05 in Linf and 0.1 in L2
_BLOCK = 100  # random numbers of an image are drawn for this many queries at once


def square(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    queries: int = _QUERIES,
    start: Tensor | None = None,
    clean: Tensor | None = None,
    **options: Unpack[CommonOptions],
) -> Tensor:
    """Square attack: change a random square window, keep the change if the loss increases. Needs no gradient (Alg. 1).

    Windows cover p = 0.8 of the image at first, and half as much after each of 10, 50, 200, 500, 1000, 2000, 4000, 6000
    and 8000 queries: the paper's schedule for 10,000 queries. As in AutoAttack, 5000 queries are its first half. Fewer
    compress that half, so that 500 halve p after 1, 5, ... and 400; the authors' code compresses the whole schedule.

    In Linf every value is at one end of its range: first in vertical stripes, then each window of a channel is set to
    one end (Alg. 2). A proposal that would change nothing has some of its signs flipped, so no query is wasted on it.
    In L2 and L1, bumps of both signs tile the image first; then a window takes over the perturbation of a second one
    and what is left of eps, and adds a new bump to its own (Alg. 3; in L1 steeper bumps, projected).

    Other inputs have windows too: in a video they are the same in all frames, each with signs of its own; in a series
    (n, C, T) and in a row of a table (n, D) they are runs of neighbors.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a frozen one. Needs no gradient.
        x: Images (n, C, H, W), or videos (n, C, T, H, W), series or tables, in the ball's bounds.
        y: Labels (n,).
        ball: The threat model.
        queries: Proposals per image after the start, a forward pass each.
        start: Where to start instead of stripes or tiles: images like ``x`` in ball and box.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        options: See :class:`CommonOptions`; the loss is ``margin`` by default. Each image has its own windows and
            signs.

    Returns:
        The best iterate of each image: an adversarial one before one that is not, then the larger loss.

    Raises:
        UserError: bad input, in one line.
    """
    check_norm(ball, "square", (Linf, L2, L1))
    check_at_least(queries, 1, "queries")
    options.setdefault("loss", "margin")
    with prepare(model, x, y, ball, **options) as state:
        if state.stop or clean is not None:
            state.clean_logits(clean)
        search = _Square(state, ball, queries, start)
        ActiveBatch(search.init_rows, search.step).run(*state.queue())
        return state.best


def as_images(x: Tensor) -> Tensor:
    """Inputs (n, ...) as images (n, C, H, W): frames as channels, series and tables as images of height 1."""
    if x.ndim == 5:
        return x.flatten(1, 2)
    if x.ndim == 3:
        return x[:, :, None]
    return x if x.ndim == 4 else x.flatten(1)[:, None, None]


class RandomRows(Protocol):
    """Rows of a random search: the best value of the loss so far (b,), and uniform numbers in [0, 1) for a block of
    proposals (b, block, n_random)."""

    index: Tensor
    x: Tensor
    y: Tensor
    target: Tensor | None
    value: Tensor
    u: Tensor


def judge_proposals(state: AttackState, rows: RandomRows, proposal: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate a proposal for each row, by one query. The rows take the values of those that are better.

    Returns:
        Which are adversarial, and which are better, (b,) each.
    """
    logits = state.frozen.logits(proposal)
    adversarial = state.keep_best(rows.index, proposal, logits)
    state.count_queries(rows.index, adversarial)
    values = state.loss_fn(logits, rows.y, rows.target).to(rows.value.dtype)
    better = values > rows.value
    rows.value = torch.where(better, values, rows.value)
    return adversarial, better


def empty_block(x: Tensor, proposals: int, n_random: int) -> Tensor:
    """Room for the numbers that choose so many proposals for each image, (b, proposals, n_random)."""
    return x.new_empty((len(x), proposals, n_random), dtype=torch.promote_types(x.dtype, torch.float32))


def random_block(state: AttackState, rows: RandomRows, made: Tensor, attack: str) -> Tensor:
    """The numbers (b, n_random) for the proposals by number (b,), after a new block is drawn where one begins."""
    position = made % rows.u.shape[1]
    exhausted = (position == 0).nonzero()[:, 0]
    if len(exhausted):
        # The block's number stands in for the trial, so that its random numbers depend on the image and k alone.
        generators = state.generators(rows.index[exhausted], made[exhausted] // rows.u.shape[1], attack)
        rows.u[exhausted] = draw_per_image(torch.rand, rows.x[exhausted], generators, size=tuple(rows.u.shape[1:]))
    return rows.u[torch.arange(len(position), device=position.device), position]


def cover(queries: int) -> Tensor:
    """p, the share of the image that the next window covers, after 0 to ``queries`` queries (queries + 1,)."""
    made = torch.arange(queries + 1)[:, None] * max(_QUERIES / queries, 1.0)
    return _P_INIT * 0.5 ** (made > torch.tensor(_HALVINGS)).sum(1)


@dataclass
class _SquareRows(Rows):
    """``x_adv`` is the best so far, the x^ of the paper."""

    eps: Tensor
    k: Tensor  # proposals made: i of the paper
    value: Tensor  # the loss of x_adv: -l* of the paper, which minimizes
    proposal: Tensor  # x^_new, evaluated by the next pass
    u: Tensor  # uniform numbers in [0, 1) for a block of proposals (b, _BLOCK, n_random)


class _Windows(Protocol):
    """How windows are filled in a norm. ``u`` are uniform numbers in [0, 1): ``n_random`` per image."""

    start_shape: tuple[int, ...]
    n_random: int

    def start(self, x: Tensor, ball: Ball, u: Tensor) -> Tensor: ...

    def propose(self, rows: _SquareRows, ball: Ball, u: Tensor) -> Tensor: ...


class _Square:
    """Alg. 1 on an active batch: propose, evaluate, keep what is better; one query per step."""

    def __init__(self, state: AttackState, ball: Ball, queries: int, start: Tensor | None) -> None:
        self.state = state
        self.ball = ball.laid_out(state.x, as_images)
        self.radii = ball.radii(state.x)
        self.queries = queries
        self.start = None if start is None else state.checked_start(ball, start)
        windows = _LinfWindows if isinstance(ball, Linf) else _LpWindows
        flat = state.x.ndim not in (4, 5)
        self.windows: _Windows = windows(as_images(state.x), ball, cover(queries), flat=flat)

    def init_rows(self, indices: Tensor, trials: Tensor) -> _SquareRows:
        state, x, eps = self.state, as_images(self.state.x[indices]), self.radii[indices]
        if self.start is not None:
            start = as_images(self.start[indices])
        else:
            generators = state.generators(indices, trials, "square start")
            first = draw_per_image(torch.rand, x, generators, size=self.windows.start_shape)
            start = self.windows.start(x, self.ball.with_eps(eps), first)
        return _SquareRows(
            index=indices,
            trial=trials,
            x=x,
            x_adv=x,
            y=state.y[indices],
            target=state.target(indices),
            eps=eps,
            k=torch.zeros_like(indices),
            value=torch.full_like(eps, -torch.inf),
            proposal=start,
            u=empty_block(x, _BLOCK, self.windows.n_random),
        )

    def step(self, rows: _SquareRows) -> Tensor:
        state = self.state
        # Alg. 1, lines 6 and 7: evaluate the proposal, keep it if it is better
        proposal = rows.proposal.reshape(-1, *state.x.shape[1:])
        adversarial, better = judge_proposals(state, rows, proposal)
        rows.x_adv = torch.where(better.view(-1, 1, 1, 1), rows.proposal, rows.x_adv)
        over = (rows.k == self.queries) | (adversarial & state.stop)
        if bool(over.all()):  # the last proposals would go unused
            return over
        # Alg. 1, lines 3 to 5: the next proposal, in ball and box
        u = random_block(state, rows, rows.k, "square")
        rows.proposal = self.windows.propose(rows, self.ball.with_eps(rows.eps), u)
        rows.k = rows.k + 1
        return over


class _LinfWindows:
    """Alg. 2, in Linf: windows whose channels are at one end of their range."""

    def __init__(self, x: Tensor, ball: Ball, shares: Tensor, *, flat: bool) -> None:
        channels, height, width = x.shape[1:]
        if flat:
            side = (shares * width).round().long().clamp(1, width)
        else:
            side = (shares * height * width).sqrt().round().long().clamp(1, min(height, width))
        self.width = side.to(x.device)
        self.height = torch.ones_like(self.width) if flat else self.width
        self.start_shape: tuple[int, ...] = (channels, 1, width)
        self.n_random = 2 + 2 * channels

    def start(self, x: Tensor, ball: Ball, u: Tensor) -> Tensor:
        return ball.linear_max(x, (u - 0.5).to(x.dtype))

    def propose(self, rows: _SquareRows, ball: Ball, u: Tensor) -> Tensor:
        # Alg. 2, line 2: where the window is
        size = self.height[rows.k], self.width[rows.k]
        inside = _window(rows.x, size, _corner(u[:, :2], size, rows.x))
        # Lines 3 to 6: rho, the sign of each channel. Added to x^ and projected, +-2 eps puts a value at an end.
        positive, flip = (u[:, 2:] >= 0.5).view(len(rows), 2, -1, 1, 1).unbind(1)
        proposal = self._filled(rows, ball, inside, positive)
        same = (proposal == rows.x_adv).flatten(1).all(1).view(-1, 1, 1, 1)
        flip = same & (flip | ~flip.any(1, keepdim=True))  # a random set of channels, not empty
        return self._filled(rows, ball, inside, positive ^ flip) if bool(same.any()) else proposal

    def _filled(self, rows: _SquareRows, ball: Ball, inside: Tensor, positive: Tensor) -> Tensor:
        return torch.where(inside, ball.linear_max(rows.x, positive.to(rows.x.dtype) - 0.5), rows.x_adv)


class _LpWindows:
    """Alg. 3, in L2 and L1: windows of a positive and a negative bump, added to the current perturbation."""

    def __init__(self, x: Tensor, ball: Ball, shares: Tensor, *, flat: bool) -> None:
        channels, height, width = x.shape[1:]
        self.p = ball.p
        side = (shares * width).round() if flat else (shares * height * width).sqrt().round()
        side = side.long().clamp_min(3)
        side = (side + (side % 2 == 0)).clamp_max(width if flat else min(height, width))
        sizes, self.size_index = (part.to(x.device) for part in torch.unique(side, return_inverse=True))
        self.width = side.to(x.device)
        self.height = torch.ones_like(self.width) if flat else self.width
        table = _flat_table if flat else _table
        self.table = table(sizes.tolist(), self.p).to(x)
        # Tiles of a fifth of the height, in the middle; those at the rim are cut.
        tile = max((width if flat else height) // 5, 1)
        self.tile = table([tile], self.p).to(x)
        tiles = self.tile.shape[1:]
        row, col = (
            torch.arange(length, device=x.device) + (tile - length % tile // 2) % tile
            for length, tile in zip((height, width), tiles, strict=True)
        )
        self.position = row, col
        self.start_shape: tuple[int, ...] = (
            channels + 1,
            int(row[-1]) // tiles[0] + 1,
            int(col[-1]) // tiles[1] + 1,
        )
        self.n_random = 5 + channels

    def start(self, x: Tensor, ball: Ball, u: Tensor) -> Tensor:
        (row, col), (height, width) = self.position, self.tile.shape[1:]
        tiles = u[:, :, (row // height)[:, None], col // width] >= 0.5
        bumps = self.tile[:, (row % height)[:, None], col % width]
        bump = torch.where(tiles[:, -1:], bumps[0], bumps[1])
        change = torch.where(tiles[:, :-1], bump, -bump)
        scale = ball.radii(x) / torch.linalg.vector_norm(change.flatten(1), self.p, dim=1)
        return ball.project(x + scale.view(-1, 1, 1, 1) * change, x)

    def propose(self, rows: _SquareRows, ball: Ball, u: Tensor) -> Tensor:
        """In the paper's letters: ``here`` is W1, ``there`` W2, ``change`` nu, ``unused`` (eps_unused)^2 / c,
        ``budget`` eps_avail, ``bump`` eta*, ``sign`` rho, ``new`` nu_temp. Powers of 2 are powers of p here.
        """
        x, size = rows.x, (self.height[rows.k], self.width[rows.k])
        channels = x.shape[1]
        # Alg. 3, lines 1 and 2: the perturbation, and two windows
        top, left = _corner(u[:, :2], size, x)
        here = _window(x, size, (top, left))
        there = _window(x, size, _corner(u[:, 2:4], size, x))
        change = rows.x_adv - x
        # Lines 4 and 8: the part of eps that the image does not use, and what each channel of the windows may have
        used = torch.linalg.vector_norm(change.flatten(1), self.p, dim=1).view(-1, 1, 1, 1)
        unused = (ball.radii(x).view(-1, 1, 1, 1) ** self.p - used**self.p).clamp_min(0) / channels
        budget = (self._size(change * (here | there)) ** self.p + unused) ** (1 / self.p)

        # Lines 4, 6 and 7: a new bump of a random sign, added to what the first window holds
        old = change * here
        row = (torch.arange(x.shape[2], device=x.device) - top[:, None]).clamp(0, self.table.shape[1] - 1)
        col = (torch.arange(x.shape[3], device=x.device) - left[:, None]).clamp(0, self.table.shape[2] - 1)
        bump_index = 2 * self.size_index[rows.k] + (u[:, 4] >= 0.5)
        bump = self.table[bump_index[:, None, None], row[:, :, None], col[:, None, :]][:, None] * here
        sign = (u[:, 5:] >= 0.5).to(x.dtype).view(-1, channels, 1, 1) * 2 - 1
        new = sign * bump + old / self._size(old)
        # Lines 9 and 11: the first window takes all that is available, the second is emptied
        if isinstance(ball, L1):  # more than there is, which the projection takes off where it is least
            budget = budget * channels
        new = new * (budget / self._size(new))
        return ball.project(x + torch.where(here | there, new, change), x)

    def _size(self, change: Tensor) -> Tensor:
        """The norm of each channel, (n, C, 1, 1), never 0."""
        size: Tensor = torch.linalg.vector_norm(change, self.p, dim=(2, 3), keepdim=True)
        return size.clamp_min(torch.finfo(size.dtype).tiny)


def _corner(u: Tensor, size: tuple[Tensor, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The first row and column of a window, uniform over all places where it fits; ``u`` (n, 2) in [0, 1)."""
    last = (x.shape[2] - size[0], x.shape[3] - size[1])
    row, col = (torch.minimum((u[:, i] * (last[i] + 1)).long(), last[i]) for i in (0, 1))
    return row, col


def _window(x: Tensor, size: tuple[Tensor, Tensor], corner: tuple[Tensor, Tensor]) -> Tensor:
    """Where each image's window is, bool (n, 1, H, W)."""
    row = torch.arange(x.shape[2], device=x.device) - corner[0][:, None]
    col = torch.arange(x.shape[3], device=x.device) - corner[1][:, None]
    row, col = (
        (position >= 0) & (position < length[:, None]) for position, length in zip((row, col), size, strict=True)
    )
    return row[:, None, :, None] & col[:, None, None, :]


def _table(sides: list[int], p: float) -> Tensor:
    """Bumps for windows of some sides, upright and rotated in alternation (2 * sides, max, max), padded with 0."""
    table = torch.zeros((2 * len(sides), max(sides), max(sides)))
    for index, side in enumerate(sides):
        upper, lower = _bump(side // 2, side, p), _bump(side - side // 2, side, p)
        pair = torch.cat([upper, -lower])
        pair = pair / torch.linalg.vector_norm(pair, p)
        table[2 * index, :side, :side], table[2 * index + 1, :side, :side] = pair, pair.T
    return table


def _flat_table(sides: list[int], p: float) -> Tensor:
    """The same for windows of height 1, to the right and to the left in alternation (2 * sides, 1, max)."""
    table = torch.zeros((2 * len(sides), 1, max(sides)))
    for index, side in enumerate(sides):
        pair = torch.cat([_bump(1, side // 2, p), -_bump(1, side - side // 2, p)], 1)
        pair = pair / torch.linalg.vector_norm(pair, p)
        table[2 * index, :, :side], table[2 * index + 1, :, :side] = pair, pair.flip(1)
    return table


def _bump(height: int, width: int, p: float) -> Tensor:
    """A bump of square rings (eq. 2): ring k has height ``sum_{j >= k} 1 / (j + 1)^2``; in L1, ``^4``."""
    rings = max(height, width) // 2 + 1
    heights = torch.arange(1, rings + 1).float().pow(-2.0 if p == 2 else -4.0).flip(0).cumsum(0).flip(0)
    row = (torch.arange(height) - height // 2).abs()
    col = (torch.arange(width) - width // 2).abs()
    bump: Tensor = heights[torch.maximum(row[:, None], col)]
    bump /= torch.linalg.vector_norm(bump, p).clamp_min(torch.finfo(bump.dtype).tiny)
    return bump
