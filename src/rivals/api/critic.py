"""A discriminator as a part of another's training loop: of an autoencoder, an upscaler, a codec."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from rivals.base import rng
from rivals.base.duration import Duration
from rivals.base.errors import UserError
from rivals.base.evaluation_mode import evaluating
from rivals.base.run_folder import Record
from rivals.base.schedules import Clock, Schedule
from rivals.base.tensor_files import load_tensors, save_tensors
from rivals.game.callbacks import Progress
from rivals.game.critic_step import CriticStep
from rivals.game.game import Game, Turn, Values
from rivals.game.gan_step import DISCRIMINATOR, GENERATOR
from rivals.game.health_monitor import ADVICE as GAN_ADVICE
from rivals.game.health_monitor import HealthMonitor
from rivals.game.metric_buffer import MetricBuffer
from rivals.game.player import Adam, Player, adam
from rivals.losses.gan import make_loss
from rivals.losses.penalties import Penalty, dropout_of

ADVICE: dict[str, tuple[str, str]] = {
    name: (GAN_ADVICE[name][0], remedy)
    for name, remedy in {
        "discriminator-wins": "Balance the game: add penalties=[rivals.r1(0.1), rivals.r2(0.1)], or lower the learning "
        "rate of optimizer=.",
        "generator-wins": "Strengthen the critic: raise the learning rate of optimizer=, widen the network, or weaken "
        "its penalties.",
        "oscillation": "Damp it: add penalties=[rivals.r1(0.1)], or lower both learning rates.",
    }.items()
}
MAX_BALANCE = 1e4  # of the adaptive weight, as in VQGAN's code
TINY = 1e-4  # added to its denominator, likewise


class Critic:
    """A discriminator, its optimizer, losses, penalties and alarms, for a training loop that is not ours::

        critic = rivals.Critic(net, loss="hinge", penalties=[rivals.r1(0.1)], start="20k images")
        for x in loader:
            y = autoencoder(x)
            l1 = (y - x).abs().mean()
            loss = l1 + critic.loss(y, reconstruction=l1, last_layer=autoencoder.last.weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            critic.learn(real=x, fake=y)

    It is no module: an optimizer of your model's parameters must not find the critic's.

    Args:
        net: Takes images (B, ...), and labels (B,) if they are given; returns logits, (B,) or a map of them for patches
            (PatchGAN, Isola et al. 2017). On its device already.
        loss: Name of a GAN loss: hinge, nonsaturating, least-squares, wasserstein, relativistic or minimax.
        penalties: Such as ``rivals.r1(0.1, every=8)``.
        start: Images or steps that only your model learns from, such as "20k images": the critic counts them, and its
            loss is 0. None starts at once.
        weight: Of :meth:`loss`: a number, or a schedule that counts from ``start``, such as "0 -> 0.8 in 50k images".
        optimizer: As :func:`rivals.adam`; by default VQGAN's, Adam at 2e-4 with betas 0.5 and 0.9.
        augment: Differentiable augmentation ``(images, clock) -> images`` of all that the critic sees.
        seed: Of everything random in the critic's turns. Your own random state is left as it is.

    Raises:
        UserError: an unknown loss, or a start or weight that cannot work.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: str = "hinge",
        penalties: Sequence[Penalty] = (),
        *,
        start: str | None = None,
        weight: float | str | Schedule = 1.0,
        optimizer: Adam | None = None,
        augment: Callable[[Tensor, Clock], Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        self.net = net
        self.gan_loss = make_loss(loss)
        self.loss_name = loss
        self.start = None if start is None else Duration.parse(start, "the start of the critic", ("images", "steps"))
        self.weight = Schedule.parse(weight, ("images",))
        optimizer = optimizer or adam(2e-4, beta1=0.5, beta2=0.9)
        _check_schedules({"weight": self.weight, **_schedules(optimizer), **{p.name: p.weight for p in penalties}})
        _check_differences(penalties, net)
        self.seed = seed
        self.waited = 0  # images or steps before the start
        self.turns = self.images = 0  # since then
        player = Player(_WithLabels(net), optimizer)
        turn = Turn(DISCRIMINATOR, self.gan_loss.discriminator, penalties, readings=self.gan_loss.readings)
        parts = {penalty.name: penalty.score for penalty in penalties} | {"augment": augment}
        modules = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}  # LeCam's averages
        self._game = Game({DISCRIMINATOR: player}, [turn], augment=augment, modules=modules)
        self._monitor = HealthMonitor(self.gan_loss.equilibrium, ADVICE, least=self.gan_loss.least)
        self._buffer = MetricBuffer()
        self._generator_loss: Tensor | None = None

    @property
    def started(self) -> bool:
        """Whether the critic learns and counts already."""
        return self.start is None or self.waited >= self.start.amount

    @property
    def alarms(self) -> list[Record]:
        """The alarms that are raised now, each with ``alarm``, ``message`` and ``remedy``."""
        return [*self._monitor.active.values()]

    @property
    def _clock(self) -> Clock:
        """Where the critic is: schedules count from its start."""
        return Clock(self.images)

    def loss(
        self,
        fake: Tensor,
        *,
        labels: Tensor | None = None,
        real: Tensor | None = None,
        reconstruction: Tensor | None = None,
        last_layer: Tensor | None = None,
    ) -> Tensor:
        """The generator's loss, to be added to yours. Call ``backward`` before :meth:`learn`.

        With ``reconstruction`` and ``last_layer`` it is scaled so that its gradient there is as long as that of the
        reconstruction (VQGAN, Esser et al. 2021, eq. 7), and then by ``weight``.

        Args:
            fake: Images of your model, with their graph.
            labels: Their classes, (B,), for a conditional critic.
            real: The real images, which only the relativistic loss reads.
            reconstruction: Your own loss, a scalar.
            last_layer: The weight of the last layer that both losses pass through.

        Returns:
            A scalar; 0 before the start. Where no gradients are taken, as in validation, the adaptive weight is 0, as
            in VQGAN's code.

        Raises:
            UserError: one of two arguments that need each other, a reconstruction that is no scalar, a last layer that
                is frozen or not passed, or no real images for the relativistic loss.
        """
        if (reconstruction is None) != (last_layer is None):
            raise UserError("the adaptive weight needs both reconstruction=LOSS and last_layer=WEIGHT: give the other")
        if reconstruction is not None and reconstruction.numel() != 1:
            raise UserError(
                f"the reconstruction has the shape {tuple(reconstruction.shape)}, and the adaptive weight needs a "
                "scalar: give its mean"
            )
        if real is None and self.loss_name == "relativistic":
            raise UserError("the relativistic loss compares pairs: give real=IMAGES too, or take loss='hinge'")
        if not self.started:
            return fake.new_zeros(())
        player = self._game.players[DISCRIMINATOR]
        validates = not torch.is_grad_enabled()
        if not validates:
            player.train()
        player.set_learning(False)
        step = self._view(GENERATOR, fake.detach() if real is None else real, fake, labels)
        with rng.fork(self._game.device), evaluating(player.net) if validates else contextlib.nullcontext():
            # What augments draws is new in every turn, as in the critic's own.
            rng.reseed(self._game.device, self.seed, "loss", self.turns)
            total: Tensor = torch.stack([*self.gan_loss.generator(step).values()]).sum()
        self._generator_loss = total.detach()
        weight = self.weight.at(self._clock)
        if reconstruction is None or last_layer is None:
            return weight * total
        if not torch.is_grad_enabled():
            return total.new_zeros(())
        if not last_layer.requires_grad:
            raise UserError(
                "the adaptive weight compares gradients at last_layer, which is frozen: give one that learns"
            )
        gradients = [
            torch.autograd.grad(each, last_layer, retain_graph=True, allow_unused=True)[0]
            for each in (reconstruction, total)
        ]
        if any(gradient is None for gradient in gradients):
            raise UserError(
                "the adaptive weight compares gradients at last_layer, which the losses do not pass through: give the "
                "weight itself that made the images"
            )
        lengths = [gradient.norm() for gradient in gradients]
        balance: Tensor = (lengths[0] / (lengths[1] + TINY)).clamp(0, MAX_BALANCE).detach()
        return weight * balance * total

    def learn(self, real: Tensor, fake: Tensor, labels: Tensor | None = None) -> Values:
        """Take the critic's turn: one step of its optimizer on these images. Alarms are given as warnings.

        Args:
            real: Real images, (B, ...).
            fake: Generated images of the same shape; their graph is not used.
            labels: Classes of both, (B,), for a conditional critic.

        Returns:
            Losses, penalties, mean outputs and the gradient's norm, as scalars on the device; none before the start.

        Raises:
            UserError: the shapes differ.
            TrainingFailure: a value of an earlier step is not finite.
        """
        if real.shape != fake.shape:
            raise UserError(
                f"the real images are {tuple(real.shape)}, the generated ones {tuple(fake.shape)}: give pairs alike"
            )
        if not self.started:
            self.waited += len(real) if self.start is not None and self.start.unit == "images" else 1
            return {}
        self._game.make_step = partial(CriticStep, fake=fake.detach())  # or the graph would stay until the next step
        with rng.fork(self._game.device):
            # By its own count: the last batch of an epoch may be smaller.
            values = self._game.round(self.turns, _Given(real.detach(), labels), seed=self.seed, images=self.images)
        self.turns, self.images = self.turns + 1, self.images + len(real)
        self._watch(values)
        return values

    def _view(self, mover: str, real: Tensor, fake: Tensor, labels: Tensor | None) -> CriticStep:
        return CriticStep(
            self._game.nets,
            mover,
            lambda: (real, labels),
            batch_size=len(fake),
            clock=self._clock,
            augment=self._game.augment,
            needs_input_grad=False,
            fake=fake,
        )

    def _watch(self, values: Values) -> None:
        """Warn of alarms, as the values arrive on the host."""
        if self._generator_loss is not None:
            values = values | {"loss/generator": self._generator_loss}
        self._buffer.add(self.turns, self.images, values)
        for record in self._buffer.arrived():
            for alarm in self._monitor.on_record(record, Progress(self.turns, self.images, 0.0, self._buffer.seconds)):
                warnings.warn(f"{alarm['message']} {alarm['remedy']}".strip(), CriticWarning, stacklevel=3)

    def state_dict(self) -> dict[str, Tensor]:
        """Network, optimizer and counters as named tensors."""
        counts = {name: torch.tensor(getattr(self, name)) for name in _COUNTS}
        return {**self._game.state(), **counts}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what :meth:`state_dict` returned.

        Raises:
            UserError: it is of another critic.
        """
        if missing := [name for name in _COUNTS if name not in state]:
            raise UserError(f"the state has no '{missing[0]}': give what state_dict() of a Critic returned")
        self._game.restore({key: value for key, value in state.items() if key not in _COUNTS})
        for name in _COUNTS:
            setattr(self, name, int(state[name]))

    def save(self, path: str | Path) -> None:
        """Write the state as safetensors, with a digest; nothing is pickled.

        Raises:
            UserError: it cannot be written; an older file is intact.
        """
        save_tensors(Path(path), self.state_dict(), {"critic": self.loss_name})

    def load(self, path: str | Path) -> None:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: it is damaged, or of another critic.
        """
        tensors, about = load_tensors(Path(path))
        if (theirs := about.get("critic")) != self.loss_name:
            raise UserError(f"'{path}' is of a critic with the loss {theirs}, and this one has {self.loss_name}")
        self.load_state_dict(tensors)


_COUNTS = ("waited", "turns", "images")


def _schedules(optimizer: Adam) -> dict[str, Schedule]:
    """The schedules among an optimizer's settings."""
    settings = vars(optimizer)
    return {name: value for name, value in settings.items() if isinstance(value, Schedule)}


def _check_differences(penalties: Sequence[Penalty], net: nn.Module) -> None:
    """Refuse finite differences of a network with dropout: they would be of two networks.

    Raises:
        UserError: it has dropout.
    """
    for penalty in penalties:
        if penalty.name in ("fd_r1", "fd_r2") and (share := dropout_of(net)):
            raise UserError(
                f"{penalty.name} compares two passes, and the network drops {share:.0%} of its values at random in "
                f"each: take {penalty.name.removeprefix('fd_')}, or a network without dropout"
            )


def _check_schedules(schedules: Mapping[str, Schedule]) -> None:
    """Refuse schedules by the clock: the critic counts images.

    Raises:
        UserError: there is one.
    """
    for name, schedule in schedules.items():
        if schedule.length and schedule.unit != "images":
            raise UserError(
                f"the {name} '{schedule}' counts {schedule.unit}, and a critic counts images: write N images"
            )


class CriticWarning(UserWarning):
    """An alarm of a :class:`Critic`."""


class _WithLabels(nn.Module):
    """Calls a network without labels if there are none."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        # Real and generated images are passed apart where statistics of the batch couple them.
        self.uses_batch_stats = bool(getattr(net, "uses_batch_stats", False)) or any(
            isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in net.modules()
        )

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, ...) and labels (B,) to logits."""
        logits: Tensor = self.net(images) if labels is None else self.net(images, labels)
        return logits


class _Given:
    """Batches of which there is one."""

    micro_batches = 1

    def __init__(self, real: Tensor, labels: Tensor | None) -> None:
        self.n = self.batch_size = len(real)
        self.real, self.labels = real, labels

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[Tensor, Tensor | None]:
        """The given images."""
        return self.real, self.labels
