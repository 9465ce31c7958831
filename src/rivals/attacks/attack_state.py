"""What all attacks share: input checks, the frozen model, and the best adversarial example so far of every image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, Unpack

import torch
from torch import Generator, Tensor, nn

from rivals.attacks.active_batch import Rows
from rivals.attacks.attack_losses import LOSSES, LossFn
from rivals.attacks.frozen_model import FrozenModel, freeze
from rivals.attacks.input_checks import check_classes, check_images, check_labels
from rivals.attacks.model_rng import own_randomness
from rivals.base.errors import UserError
from rivals.base.norm_balls import L0, Ball
from rivals.base.rng import streams

Model = nn.Module | FrozenModel


@dataclass
class AttackState:
    """One attack on a set of images. Made by :func:`prepare`.

    Attributes:
        frozen: The model.
        x: The clean images (n, ...).
        y: Their labels (n,).
        targets: The classes to be predicted in a targeted attack (n,), or None for an untargeted one.
        loss_fn: The loss that the attack maximizes.
        batch_size: Largest number of images in one forward pass.
        stop: Whether an image is finished once it is misclassified.
        seed: Of everything random.
        best: The best iterate so far (n, ...): an adversarial one before one that is not, then the larger loss.
        fooled: Which of ``best`` are adversarial (n,).
        queries: Forward passes of each image (n,), if the attack counts them.
        needed: How many it took until one was adversarial in ball and box (n,); -1 where none was.
    """

    frozen: FrozenModel
    x: Tensor
    y: Tensor
    targets: Tensor | None
    loss_fn: LossFn
    batch_size: int
    stop: bool
    seed: int
    best: Tensor = field(init=False)
    fooled: Tensor = field(init=False)
    queries: Tensor = field(init=False)
    needed: Tensor = field(init=False)
    _best_loss: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.best = self.x.clone()
        self.fooled = torch.zeros(len(self.x), dtype=torch.bool, device=self.x.device)
        self.queries = torch.zeros(len(self.x), dtype=torch.int64, device=self.x.device)
        self.needed = torch.full_like(self.queries, -1)
        self._best_loss = torch.full((len(self.x),), -torch.inf, dtype=self.x.dtype, device=self.x.device)

    def batches(self) -> Iterator[Tensor]:
        """The indices of all images, in order, one batch at a time; nothing if there are no images."""
        if len(self.x):
            yield from torch.split(torch.arange(len(self.x), device=self.x.device), self.batch_size)

    def rows(self, indices: Tensor) -> Rows:
        """Rows at the clean images."""
        x = self.x[indices]
        return Rows(indices, torch.zeros_like(indices), x, x, self.y[indices], self.target(indices))

    def clean_logits(self, clean: Tensor | None = None) -> Tensor:
        """Clean logits (n, K), computed unless given. Misclassified images are kept as adversarial.

        Raises:
            UserError: those given have another shape.
        """
        if clean is None:
            none = self.x.new_zeros((0, self.frozen.classes))
            clean = torch.cat([none, *(self.frozen.logits(self.x[indices]) for indices in self.batches())])
        elif clean.shape != (len(self.x), self.frozen.classes):
            raise UserError(
                f"the clean logits have the shape {tuple(clean.shape)}: give the model's own for these images, "
                f"({len(self.x)}, {self.frozen.classes})"
            )
        if not len(clean):
            return clean
        already = self.is_adversarial(torch.arange(len(self.x), device=self.x.device), clean).nonzero()[:, 0]
        self.keep_best(already, self.x[already], clean[already])
        return clean

    def count_queries(self, indices: Tensor, adversarial: Tensor, count: int = 1) -> None:
        """Count forward passes of some images (m,), and remember the first that was adversarial (m,)."""
        self.queries[indices] += count
        first = indices[adversarial & (self.needed[indices] < 0)]
        self.needed[first] = self.queries[first]

    def record_queries(self, index: int, made: int, needed: int) -> None:
        """The counts of an image, by an attack that counts them itself."""
        self.queries[index], self.needed[index] = made, needed

    def checked_images(self, ball: Ball, start: Tensor) -> Tensor:
        """Images given by the caller, anywhere in the box; outside the mask, those attacked.

        Raises:
            UserError: they are not shaped like the images, or not in the box.
        """
        if start.shape != self.x.shape:
            raise UserError(f"the start has the shape {tuple(start.shape)}: give images like x, {tuple(self.x.shape)}")
        return ball.keep_mask(check_images(start, ball.bounds).to(self.x), self.x)

    def checked_start(self, ball: Ball, start: Tensor) -> Tensor:
        """Starting points given by the caller.

        Raises:
            UserError: they are not shaped like the images, or not all in ball and box.
        """
        if start.shape != self.x.shape:
            raise UserError(f"the start has the shape {tuple(start.shape)}: give images like x, {tuple(self.x.shape)}")
        start = start.detach().to(self.x)
        outside = int((~ball.contains(start, self.x)).sum())
        if outside:
            raise UserError(
                f"the start lies outside of ball or box in {outside} of {len(start)} images: project it first"
            )
        return start

    def loss(self, logits: Tensor, rows: Rows) -> Tensor:
        """The loss of each row (b,), with a graph back to the leaf of :meth:`FrozenModel.trace`."""
        with torch.enable_grad():
            return self.frozen.mean_loss(lambda each: self.loss_fn(each, rows.y, rows.target), logits)

    def keep_best(self, indices: Tensor, x_adv: Tensor, logits: Tensor) -> Tensor:
        """Keep ``x_adv`` where it is better than the best so far; return which of it is adversarial (m,).

        Args:
            indices: Which images they are (m,), none twice.
            x_adv: Images in ball and box (m, ...).
            logits: The model's logits for them (m, K).
        """
        logits = self.confirmed(indices, x_adv, logits)
        adversarial = self.is_adversarial(indices, logits)
        loss = self.loss_fn(logits, self.y[indices], self.target(indices)).to(self._best_loss.dtype)
        before = self.fooled[indices]
        better = (adversarial & ~before) | ((adversarial == before) & (loss > self._best_loss[indices]))
        chosen = indices[better]
        self.best[chosen] = x_adv.detach()[better]
        self.fooled[chosen] = adversarial[better]
        self._best_loss[chosen] = loss[better]
        return adversarial

    def confirmed(self, indices: Tensor, x_adv: Tensor, logits: Tensor) -> Tensor:
        """Logits (m, K) of images (m, ...); in a search in bf16, with a pass of its own where they seem adversarial."""
        if not self.frozen.bf16:
            return logits
        seem = self.is_adversarial(indices, logits).nonzero()[:, 0]
        return logits.index_copy(0, seem, self.frozen.logits(x_adv[seem])) if len(seem) else logits

    def is_adversarial(self, indices: Tensor, logits: Tensor) -> Tensor:
        """Whether logits (m, K) of some images (m,) are misclassified, or predict the target class (m,)."""
        predicted, target = logits.argmax(1), self.target(indices)
        return predicted != self.y[indices] if target is None else predicted == target

    def queue(self) -> tuple[Tensor, int, Callable[[Tensor], Tensor]]:
        """For :meth:`ActiveBatch.run`: the images still classified correctly, or all without ``stop``; the batch size;
        and what tells which are finished."""
        active = ~self.fooled if self.stop else torch.ones_like(self.fooled)
        return active.nonzero()[:, 0], self.batch_size, self.finished

    def finished(self, indices: Tensor) -> Tensor:
        """Which of some images need no further trial (m,)."""
        return self.fooled[indices] if self.stop else torch.zeros_like(indices, dtype=torch.bool)

    def generators(self, indices: Tensor, trials: Tensor, attack: str) -> list[Generator]:
        """The random stream of each image for its trial of an attack."""
        return streams(self.x[indices], trials.tolist(), self.seed, attack)

    def target(self, indices: Tensor) -> Tensor | None:
        """The target classes of some images (m,), or None in an untargeted attack."""
        return None if self.targets is None else self.targets[indices]


def image_range(ball: Ball) -> tuple[float, float]:
    """The bounds of the model's images, to which those of a generator are stretched; (0, 1) if they are per feature."""
    low, high = ball.bounds
    return (0.0, 1.0) if isinstance(low, Tensor) or isinstance(high, Tensor) else (low, high)


