"""Sparse-RS: score-based random search in L0 (Croce et al. 2022, "Sparse-RS", Alg. 1 and 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from rivals.attacks.active_batch import ActiveBatch, Rows
from rivals.attacks.attack_state import AttackState, CommonOptions, Model, check_at_least, check_norm, prepare
from rivals.attacks.sparse_regions import ALPHA, RegionSearch
from rivals.attacks.square import empty_block, judge_proposals, random_block
from rivals.base.errors import UserError
from rivals.base.l0_ball import L0
from rivals.base.norm_balls import Ball
from rivals.base.registry import unknown
from rivals.base.rng import draw_per_image

SHAPES = {"free": 0.3, **ALPHA}  # and alpha of each
_FULL = 10_000  # queries that the schedule is made for
_SCHEDULE = ((0, 2), (50, 4), (200, 5), (500, 6), (1000, 8), (2000, 10), (4000, 12), (6000, 15), (8000, 20))
_BLOCK = 100  # random numbers of an image are drawn for this many queries at once


def sparse_rs(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    *,
    queries: int = 5000,
    alpha: float | None = None,
    shape: str = "free",
    clean: Tensor | None = None,
    **options: Unpack[CommonOptions],
) -> Tensor:
    """Sparse-RS in L0 (Croce et al. 2022, Alg. 1 and 2): swap a few changed components, keep it if the loss increases.

    A set M of eps components, or pixels, is at random ends of the box. A proposal restores some of M, a share alpha_i,
    and changes as many others. The share is ``alpha`` first, then a half, a fourth, a fifth ... a twentieth of it,
    after 0, 50, 200, ... 8000 of 10,000 queries; the schedule is compressed or stretched to ``queries``.

    With ``shape="patch"`` the pixels are the largest square that has no more than eps of them, whose colors and place
    are searched; with ``shape="frame"`` they are the widest frame.

    Args:
        model: An ``nn.Module`` from images (n, ...) to logits (n, K), or a frozen one. Needs no gradient.
        x: Images (n, ...) in the ball's bounds.
        y: Labels (n,).
        ball: ``L0``: whether components or pixels count, how many, and the bounds.
        queries: The most forward passes of an image, the start's included, that of the clean image not.
        alpha: The share of M that the first proposals change: by default 0.3, in a patch 0.4, in a frame 0.5.
        shape: Where the changed pixels lie: ``free``, ``patch`` or ``frame``.
        clean: The model's logits for ``x``, if they are known: saves a pass.
        options: See :class:`CommonOptions`; the loss is ``margin`` by default. Each image has its own random stream.

    Returns:
        The best iterate of each image: an adversarial one before one that is not, then the larger loss.

    Raises:
        UserError: bad input, in one line.
    """
    check_norm(ball, "sparse_rs", (L0,))
    check_at_least(queries, 1, "queries")
    if shape not in SHAPES:
        raise unknown("shape of sparse_rs", shape, SHAPES)
    alpha = SHAPES[shape] if alpha is None else alpha
    if not 0 < alpha <= 1:
        raise UserError(f"an alpha of {alpha:g} is not a share of the components: take one above 0, at most 1")
    assert isinstance(ball, L0)
    options.setdefault("loss", "margin")
    with prepare(model, x, y, ball, **options) as state:
        if state.stop or clean is not None:
            state.clean_logits(clean)
        if shape != "free":
            region = RegionSearch(state, ball, queries, alpha, shape)
            ActiveBatch(region.init_rows, region.step).run(*state.queue())
            return state.best
        search = _SparseRS(state, ball, queries, alpha)
        indices, size, finished = state.queue()
        # An image of which nothing may change has no proposals: it is left as it is, without a query.
        ActiveBatch(search.init_rows, search.step).run(indices[search.counts[indices] > 0], size, finished)
        return state.best


@dataclass
class _SparseRows(Rows):
    """``x_adv`` is the proposal. The set M of the best so far is ``place`` (b, k) with ``colors`` (b, k, C)."""

    count: Tensor  # k of each image
    made: Tensor  # queries made: i of the paper
    value: Tensor  # the loss of the best
    place: Tensor
    colors: Tensor
    new_place: Tensor
    new_colors: Tensor
    u: Tensor  # uniform numbers in [0, 1) for a block of proposals (b, _BLOCK, n_random)


class _SparseRS:
    """Alg. 1 on an active batch; one query per step."""

    def __init__(self, state: AttackState, ball: L0, queries: int, alpha: float) -> None:
        self.state = state
        self.ball = ball
        self.queries = queries
        shape = state.x.shape[1:]
        # With pixels a place is a position with all its channels, else a single component.
        self.channels = shape[0] if ball.pixels else 1
        mask = torch.ones(shape, dtype=torch.bool, device=state.x.device) if ball.mask is None else ball.mask
        mask = mask.expand(shape).reshape(self.channels, -1)
        self.allowed = mask.any(0).nonzero()[:, 0]
        self.size = mask.shape[1]
        self.counts = ball.radii(state.x).round().long().clamp_max(len(self.allowed))
        self.k_max = int(self.counts.max()) if len(self.counts) else 0
        first = torch.arange(queries + 1) * _FULL / queries
        divisors = torch.ones_like(first)
        for after, divisor in _SCHEDULE:
            divisors = torch.where(first > after, float(divisor), divisors)
        self.share = (alpha / divisors).to(state.x.device)
        self.swaps = max(math.ceil(alpha * self.k_max), 1)
        self.n_random = self.swaps * (2 + self.channels)
        low, high = (torch.as_tensor(bound).to(state.x).expand(shape) for bound in ball.bounds)
        self.low, self.high = (bound.reshape(self.channels, -1) for bound in (low, high))

    def init_rows(self, indices: Tensor, trials: Tensor) -> _SparseRows:
        state, x = self.state, self.state.x[indices]
        generators = state.generators(indices, trials, "sparse-rs start")
        # Alg. 2: M is a random set, its values are random ends of the box.
        scores = draw_per_image(torch.rand, x, generators, size=(len(self.allowed),))
        u = draw_per_image(torch.rand, x, generators, size=(self.k_max, self.channels))
        place = self.allowed[scores.topk(self.k_max, dim=1).indices]
        colors = self._colors(x, place, u)
        count = self.counts[indices]
        return _SparseRows(
            index=indices,
            trial=trials,
            x=x,
            x_adv=self._image(x, place, colors, count),
            y=state.y[indices],
            target=state.target(indices),
            count=count,
            made=torch.zeros_like(indices),
            value=torch.full_like(x.flatten(1)[:, 0], -torch.inf),
            place=place,
            colors=colors,
            new_place=place,
            new_colors=colors,
            u=empty_block(x, _BLOCK, self.n_random),
        )

    def step(self, rows: _SparseRows) -> Tensor:
        state = self.state
        # Alg. 1, lines 7 to 9: evaluate the proposal, keep it if it is better
        adversarial, better = judge_proposals(state, rows, rows.x_adv)
        rows.place = torch.where(better[:, None], rows.new_place, rows.place)
        rows.colors = torch.where(better[:, None, None], rows.new_colors, rows.colors)
        u = random_block(state, rows, rows.made, "sparse-rs").view(len(rows), self.swaps, -1)
        rows.made = rows.made + 1
        over = (rows.made == self.queries) | (adversarial & state.stop)
        if not bool(over.all()):
            self._propose(rows, u)
        return over

    def _propose(self, rows: _SparseRows, u: Tensor) -> None:
        """Alg. 1, lines 3 to 6, and Alg. 2: some of M are restored, as many others changed; ``u`` (b, swaps, 2 + C)."""
        swaps = (self.share[rows.made] * rows.count).long().clamp_min(1)
        active = torch.arange(self.swaps, device=swaps.device) < swaps[:, None]
        # Numbers are drawn with replacement: a repetition swaps one component less.
        leaving = torch.minimum((u[:, :, 0] * rows.count[:, None]).long(), rows.count[:, None] - 1)
        entering = self.allowed[(u[:, :, 1] * len(self.allowed)).long().clamp_max(len(self.allowed) - 1)]
        # One that is in M already, or enters twice, would give a place two values.
        here = torch.arange(self.k_max, device=swaps.device) < rows.count[:, None]
        inside = ((entering[:, :, None] == rows.place[:, None]) & here[:, None]).any(2)
        twice = (entering[:, :, None] == entering[:, None]).tril(-1).any(2)
        slot_twice = (leaving[:, :, None] == leaving[:, None]).tril(-1).any(2)
        wanted = active & ~inside & ~twice & ~slot_twice
        slot = torch.where(wanted, leaving, self.k_max)  # an extra slot takes what is not wanted
        padded = torch.cat([rows.place, rows.place[:, :1]], 1)
        rows.new_place = padded.scatter(1, slot, entering)[:, :-1]
        fresh = self._colors(rows.x, entering, u[:, :, 2:])
        padded_colors = torch.cat([rows.colors, rows.colors[:, :1]], 1)
        rows.new_colors = padded_colors.scatter(1, slot[..., None].expand_as(fresh), fresh)[:, :-1]
        rows.x_adv = self._image(rows.x, rows.new_place, rows.new_colors, rows.count)

    def _colors(self, x: Tensor, place: Tensor, u: Tensor) -> Tensor:
        """Random ends of the box (b, m, C) for places (b, m). A single component at one end goes to the other."""
        own = self._at(x.reshape(len(x), self.channels, -1), place)
        low, high = (bound[:, place].permute(1, 2, 0) for bound in (self.low, self.high))
        up = u >= 0.5
        if self.channels == 1:
            up = (up & (own < high)) | (own <= low)
        return torch.where(up, high, low)

    @staticmethod
    def _at(x: Tensor, place: Tensor) -> Tensor:
        """The values (b, m, C) of images (b, C, size) at places (b, m)."""
        return x.gather(2, place[:, None].expand(-1, x.shape[1], -1)).transpose(1, 2)

    def _image(self, x: Tensor, place: Tensor, colors: Tensor, count: Tensor) -> Tensor:
        """Images with the colors of the first ``count`` places."""
        flat = x.reshape(len(x), self.channels, -1)
        active = torch.arange(self.k_max, device=place.device) < count[:, None]
        slot = torch.where(active, place, self.size)[:, None].expand(-1, self.channels, -1)
        padded = torch.cat([flat, flat[:, :, :1]], 2).scatter(2, slot, colors.transpose(1, 2))
        return self.ball.keep_mask(padded[:, :, :-1].reshape(x.shape), x)
