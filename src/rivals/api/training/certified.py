"""The game of certified training: a classifier learns from bounds of its own logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from rivals.api.training.callbacks import BLOCK
from rivals.base.duration import Duration
from rivals.base.errors import UserError
from rivals.base.norm_balls import Ball, Linf
from rivals.base.run_folder import Record
from rivals.base.schedules import Clock
from rivals.bounds.crown import crown_ibp_margins
from rivals.bounds.ibp import interval_margins, smallest_margin
from rivals.bounds.network import Network
from rivals.bounds.regions import Region, region_of
from rivals.bounds.tracing import trace
from rivals.bounds.training_bounds import CrownIbpBounds, TrainingBounds
from rivals.data.imageset import ImageSet
from rivals.game.callbacks import Callback, Progress
from rivals.game.certified_step import Bound, CertifiedStep
from rivals.game.classifier_step import Attack, ClassifierStep
from rivals.game.game import Game, Turn
from rivals.game.player import Player
from rivals.losses.certified import ibp, mtl_ibp, readings, regularized
from rivals.recipes import HardenConfig

CROWN_BLOCK = 50
"""Images that CROWN-IBP bounds at once."""

Margins = Callable[[Network, Region, Tensor], Tensor]
Ramp = Callable[[Clock], float]


def certified_game(config: HardenConfig, player: Player, ball: Ball, attack: Attack, ramp: Ramp) -> Game:
    """A game of one player, whose turn sees bounds.

    Args:
        config: The settings.
        player: The classifier.
        ball: The ball at its full radius.
        attack: Makes the adversarial examples, for the methods that use them.
        ramp: Eps at a point of the run as a share of its full value.
    """
    method = config.resolved
    assert method.kappa is not None
    loss = mtl_ibp(method.kappa) if method.loss == "mtl-ibp" else ibp(method.kappa)
    bound = BOUNDS[method.loss](config, ball, ramp)
    return Game(
        {"classifier": player},
        [Turn("classifier", regularized(loss, config.ibp_regularizer), readings=readings)],
        make_step=partial(CertifiedStep, bound=bound, progress=ramp, attack=attack),
        precision=config.precision,
    )


def attacked_ball(config: HardenConfig, ball: Ball) -> Ball:
    """The ball at full radius that the attack searches: where sabr puts the centers of its boxes, they stay inside."""
    share = 1 - config.small_box if config.resolved.loss == "sabr" else 1.0
    return type(ball)(share * config.eps_factor * float(ball.eps))


def check_eps_factor(config: HardenConfig, ball: Ball) -> None:
    """Refuse radii of training, eps times --eps-factor, that are no radii for images, before a run begins.

    Raises:
        UserError: in Linf it is more than the images' range.
    """
    low, high = ball.bounds
    eps, factor = float(ball.eps), config.eps_factor
    if isinstance(ball, Linf) and eps * factor > high - low:
        raise UserError(
            f"--eps {eps:g} times --eps-factor {factor:g} is {eps * factor:g}, and images span {high - low:g}: "
            f"take an --eps-factor of {(high - low) / eps:.3g} or less, or less --eps"
        )


class Traces:
    """The trace of a network, which follows its weights, made once."""

    def __init__(self) -> None:
        self.net: nn.Module | None = None
        self.network: Network

    def __call__(self, net: nn.Module, x: Tensor) -> Network:
        if self.net is not net:
            self.net, self.network = net, trace(net, x)
        return self.network


@dataclass(frozen=True)
class Around:
    """IBP over the ball around each clean image (Gowal et al. 2018).

    Attributes:
        config: The settings.
        ball: The ball at its full radius.
        ramp: Eps at a point of the run as a share of its full value.
        networks: The network's trace.
    """

    config: HardenConfig
    ball: Ball
    ramp: Ramp
    networks: Traces = field(default_factory=Traces)

    def eps(self, step: ClassifierStep) -> float:
        """The radius now."""
        return self.ramp(step.clock) * self.config.eps_factor * float(self.ball.eps)

    def __call__(self, net: nn.Module, step: ClassifierStep) -> TrainingBounds:
        region = region_of(step.x, type(self.ball)(self.eps(step)))
        return TrainingBounds(self.networks(net, step.x), step.x, step.y, region)


class AroundByCrown(Around):
    """CROWN-IBP over the ball around each clean image (Zhang et al. 2020)."""

    def __call__(self, net: nn.Module, step: ClassifierStep) -> TrainingBounds:
        region = region_of(step.x, type(self.ball)(self.eps(step)))
        share = 1 - self.ramp(step.clock)
        return CrownIbpBounds(self.networks(net, step.x), step.x, step.y, region, share)


class AroundAdversarial(Around):
    """IBP over a small box around an adversarial example (SABR, Mueller et al. 2023, alg. 1)."""

    def __call__(self, net: nn.Module, step: ClassifierStep) -> TrainingBounds:
        region = region_of(step.x_adv, type(self.ball)(self.config.small_box * self.eps(step)))
        return TrainingBounds(self.networks(net, step.x), step.x, step.y, region)


BOUNDS: dict[str, Callable[[HardenConfig, Ball, Ramp], Bound]] = {
    "ibp": Around,
    "crown-ibp": AroundByCrown,
    "sabr": AroundAdversarial,
    "mtl-ibp": Around,
}


class CertifiedAccuracy(Callback):
    """Measures on held-out images the clean accuracy, and the share that is certified.

    By IBP, and by CROWN-IBP where that fails: IBP alone says little of a network whose training weighs it little (sabr,
    mtl-ibp).

    Args:
        every: Time between two evaluations.
        player: The classifier.
        held_out: Labeled images that it is not trained on.
        ball: The ball of the certificates.
    """

    def __init__(self, every: Duration, player: Player, held_out: ImageSet, ball: Ball) -> None:
        self.every = every
        self.player = player
        self.ball = ball
        assert held_out.labels is not None
        device = next(player.net.parameters()).device
        self.x = torch.from_numpy(held_out.images[:]).to(device) / 255
        self.y = torch.from_numpy(held_out.labels).to(device)

    @torch.no_grad()
    def measure(self, progress: Progress) -> Iterator[Record]:
        """The record of an evaluation."""
        net = self.player.eval_net.eval()
        network = trace(net, self.x).frozen()
        correct = certified = 0
        for x, y in zip(torch.split(self.x, BLOCK), torch.split(self.y, BLOCK), strict=True):
            right = net(x).argmax(1) == y
            correct += int(right.sum())
            proven = self._proven(interval_margins, network, x[right], y[right])
            left = right.nonzero()[:, 0][~proven]
            certified += int(proven.sum())
            for rows in left.split(CROWN_BLOCK):
                certified += int(self._proven(crown_ibp_margins, network, x[rows], y[rows]).sum())
        n = len(self.y)
        yield progress.record(**{"accuracy/held_out": correct / n, "accuracy/certified": certified / n})

    def _proven(self, margins_of: Margins, network: Network, x: Tensor, y: Tensor) -> Tensor:
        """Which images of labels y a bound certifies, (B,) bool."""
        return smallest_margin(margins_of(network, region_of(x, self.ball), y), y) > 0