class CommonOptions(TypedDict, total=False):
    """The keyword options that every attack has.

    Attributes:
        loss: The loss to maximize, and to rank iterates by: ``ce`` (default), ``dlr``, ``margin`` or ``pm``. See
            :mod:`rivals.attacks.attack_losses`.
        targets: Target classes (n,). None (default): untargeted, any wrong class is a success.
        seed: Of everything random; 0 by default. Each image has its own random stream, made from the seed and its
            values, so that its result does not depend on the other images or on their order.
        batch_size: Largest number of images in one forward pass, 128 by default. But for rounding, results do not
            depend on it.
        stop_when_fooled: Leave an image alone once it is misclassified, also from the start (default). If not, all
            trials and steps are taken, for the largest loss among adversarial iterates, if there are any.
    """

    loss: str
    targets: Tensor | None
    seed: int
    batch_size: int
    stop_when_fooled: bool


@contextlib.contextmanager
def prepare(
    model: Model,
    x: Tensor,
    y: Tensor,
    ball: Ball | None,
    **options: Unpack[CommonOptions],
) -> Iterator[AttackState]:
    """Check the input, freeze the model, and make the :class:`AttackState`.

    Args:
        model: A module from images (n, ...) to logits (n, K), or a frozen one.
        x: Images (n, ...) in the ball's bounds, [0, 1] without a ball.
        y: Labels (n,).
        ball: The threat model; None for an attack that is bounded otherwise.
        options: See :class:`CommonOptions`.

    Raises:
        UserError: whatever :mod:`rivals.attacks.input_checks` refuses, an eps with a wrong number of entries, or
            options out of range.
    """
    if ball is not None and not isinstance(ball, Ball):
        raise UserError(f"the ball is a {type(ball).__name__}: give Linf(8 / 255), L2(0.5) or L1(12.0)")
    if ball is not None and isinstance(x, Tensor) and x.ndim > 1:
        ball.radii(x)
    x = check_images(x, (0.0, 1.0) if ball is None else ball.bounds)
    y = check_labels(y, x)
    targets, batch_size, seed = options.get("targets"), options.get("batch_size", 128), options.get("seed", 0)
    targets = None if targets is None else check_labels(targets, x, "targets")
    if batch_size < 1:
        raise UserError(f"a batch size of {batch_size} cannot work: take 1 or more")
    loss_fn, stop_when_fooled = LOSSES[options.get("loss", "ce")], options.get("stop_when_fooled", True)
    with own_randomness(seed, x.device), freeze(model, x) as frozen, torch.no_grad():
        check_classes(y, frozen.classes)
        if targets is not None:
            check_classes(targets, frozen.classes, "targets")
        with frozen.masked(None if ball is None else ball.mask):
            state = AttackState(frozen, x, y, targets, loss_fn, batch_size, stop_when_fooled, seed)
            yield state
        frozen.queries_needed = state.needed if bool(state.queries.any()) else None


def check_norm(ball: Ball, attack: str, norms: Sequence[type[Ball]]) -> None:
    """Refuse a ball in a norm that an attack has no algorithm for.

    Raises:
        UserError: the ball is in none of ``norms``.
    """
    if not isinstance(ball, Ball) or isinstance(ball, tuple(norms)):
        return
    *most, last = [norm.__name__ for norm in norms]
    named = f"{', '.join(most)} or {last}" if most else last
    flags = " or ".join(f"--norm {norm.__name__.lower()}" for norm in norms)
    others = "sigma_zero, fmn, sparse_rs or pgd" if isinstance(ball, L0) else "fmn or fab"
    raise UserError(f"{attack} is an attack in {named}, the ball is {ball}: take one in {named} ({flags}), or {others}")


def check_at_least(value: float, least: float, name: str) -> None:
    """Refuse an option below ``least``.

    Raises:
        UserError: it is, or is NaN.
    """
    if not value >= least:
        raise UserError(f"{name} of {value:g} cannot work: take {least:g} or more")
