"""A player: a network, its optimizer, and the exponential moving average (EMA) of its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.schedules import Clock, Schedule
from rivals.base.tensor_files import shape_mismatch
from rivals.game.adamw import AdamW
from rivals.game.muon import Muon

EMA_RAMPUP = 0.05  # of StyleGAN2-ADA


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015) whose learning rate and beta2 follow schedules; its weight decay is decoupled (AdamW).

    ``kind`` is the class of the optimizer: AdamW or Muon. A gradient whose norm, over all weights, is above
    ``max_norm`` is scaled down to it (Pascanu et al. 2013).
    """

    lr: Schedule
    beta1: float
    beta2: Schedule
    eps: float
    weight_decay: float = 0.0
    kind: type[AdamW] = AdamW
    max_norm: float = math.inf

    def attach(self, net: nn.Module) -> AdamW:
        """The optimizer of a network, with its fused kernel where the device has one."""
        fused = next(net.parameters()).device.type in ("cpu", "cuda", "mps", "xpu")
        betas = (self.beta1, self.beta2.start)
        return self.kind(net, self.lr.start, betas, self.eps, self.weight_decay, fused)

    def apply_schedule(self, optimizer: AdamW, clock: Clock, lr_scale: float) -> None:
        """Set the learning rate, times ``lr_scale``, and the betas for the step at ``clock``."""
        optimizer.lr = self.lr.at(clock) * lr_scale
        optimizer.betas = (self.beta1, self.beta2.at(clock))


def adam(
    lr: float | str | Schedule,
    *,
    beta1: float = 0.9,
    beta2: float | str | Schedule = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    max_norm: float = math.inf,
) -> Adam:
    """Adam with these parameters. ``weight_decay`` is decoupled from the gradients (Loshchilov & Hutter 2019).

    Gradients whose norm is above ``max_norm`` are scaled down to it.

    Raises:
        UserError: a learning rate outside (0, 1], a beta outside [0, 1), a weight decay outside [0, 1], or a max_norm
            that is not above 0.
    """
    lr, second = Schedule.parse(lr), Schedule.parse(beta2)
    if not (0 < min(lr.start, lr.end) <= max(lr.start, lr.end) <= 1):
        raise UserError(f"a learning rate of {lr} cannot work: take one above 0 and at most 1, such as 2e-4")
    if not all(0 <= beta < 1 for beta in (beta1, second.start, second.end)):
        raise UserError(f"Adam's betas ({beta1:g}, {second}) must be at least 0 and below 1, such as 0.5 and 0.99")
    if not 0 <= weight_decay <= 1:
        raise UserError(f"a weight decay of {weight_decay:g} cannot work: take 0 (none) to 1, such as 0.01")
    if not max_norm > 0:
        raise UserError(f"a max_norm of {max_norm:g} leaves no gradient: take one above 0, or math.inf for no limit")
    return Adam(lr, float(beta1), second, eps, weight_decay, max_norm=max_norm)


def muon(
    lr: float | str | Schedule, *, momentum: float = 0.95, weight_decay: float = 0.0, max_norm: float = math.inf
) -> Adam:
    """:class:`~rivals.game.muon.Muon` with these parameters; all but ``momentum`` as for :func:`adam`.

    Raises:
        UserError: as for :func:`adam`.
    """
    return replace(adam(lr, beta1=momentum, beta2=0.99, weight_decay=weight_decay, max_norm=max_norm), kind=Muon)


