"""Sparse-RS on a square patch that moves, and on the frame of an image (Croce et al. 2022, "Sparse-RS", sec. 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rivals.attacks.active_batch import Rows
from rivals.attacks.attack_state import AttackState
from rivals.attacks.square import empty_block, judge_proposals, random_block
from rivals.base.errors import UserError
from rivals.base.l0_ball import L0
from rivals.base.rng import draw_per_image

ALPHA = {"patch": 0.4, "frame": 0.5}  # the share that the first windows cover, as in the authors' README
_FULL = 10_000  # queries that the schedule is made for
_SCHEDULE = ((10, 2), (50, 4), (200, 8), (500, 16), (1000, 32), (4000, 64), (8000, 128))
_BLOCK = 100  # random numbers of an image are drawn for this many queries at once
_MOVE = 5  # every so many queries, and more rarely after each thousand, a patch moves instead of changing
_REACH = 0.75  # of the image's height: how far, at first


@dataclass
class RegionRows(Rows):
    """``x_adv`` is the proposal. The colors are ends of the box, on a canvas whose upper left part is a patch."""

    size: Tensor  # the side of the patch, or the width of the frame
    made: Tensor  # queries made
    value: Tensor  # the loss of the best
    up: Tensor  # the best colors (b, C, H, W): whether at the upper end
    place: Tensor  # the patch's row and column (b, 2); 0 for frames
    new_up: Tensor
    new_place: Tensor
    u: Tensor  # uniform numbers in [0, 1) for a block of proposals (b, _BLOCK, 2 + C)


class RegionSearch:
    """Random search over the colors of a patch and its place, or over those of a frame; one query per step.

    A proposal paints a square window of the region in one color, an end of the box for each channel. The windows'
    sizes fall as in the Square attack. A patch also tries other places, less and less far away.

    Args:
        state: Model and images.
        ball: How many pixels: a patch is the largest square, a frame the widest, that has no more.
        queries: The most forward passes of an image.
        alpha: The share of the region that the first windows cover.
        shape: ``patch`` or ``frame``.

    Raises:
        UserError: the ball counts no pixels, the inputs are no images, or there are too few pixels for a frame.
    """

    def __init__(self, state: AttackState, ball: L0, queries: int, alpha: float, shape: str) -> None:
        if not ball.pixels:
            raise UserError(f"a {shape} is made of pixels: take L0(k, pixels=True), or --pixels")
        if state.x.ndim != 4:
            raise UserError(f"the images have the shape {tuple(state.x.shape)}: for a {shape} give (n, C, H, W)")
        self.state, self.ball, self.queries, self.framed = state, ball, queries, shape == "frame"
        self.channels, self.height, self.width = state.x.shape[1:]
        low, high = (torch.as_tensor(bound).to(state.x).expand(state.x.shape[1:]) for bound in ball.bounds)
        self.low, self.high = low, high
        first = torch.arange(queries + 1) * _FULL / queries
        divisors = torch.ones_like(first)
        for after, divisor in _SCHEDULE:
            divisors = torch.where(first > after, float(divisor), divisors)
        self.share = (alpha / divisors).to(state.x.device)
        counts = ball.radii(state.x)
        sizes = [self._frame_width(k) if self.framed else self._patch_side(k) for k in counts.long().tolist()]
        self.sizes = torch.tensor(sizes, dtype=torch.int64, device=state.x.device)
        # By the ball's own radius, so that no images at all are refused as well.
        radii = torch.as_tensor(ball.eps).flatten()
        if self.framed and len(radii) and not self._frame_width(int(radii.max())):
            least = self.height * self.width - max(self.height - 2, 0) * max(self.width - 2, 0)
            raise UserError(
                f"{int(radii.max())} pixels are too few for a frame: take {least} or more for one that is 1 wide"
            )

    def _patch_side(self, pixels: int) -> int:
        return min(math.isqrt(pixels), self.height, self.width)

    def _frame_width(self, pixels: int) -> int:
        width = 0
        while 2 * width < min(self.height, self.width):
            inside = max(self.height - 2 * width - 2, 0) * max(self.width - 2 * width - 2, 0)
            if self.height * self.width - inside > pixels:
                break
            width += 1
        return width

    def init_rows(self, indices: Tensor, trials: Tensor) -> RegionRows:
        """Random stripes at a random place; in a frame random pixels."""
        state, x, size = self.state, self.state.x[indices], self.sizes[indices]
        generators = state.generators(indices, trials, "sparse-rs region")
        tall = self.height if self.framed else 1
        up = draw_per_image(torch.rand, x, generators, size=(self.channels, tall, self.width)) >= 0.5
        up = up.expand(-1, -1, self.height, -1).contiguous()
        place = self._place(draw_per_image(torch.rand, x, generators, size=(2,)), size)
        return RegionRows(
            index=indices,
            trial=trials,
            x=x,
            x_adv=self._image(x, up, place, size),
            y=state.y[indices],
            target=state.target(indices),
            size=size,
            made=torch.zeros_like(indices),
            value=torch.full_like(x.flatten(1)[:, 0], -torch.inf),
            up=up,
            place=place,
            new_up=up,
            new_place=place,
            u=empty_block(x, _BLOCK, 2 + self.channels),
        )

    def _place(self, u: Tensor, size: Tensor) -> Tensor:
        if self.framed:
            return torch.zeros(len(u), 2, dtype=torch.int64, device=u.device)
        last = torch.tensor([self.height, self.width], device=u.device) - size[:, None]
        return torch.minimum((u * (last + 1)).long(), last)

    def step(self, rows: RegionRows) -> Tensor:
        """Evaluate the proposal, keep it if it is better, and make the next one (Alg. 1)."""
        state = self.state
        adversarial, better = judge_proposals(state, rows, rows.x_adv)
        rows.up = torch.where(better.view(-1, 1, 1, 1), rows.new_up, rows.up)
        rows.place = torch.where(better[:, None], rows.new_place, rows.place)
        u = random_block(state, rows, rows.made, "sparse-rs region")
        rows.made = rows.made + 1
        over = (rows.made == self.queries) | (adversarial & state.stop)
        if not bool(over.all()):
            self._propose(rows, u)
        return over

    def _propose(self, rows: RegionRows, u: Tensor) -> None:
        region = self._region(rows.size)
        window = self._window(rows, u) & region
        # One color for the window; the opposite one if it has that already
        up = (u[:, 2:] >= 0.5).view(len(u), -1, 1, 1)
        same = ((rows.up == up) | ~window).flatten(1).all(1).view(-1, 1, 1, 1)
        moves = self._moves(rows)
        rows.new_up = torch.where(window & ~moves.view(-1, 1, 1, 1), up ^ same, rows.up)
        # Or another place, up to so many pixels away
        reach = (_REACH * (1 - rows.made / self.queries) * self.height).long()
        shift = (u[:, :2] * (2 * reach + 1)[:, None]).long() - reach[:, None]
        last = torch.tensor([self.height, self.width], device=u.device) - rows.size[:, None]
        moved = torch.minimum((rows.place + shift).clamp_min(0), last)
        rows.new_place = torch.where(moves[:, None], moved, rows.place)
        rows.x_adv = self._image(rows.x, rows.new_up, rows.new_place, rows.size)

    def _moves(self, rows: RegionRows) -> Tensor:
        """For which images it is the turn of the place (b,)."""
        if self.framed:
            return torch.zeros_like(rows.made, dtype=torch.bool)
        reach = (_REACH * (1 - rows.made / self.queries) * self.height).long()
        return (rows.made % (_MOVE * (1 + rows.made // 1000)) == 0) & (reach > 0)

    def _window(self, rows: RegionRows, u: Tensor) -> Tensor:
        """A square of the share that it is the turn of, on the canvas (b, 1, H, W)."""
        share = self.share[rows.made]
        if not self.framed:
            side = (share.sqrt() * rows.size).long().clamp_min(1)
            corner = (u[:, :2] * (rows.size - side + 1)[:, None]).long()
            return self._square(corner, side)
        # Around a random pixel of the frame: a place on the rim, moved inward. It covers two sides of its own length
        # at most, and there are four.
        side = (2 * share * self.height).long().clamp(1, self.height)
        depth = (u[:, 1] * rows.size).long()
        along = (u[:, 0] * 2 * (self.height + self.width)).long()
        rim = torch.stack(
            [
                torch.where(along < 2 * self.width, (along % 2) * (self.height - 1), (along - 2 * self.width) // 2),
                torch.where(along < 2 * self.width, along // 2, (along % 2) * (self.width - 1)),
            ],
            1,
        )
        last = torch.tensor([self.height - 1, self.width - 1], device=u.device) - depth[:, None]
        center = torch.minimum(torch.maximum(rim, depth[:, None]), last)
        return self._square(center - side[:, None] // 2, side)

    def _square(self, corner: Tensor, side: Tensor) -> Tensor:
        row, column = (
            torch.arange(length, device=side.device) - corner[:, i : i + 1]
            for i, length in enumerate((self.height, self.width))
        )
        inside_row, inside_column = ((each >= 0) & (each < side[:, None]) for each in (row, column))
        return inside_row[:, None, :, None] & inside_column[:, None, None, :]

    def _region(self, size: Tensor) -> Tensor:
        """The patch, or the frame, on the canvas (b, 1, H, W)."""
        corner = torch.zeros(len(size), 2, dtype=torch.int64, device=size.device)
        if not self.framed:
            return self._square(corner, size)
        row, column = (torch.arange(length, device=size.device) for length in (self.height, self.width))
        row, column = torch.minimum(row, row.flip(0)), torch.minimum(column, column.flip(0))  # to the nearer side
        return torch.minimum(row[:, None], column)[None, None] < size.view(-1, 1, 1, 1)

    def _image(self, x: Tensor, up: Tensor, place: Tensor, size: Tensor) -> Tensor:
        """The images with the canvas's colors at the place."""
        region = self._region(size)
        for dim, length in ((2, self.height), (3, self.width)):
            shape = [len(x), 1, 1, 1]
            shape[dim] = length
            source = torch.arange(length, device=x.device) - place[:, dim - 2 : dim - 1]
            outside = (source < 0).view(shape)
            source = source.clamp_min(0).view(shape)
            up = up.gather(dim, source.expand_as(up))
            region = region.gather(dim, source.expand_as(region)) & ~outside
        return self.ball.keep_mask(torch.where(region, torch.where(up, self.high, self.low), x), x)
