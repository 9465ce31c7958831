"""A game: players, and the turns they take. One round of all turns is one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rivals.base import devices, rng
from rivals.base.process_group import ALONE, ProcessGroup
from rivals.base.schedules import Clock
from rivals.game.gan_step import Augment, GanStep
from rivals.game.player import Player, load_state

Values = dict[str, Tensor]
"""Scalars by name, on the device."""


class Batches(Protocol):
    """A stream of batches that is a function of its index. Each is made of equal micro-batches."""

    n: int
    batch_size: int
    micro_batches: int

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[Tensor, Tensor | None]:
        """Micro-batch ``part`` of the batch at ``index``: uint8 images (b, C, H, W) and labels (b,) or None.

        Each stream has its own order.
        """


class Penalty(Protocol):
    """A term added to a turn's loss on some steps."""

    @property
    def name(self) -> str: ...
    @property
    def every(self) -> int: ...
    @property
    def needs_input_grad(self) -> bool: ...
    @property
    def differentiates_twice(self) -> bool: ...
    @property
    def mixed_precision(self) -> bool: ...
    @property
    def weight(self) -> Any: ...
    def due(self, step: int) -> bool: ...
    @property
    def score(self) -> Callable[[Any], Tensor]: ...


@dataclass(frozen=True)
class Turn:
    """One player's turn.

    Attributes:
        player: The player that learns.
        loss: Its loss in named parts, whose sum is minimized.
        penalties: Terms added to the loss on the steps when they are due.
        times: How often the turn is taken in a round, each time on a new batch.
        readings: Other values to record, computed without a graph.
    """

    player: str
    loss: Callable[[Any], Values]
    penalties: Sequence[Penalty] = ()
    times: int = 1
    readings: Callable[[Any], Values] = field(default=lambda step: {})


