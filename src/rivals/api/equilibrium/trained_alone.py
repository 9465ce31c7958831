"""Training one player of a GAN against a frozen opponent: how much it could still gain."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rivals import recipes
from rivals.api.common.game_factory import build_game
from rivals.api.equilibrium.discriminator_eval import (
    as_tensors,
    discriminator_logits,
    generated_images,
)
from rivals.api.equilibrium.game_context import GameContext
from rivals.base import rng
from rivals.base.duration import Duration
from rivals.base.run_folder import Record
from rivals.base.schedules import Schedule
from rivals.data.batches import Batches
from rivals.data.splits import subset
from rivals.game.callbacks import Every, Progress
from rivals.game.game import Game
from rivals.game.loop import play
from rivals.game.metric_buffer import TrainingFailure
from rivals.game.player import Player, adam
from rivals.recipes.inverting import InvertConfig

EVALUATIONS = 10  # of a player that is trained alone, to keep its best state


class Frozen(nn.Module):
    """A player that is not trained: always in evaluation mode."""

    uses_batch_stats = False

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        self.classes, self.latent_dim = net.classes, getattr(net, "latent_dim", 0)
        self.net.eval()

    def forward(self, *inputs: Any) -> Any:
        return self.net(*inputs)

    def train(self, mode: bool = True) -> Frozen:
        return self


# Settings of a player that no such game has: an encoder.
_OTHERS = {field.name for field in fields(InvertConfig)}


def game_of_one(
    context: GameContext, config: recipes.Config, learner: str, opponent: nn.Module, start: nn.Module | None
) -> Game:
    """A game in which only one player is trained, at the learning rates of the run's end; the other is frozen."""
    end = context.clock
    fixed = {
        field: Schedule(value.at(end), value.at(end))
        for field, value in vars(config).items()
        if isinstance(value, Schedule) and field not in _OTHERS
    }
    # Instance noise only stabilizes training: the images are evaluated as they are.
    config = config.changed(**fixed | {"ema": 0, "instance_noise": 0, "discriminator_turns": 1})
    images = context.images
    shape: dict[str, Any] = {"size": images.size, "channels": images.channels, "classes": len(images.classes)}
    game = build_game(config, **shape, device=context.game.device, seed=rng.derive(context.seed, "fresh"))
    if start is not None:
        game.players[learner].net.load_state_dict(start.state_dict())
    other = "generator" if learner == "discriminator" else "discriminator"
    players = {learner: game.players[learner], other: Player(Frozen(opponent), adam(1e-4))}
    return Game(players, [turn for turn in game.turns if turn.player == learner])


def train_alone(context: GameContext, game: Game, learner: str, evaluate: Callable[[], float]) -> None:
    """Train the player for the budget, and leave it in the state with the highest ``evaluate()`` on the way."""
    net = game.players[learner].net
    best: list[Any] = [-np.inf, {}]

    def keep_best(progress: Progress) -> Iterator[Record]:
        if (value := evaluate()) > best[0]:
            best[:] = value, {key: value.clone() for key, value in net.state_dict().items()}
        yield from ()

    batches = Batches(
        context.images, context.config.batch_size, seed=rng.derive(context.seed, "alone"), flip=context.config.flip
    )
    every = Every(Duration(max(1.0, context.steps / EVALUATIONS), "steps"), keep_best)
    with contextlib.suppress(TrainingFailure):  # what was found before a failure still counts
        play(game, batches, until=Duration(context.steps, "steps"), seed=context.seed, callbacks=[every])
    net.load_state_dict(best[1])


@dataclass(frozen=True)
class EvalSet:
    """Held-out images, and latents for as many generated ones, of the same classes."""

    real: Tensor
    labels: Tensor | None
    latents: Tensor

    def logits(self, discriminator: nn.Module, generator: nn.Module) -> tuple[Tensor, Tensor]:
        """The logits of the real and of the generated images, (n,) each."""
        fake = generated_images(generator, self.latents, self.labels)
        return discriminator_logits(discriminator, self.real, self.labels), discriminator_logits(
            discriminator, fake, self.labels
        )


def split_held_out(context: GameContext, generator: Any) -> tuple[EvalSet, EvalSet]:
    """Images to select the best state on, and others to evaluate it on."""
    middle = len(context.held_out) // 2
    latents: Tensor = generator.latents(2 * middle, rng.derive(context.seed, "halves") % 2**31)
    return tuple(  # type: ignore[return-value]
        EvalSet(*as_tensors(subset(context.held_out, places)), latents[torch.from_numpy(places)])
        for places in (np.arange(middle), np.arange(middle, 2 * middle))
    )
