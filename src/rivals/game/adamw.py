"""AdamW (Loshchilov & Hutter 2019) by the function that ``torch.optim.AdamW`` calls.

The optimizers of ``torch.optim`` are classes that import ``torch._dynamo`` when they are made, only to exclude
themselves from compilation: two seconds, more than the rest of ``torch`` takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw


class AdamW:
    """Adam with decoupled weight decay.

    Args:
        net: The network, all of whose parameters are updated, but for those without a gradient.
        lr: Learning rate; may be changed between steps.
        betas: Decay of the first and the second moment; may be changed between steps.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled weight decay.
        fused: Whether to use the fused kernel, which not every device has.

    Attributes:
        state: ``step``, ``exp_avg`` and ``exp_avg_sq`` of each weight, from its first gradient on.
    """

    def __init__(
        self,
        net: nn.Module,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        fused: bool = False,
    ) -> None:
        self.weights = list(net.parameters())
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.fused = fused
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for weight in self.weights:
            weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update the weights from their gradients."""
        self.update(self.weights)

    def update(self, weights: Iterable[Tensor]) -> None:
        """Update those of these weights that have a gradient."""
        learning: list[Tensor] = []
        gradients: list[Tensor] = []
        for weight in weights:
            if weight.grad is None:
                continue
            learning.append(weight)
            gradients.append(weight.grad)
            if not self.state[weight]:
                # The fused kernel wants the step on the device, the others on the CPU.
                step = torch.zeros((), device=weight.device if self.fused else "cpu")
                moments = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
                self.state[weight].update(step=step, **moments)
        states = [self.state[weight] for weight in learning]
        adamw(
            learning,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=self.fused or None,  # None: the fastest of the others
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=self.lr,
            weight_decay=self.weight_decay,
            eps=self.eps,
            maximize=False,
        )