class Player:
    """A network that learns in its turns.

    Weights that are frozen when it is made stay so, as those of a backbone under a head; a network of frozen weights
    alone learns as a whole.

    Args:
        net: The network, already on its device.
        optimizer: Its optimizer, as :func:`adam`.
        ema: Half-life of the EMA of its weights, in images, or the schedule of it; 0 for no EMA.
        ema_rampup: The half-life is at most this fraction of the images seen, so that early in a run the EMA forgets
            the initial weights (the ramp-up of ADA, Karras et al. 2020); None for no limit.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Adam,
        *,
        ema: float | str | Schedule = 0.0,
        ema_rampup: float | None = EMA_RAMPUP,
    ) -> None:
        self.half_life = Schedule.parse(ema)
        self.ema_rampup = ema_rampup
        if min(self.half_life.start, self.half_life.end) < 0:
            raise UserError(f"an EMA half-life of {ema} images cannot work: take 0 (no EMA) or more, such as 10k")
        self.net = net
        self.frozen = [weight for weight in net.parameters() if not weight.requires_grad]
        if len(self.frozen) == len(list(net.parameters())):
            self.frozen = []
        # A frozen backbone in evaluation mode keeps its statistics, too.
        kept = {id(weight) for weight in self.frozen}
        self._still = [part for part in net.modules() if not part.training and _within(part, kept)]
        self.optimizer_config = optimizer
        self.optimizer = optimizer.attach(net)
        self.ema = copy.deepcopy(net).requires_grad_(False) if self.half_life.peak else None

    @property
    def eval_net(self) -> nn.Module:
        """The network to evaluate and save: the EMA if there is one."""
        return self.net if self.ema is None else self.ema

    def freeze(self, parts: Iterable[nn.Module]) -> None:
        """Never train these parts of the network: FreezeD (Mo et al. 2020) freezes D's blocks next to the image."""
        self.frozen += [weight for part in parts for weight in part.parameters()]

    def train(self) -> None:
        """Put the network into training mode, but for frozen parts that were in evaluation mode."""
        self.net.train()
        for part in self._still:
            part.training = False

    def set_learning(self, learning: bool) -> None:
        """Whether the weights that are not frozen take part in a turn's graph."""
        self.net.requires_grad_(learning)
        for weight in self.frozen:
            weight.requires_grad_(False)

    def gradients(self) -> list[Tensor]:
        """The gradients of the last backward pass."""
        return [weight.grad for weight in self.net.parameters() if weight.grad is not None]

    def take_gradients(self) -> list[Tensor]:
        """The gradients, which are gone from the weights afterwards."""
        gradients = self.gradients()
        self.net.zero_grad(set_to_none=True)
        return gradients

    def step(self, clock: Clock, lr_scale: float) -> Tensor:
        """Take an optimizer step at ``clock``, at the scheduled learning rate times ``lr_scale``.

        Returns the norm of the gradients over all weights, before clipping.
        """
        norm = torch.nn.utils.get_total_norm(self.gradients())
        if math.isfinite(self.optimizer_config.max_norm):
            torch.nn.utils.clip_grads_with_norm_(self.net.parameters(), self.optimizer_config.max_norm, norm)
        self.optimizer_config.apply_schedule(self.optimizer, clock, lr_scale)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    @torch.no_grad()
    def update_ema(self, clock: Clock, batch_size: int) -> None:
        """Update the EMA after a round of ``batch_size`` images that ended at ``clock``."""
        if self.ema is None:
            return
        most = math.inf if self.ema_rampup is None else self.ema_rampup * clock.images
        half_life = min(self.half_life.at(clock), most)
        beta = 0.5 ** (batch_size / max(half_life, 1e-9))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.net.parameters()), 1 - beta)
        for averaged, current in zip(self.ema.buffers(), self.net.buffers(), strict=True):
            averaged.copy_(current)

    def state(self) -> dict[str, Tensor]:
        """Weights, EMA and optimizer state as named tensors."""
        state = {f"net/{key}": value for key, value in self.net.state_dict().items()}
        if self.ema is not None:
            state |= {f"ema/{key}": value for key, value in self.ema.state_dict().items()}
        for index, weight in enumerate(self.net.parameters()):
            for key, value in self.optimizer.state.get(weight, {}).items():
                state[f"optimizer/{index}/{key}"] = value
        return state

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Load what :meth:`state` returned.

        Raises:
            UserError: it is of another network.
        """
        nets = {"net/": self.net} | ({} if self.ema is None else {"ema/": self.ema})
        for prefix, net in nets.items():
            load_state(net, {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        self.optimizer.state.clear()
        weights = list(self.net.parameters())
        for key, value in state.items():
            if key.startswith("optimizer/"):
                _, index, name = key.split("/")
                weight = weights[int(index)]
                # Moments keep the memory layout of their weight, or a resumed run would use other kernels.
                restored = torch.empty_like(weight if value.shape == weight.shape else value, dtype=value.dtype)
                # A fused kernel wants its step count on the device of the weights, the others on the CPU.
                device = weight.device if self.optimizer.fused else restored.device
                self.optimizer.state[weight][name] = restored.to(device).copy_(value)
        self.optimizer.zero_grad()


def load_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the tensors of a checkpoint into a module.

    Raises:
        UserError: they are of another module.
    """
    found, expected = ({k: v.shape for k, v in each.items()} for each in (state, module.state_dict()))
    problem = shape_mismatch(found, expected)
    if problem is not None:
        raise UserError(f"the checkpoint is of another run, since {problem}: put back those of this run")
    module.load_state_dict(state)


def _within(part: nn.Module, weights: set[int]) -> bool:
    """Whether a module has weights, all of them among these."""
    own = [id(weight) for weight in part.parameters()]
    return bool(own) and weights.issuperset(own)