class Game:
    """Players and the order of their turns.

    A step is played in the micro-batches of its batches: one after the other, or on several processes. Whatever a
    micro-batch changes is averaged over all of them: gradients, float buffers (as statistics of batch norm), and the
    values to record. Each begins with the buffers as they were at the start of the turn.

    Args:
        players: The networks that learn, by name.
        turns: Taken in this order in each round.
        augment: Differentiable augmentation ``(images, clock) -> images`` of all that the evaluating player sees.
        make_step: Makes what a turn sees: a :class:`~rivals.game.gan_step.GanStep` for a generator and a
            discriminator, a :class:`~rivals.game.classifier_step.ClassifierStep` for a classifier.
        modules: Other modules, by name, whose state is saved with the players'.
        precision: Of matrix products and convolutions on the way to a loss or to a gradient penalty: fp32, or bf16
            (autocast). Weights, optimizers and other penalties stay in float32. So do the images, hence the slopes of
            the discriminator are added up and squared in float32.
        compile: Call the networks through ``torch.compile``, except in turns with gradient penalties: compiled networks
            have no second derivative.
    """

    def __init__(
        self,
        players: Mapping[str, Player],
        turns: Sequence[Turn],
        *,
        augment: Augment | None = None,
        make_step: Callable[..., Any] = GanStep,
        modules: Mapping[str, nn.Module] | None = None,
        precision: str = "fp32",
        compile: bool = False,
    ) -> None:
        self.players = dict(players)
        self.turns = list(turns)
        self.augment = augment
        self.make_step = make_step
        self.modules = dict(modules or {})
        self.bf16 = precision == "bf16"
        self.nets = {name: player.net for name, player in self.players.items()}
        self.compiled: dict[str, Any] = {n: torch.compile(net) if compile else net for n, net in self.nets.items()}
        self.lr_scale = 1.0  # multiplies every learning rate; halved by a rollback

    @property
    def device(self) -> torch.device:
        """The device of the players."""
        return next(next(iter(self.players.values())).net.parameters()).device

    def images_per_round(self, batches: Batches) -> int:
        """Images shown to the player of the first turn: the unit of ``images`` in records, schedules and durations."""
        return batches.batch_size * self.turns[0].times

    def round(
        self,
        step: int,
        batches: Batches,
        *,
        seed: int,
        seconds: float = 0.0,
        images: int | None = None,
        processes: ProcessGroup = ALONE,
    ) -> Values:
        """Play round ``step``, which begins ``seconds`` after the start of the run.

        ``images`` were seen before; by default as many as all rounds before had, if each was as large.

        Returns the values to record as scalars that are still on the device. Everything random in a turn follows from
        (seed, micro-batch, step, turn), so no random state needs to be saved.
        """
        clock = Clock(step * self.images_per_round(batches) if images is None else images, seconds)
        values: Values = {}
        for stream, turn in enumerate(self.turns):
            for time in range(turn.times):
                values |= self._take(turn, (step, stream, time), batches, clock, seed, processes)
        after = replace(clock, images=clock.images + self.images_per_round(batches))
        for player in self.players.values():
            player.set_learning(True)
            player.update_ema(after, after.images - clock.images)
        return values

    def _take(
        self,
        turn: Turn,
        place: tuple[int, int, int],
        batches: Batches,
        clock: Clock,
        seed: int,
        processes: ProcessGroup,
    ) -> Values:
        """Take a turn, at ``place``: (step, stream of its batches, how often it was taken in this round).

        All its micro-batches are played, then its player learns from the mean of their gradients.
        """
        mover = self.players[turn.player]
        for player in self.players.values():
            player.train()
            player.set_learning(player is mover)
        count = batches.micro_batches
        buffers = self._buffers() if count > 1 else []  # a single micro-batch changes them in place
        averaged = [buffer for buffer in buffers if buffer.is_floating_point()]
        before = [buffer.clone() for buffer in buffers]
        learning: list[nn.Parameter] = []
        names: list[str] = []

        def play_share() -> Iterator[list[Tensor]]:
            """What each micro-batch of this process changes: gradients, buffers, values."""
            for part in processes.share_of(count):
                for buffer, value in zip(buffers, before, strict=True):
                    buffer.copy_(value)
                rng.reseed(self.device, seed, part, *place)
                values = self._play(turn, place, batches, replace(clock, micro_batch=part))
                names[:] = values
                learning[:] = [weight for weight in mover.net.parameters() if weight.grad is not None]
                yield [*mover.take_gradients(), *(buffer.clone() for buffer in averaged), *values.values()]

        means = iter(processes.mean(play_share(), count))
        for weight in learning:
            weight.grad = next(means)
        for buffer in averaged:
            buffer.copy_(next(means))
        values = dict(zip(names, means, strict=True))
        values[f"grad_norm/{turn.player}"] = mover.step(clock, self.lr_scale)
        return values

    def _play(self, turn: Turn, place: tuple[int, int, int], batches: Batches, clock: Clock) -> Values:
        """Forward and backward pass of one micro-batch of a turn."""
        step, stream, time = place
        due = [penalty for penalty in turn.penalties if penalty.due(step)]

        def draw() -> tuple[Tensor, Tensor | None]:
            images, labels = batches.draw(step * turn.times + time, stream, clock.micro_batch)
            moved = None if labels is None else labels.to(self.device, non_blocking=True)
            return images.to(self.device, non_blocking=True), moved

        needs_input_grad = any(penalty.needs_input_grad for penalty in due)
        view = self.make_step(
            self.nets if any(penalty.differentiates_twice for penalty in due) else self.compiled,
            turn.player,
            draw,
            batch_size=batches.batch_size // batches.micro_batches,
            clock=clock,
            augment=self.augment,
            needs_input_grad=needs_input_grad,
        )
        with devices.autocast(self.device, self.bf16):
            parts = turn.loss(view)
        loss = torch.stack(list(parts.values())).sum()
        values = {f"loss/{turn.player}": loss.detach()}
        if len(parts) > 1:
            values |= {f"loss/{turn.player}/{name}": part.detach() for name, part in parts.items()}
        total = loss
        for penalty in due:
            with devices.autocast(self.device, self.bf16 and penalty.mixed_precision):
                score = penalty.score(view) * penalty.weight.at(clock)
            values[f"penalty/{penalty.name}"] = score.detach()
            # Lazy regularization (StyleGAN2, Karras et al. 2020, sec. 3.1): every k-th step, k times as strong.
            total = total + penalty.every * score
        total.backward()  # type: ignore[no-untyped-call]
        return values | turn.readings(view)

    def _buffers(self) -> list[Tensor]:
        """The buffers of all players and modules."""
        nets = [player.net for player in self.players.values()]
        return [buffer for module in (*nets, *self.modules.values()) for buffer in module.buffers()]

    def state(self) -> dict[str, Tensor]:
        """The state of all players and modules as named tensors."""
        state = {
            f"{name}/{key}": value for name, player in self.players.items() for key, value in player.state().items()
        }
        return state | {
            f"{name}/{key}": value
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Load what :meth:`state` returned.

        Raises:
            UserError: it is of another game.
        """
        for name, player in self.players.items():
            prefix = f"{name}/"
            player.restore({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        for name, module in self.modules.items():
            prefix = f"{name}/"
            load_state(module, {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
