"""A game: players, and the turns they take. One round of all turns is one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rivals.base import seeds
from rivals.game.players import Player
from rivals.game.scene import Scene, View

Parts = dict[str, Tensor]


class Batches(Protocol):
    """A stream of batches that is a function of its index."""

    n: int
    batch: int
    world: int

    def draw(self, index: int, lane: int = 0) -> tuple[Tensor, Tensor | None]:
        """The batch at ``index``: uint8 images (B, C, H, W) and labels (B,) or None. Lanes are shuffled apart."""


class Penalty(Protocol):
    """A term that joins a turn's loss on some steps."""

    @property
    def name(self) -> str: ...
    @property
    def every(self) -> int: ...
    @property
    def slopes(self) -> bool: ...
    @property
    def weight(self) -> Any: ...
    def due(self, step: int) -> bool: ...
    @property
    def score(self) -> Callable[[Any], Tensor]: ...


@dataclass(frozen=True)
class Turn:
    """One player's turn.

    Attributes:
        player: Who learns.
        loss: Its loss in named parts, whose sum is minimised.
        penalties: Terms added on the steps when they are due.
        times: How often the turn is taken in a round, each time on new images.
        readings: Other values worth recording, taken without a graph.
    """

    player: str
    loss: Callable[[Any], Parts]
    penalties: Sequence[Penalty] = ()
    times: int = 1
    readings: Callable[[Any], Parts] = field(default=lambda scene: {})


class Game:
    """Players and the order of their turns.

    Args:
        players: Those who learn, by name.
        turns: Taken in this order in each round.
        view: What the judging player sees of an image: a differentiable augmentation ``(images, seen) -> images``.
        scene: What a turn sees, made anew for each: a :class:`~rivals.game.scene.Scene` for a generator and a
            discriminator, a :class:`~rivals.game.lesson.Lesson` for a classifier.
        memory: What else the game remembers from round to round, by name: modules whose state is part of the game's.
        precision: What matrix products and convolutions are computed in, on the way to a loss: fp32, or bf16, which
            halves their time where it is built in (autocast). Weights, optimisers and penalties stay in float32, and
            so do turns whose penalties read slopes, since those are of the same pass.
        compile: Call the networks through ``torch.compile``, except in turns whose penalties read slopes: what it
            makes has no second derivative.
    """

    def __init__(
        self,
        players: Mapping[str, Player],
        turns: Sequence[Turn],
        *,
        view: View | None = None,
        scene: Callable[..., Any] = Scene,
        memory: Mapping[str, nn.Module] | None = None,
        precision: str = "fp32",
        compile: bool = False,
    ) -> None:
        self.players = dict(players)
        self.turns = list(turns)
        self.view = view
        self.scene = scene
        self.memory = dict(memory or {})
        self.cast = partial(torch.autocast, self.device.type, torch.bfloat16)
        self.half = precision == "bf16"
        self.nets = {name: player.net for name, player in self.players.items()}
        self.fused: dict[str, Any] = {name: torch.compile(net) if compile else net for name, net in self.nets.items()}
        self.rate = 1.0  # lowered by a rollback, multiplies every learning rate

    @property
    def device(self) -> torch.device:
        """Where the game is played."""
        return next(next(iter(self.players.values())).net.parameters()).device

    def images_a_round(self, batches: Batches) -> int:
        """Images shown to the player that moves first: what ``images`` counts in records, schedules and spans."""
        return batches.batch * batches.world * self.turns[0].times

    def round(self, step: int, batches: Batches, *, seed: int, rank: int = 0) -> Parts:
        """Play round ``step``. Returns its records as scalars that are still on the device.

        Everything random in a turn follows from (seed, rank, step, turn), so nothing random needs saving.
        """
        seen = step * self.images_a_round(batches)
        values: Parts = {}
        for lane, turn in enumerate(self.turns):
            for time in range(turn.times):
                torch.manual_seed(seeds.derive(seed, rank, step, lane, time))
                values |= self._take(turn, step, seen, batches, lane, step * turn.times + time)
        after = seen + self.images_a_round(batches)
        for player in self.players.values():
            player.net.requires_grad_(True)
            player.remember(after, after - seen)
        return values

    def _take(self, turn: Turn, step: int, seen: int, batches: Batches, lane: int, index: int) -> Parts:
        mover = self.players[turn.player]
        for player in self.players.values():
            player.net.train().requires_grad_(player is mover)
        due = [penalty for penalty in turn.penalties if penalty.due(step)]

        def draw() -> tuple[Tensor, Tensor | None]:
            images, labels = batches.draw(index, lane)
            kept = None if labels is None else labels.to(self.device, non_blocking=True)
            return images.to(self.device, non_blocking=True), kept

        slopes = any(penalty.slopes for penalty in due)
        scene = self.scene(
            self.nets if slopes else self.fused,
            turn.player,
            draw,
            batch=batches.batch,
            images=seen,
            view=self.view,
            slopes=slopes,
        )
        with self.cast(enabled=self.half and not slopes):
            parts = turn.loss(scene)
        loss = torch.stack(list(parts.values())).sum()
        values = {f"loss/{turn.player}": loss.detach()}
        if len(parts) > 1:
            values |= {f"loss/{turn.player}/{name}": part.detach() for name, part in parts.items()}
        total = loss
        for penalty in due:
            score = penalty.score(scene) * penalty.weight.at(seen)
            values[f"penalty/{penalty.name}"] = score.detach()
            total = total + penalty.every * score
        total.backward()  # type: ignore[no-untyped-call]
        values |= turn.readings(scene)
        values[f"grad_norm/{turn.player}"] = torch.nn.utils.get_total_norm(mover.gradients())
        mover.step(seen, self.rate)
        return values

    def state(self) -> dict[str, Tensor]:
        """The players' states as named tensors."""
        state = {
            f"{name}/{key}": value for name, player in self.players.items() for key, value in player.state().items()
        }
        return state | {
            f"{name}/{key}": value for name, module in self.memory.items() for key, value in module.state_dict().items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""
        for name, player in self.players.items():
            prefix = f"{name}/"
            player.restore({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        for name, module in self.memory.items():
            prefix = f"{name}/"
            module.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
