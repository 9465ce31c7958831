"""A player: a network that learns, the optimiser it learns by, and the average of its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.schedules import Schedule
from rivals.game.muon import Muon


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015) whose rate and beta2 follow schedules; its weight decay is decoupled (AdamW).

    With ``kind`` another optimiser that takes the same numbers, as Muon, which leaves to Adam what is no matrix.
    """

    lr: Schedule
    beta1: float
    beta2: Schedule
    eps: float
    weight_decay: float = 0.0
    kind: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW

    def attach(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser for these parameters, in one fused kernel where the device has one."""
        weights = list(parameters)
        fused = weights[0].device.type in ("cpu", "cuda", "mps", "xpu")
        betas = (self.beta1, self.beta2.start)
        return self.kind(weights, self.lr.start, betas, self.eps, self.weight_decay, fused=fused or None)

    def steer(self, optimizer: torch.optim.Optimizer, images: int, rate: float) -> None:
        """Set the rate, times ``rate``, and the betas for the step after ``images`` images."""
        for group in optimizer.param_groups:
            group["lr"] = self.lr.at(images) * rate
            group["betas"] = (self.beta1, self.beta2.at(images))


def adam(
    lr: float | str | Schedule,
    *,
    beta1: float = 0.9,
    beta2: float | str | Schedule = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Adam:
    """Adam's settings. ``weight_decay`` is decoupled from the gradients (Loshchilov & Hutter 2019).

    Raises:
        UserError: a rate that is not above 0 or is above 1, a beta outside [0, 1), or a decay outside [0, 1].
    """
    rate, second = Schedule.parse(lr), Schedule.parse(beta2)
    if not (0 < min(rate.start, rate.end) <= max(rate.start, rate.end) <= 1):
        raise UserError(f"a learning rate of {rate} cannot work: take one above 0 and at most 1, as 2e-4")
    if not all(0 <= beta < 1 for beta in (beta1, second.start, second.end)):
        raise UserError(f"Adam's betas ({beta1:g}, {second}) must be at least 0 and below 1, as 0.5 and 0.99")
    if not 0 <= weight_decay <= 1:
        raise UserError(f"a weight decay of {weight_decay:g} cannot work: take 0 (none) to 1, as 0.01")
    return Adam(rate, float(beta1), second, eps, weight_decay)


def muon(lr: float | str | Schedule, *, momentum: float = 0.95, weight_decay: float = 0.0) -> Adam:
    """Muon's settings (:class:`~rivals.game.muon.Muon`); ``lr`` and ``weight_decay`` as for :func:`adam`.

    Raises:
        UserError: a number that :func:`adam` refuses too.
    """
    return replace(adam(lr, beta1=momentum, beta2=0.99, weight_decay=weight_decay), kind=Muon)


class Player:
    """A network that learns by turns.

    Args:
        net: The network, already on its device.
        optimizer: How it learns, as :func:`adam`.
        ema: Half-life, in images seen, of the exponential moving average of its weights, or its schedule; 0 keeps
            none. Early in a run the half-life is at most a twentieth of what has been seen, or the average would
            remember the noise it began with (Karras et al. 2020, 2024).
    """

    def __init__(self, net: nn.Module, optimizer: Adam, *, ema: float | str | Schedule = 0.0) -> None:
        self.half_life = Schedule.parse(ema)
        if min(self.half_life.start, self.half_life.end) < 0:
            raise UserError(f"an EMA half-life of {ema} images makes no sense: take 0 (none) or more, as 10k")
        self.net = net
        self.settings = optimizer
        self.optimizer = optimizer.attach(net.parameters())
        self.fused = bool(self.optimizer.param_groups[0]["fused"])
        self.average = copy.deepcopy(net).requires_grad_(False) if self.half_life.peak else None

    @property
    def shown(self) -> nn.Module:
        """The network to show and keep: the average if there is one."""
        return self.net if self.average is None else self.average

    def gradients(self) -> list[Tensor]:
        """The gradients of the last backward pass."""
        return [weight.grad for weight in self.net.parameters() if weight.grad is not None]

    def step(self, images: int, rate: float) -> None:
        """Learn from the gradients after ``images`` images were seen, at the schedule's rate times ``rate``."""
        self.settings.steer(self.optimizer, images, rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def remember(self, images: int, batch: int) -> None:
        """Move the average towards the weights, after a batch of ``batch`` images that ended at ``images``."""
        if self.average is None:
            return
        half_life = min(self.half_life.at(images), images / 20)
        beta = 0.5 ** (batch / max(half_life, 1e-9))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.net.parameters()), 1 - beta)
        for kept, live in zip(self.average.buffers(), self.net.buffers(), strict=True):
            kept.copy_(live)

    def state(self) -> dict[str, Tensor]:
        """Everything that must survive a kill, as named tensors."""
        state = {f"net/{key}": value for key, value in self.net.state_dict().items()}
        if self.average is not None:
            state |= {f"ema/{key}": value for key, value in self.average.state_dict().items()}
        for index, weight in enumerate(self.net.parameters()):
            for key, value in self.optimizer.state.get(weight, {}).items():
                state[f"optimizer/{index}/{key}"] = value
        return state

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""
        nets = {"net/": self.net} | ({} if self.average is None else {"ema/": self.average})
        for prefix, net in nets.items():
            net.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
        self.optimizer.state.clear()
        weights = list(self.net.parameters())
        for key, value in state.items():
            if key.startswith("optimizer/"):
                _, index, name = key.split("/")
                weight = weights[int(index)]
                # Moments keep their weight's memory layout, or a resumed run would take other kernels.
                kept = torch.empty_like(weight if value.shape == weight.shape else value, dtype=value.dtype)
                # A fused kernel wants its count of steps where the weights are, the others theirs on the host.
                place = weight.device if self.fused else kept.device
                self.optimizer.state[weight][name] = kept.to(place).copy_(value)
        self.optimizer.zero_grad(set_to_none=True)
