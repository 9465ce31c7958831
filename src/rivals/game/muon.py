"""Muon: a step whose matrix has all its singular values alike, so that no direction of a layer is left behind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Of the odd polynomial a x + b x^3 + c x^5 that draws every singular value in (0, 1] near to 1 (Jordan et al. 2024).
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ROUNDS = 5


class Muon(torch.optim.AdamW):
    """Muon (Jordan et al. 2024) for the weights of hidden convolutions and linear layers, AdamW for all others.

    The momentum of a weight, as a matrix of one row per output, is replaced by the nearest matrix with orthonormal rows
    or columns. Its length is scaled so that an entry moves as far as it would under AdamW at the same rate (Liu et al.
    2025, eq. 4), so one rate and one weight decay serve both.

    Args:
        weights: All that learn, in the network's order. Those with two or more dimensions are matrices, but for the
            first and the last of them, which meet the images and the classes and stay with AdamW.
        lr: The rate.
        betas: AdamW's, of the others; the first is the matrices' momentum too.
        eps: AdamW's.
        weight_decay: Decoupled.
        fused: Whether AdamW takes its fused kernel.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        fused: bool | None = None,
    ) -> None:
        every = list(weights)
        self.matrices = [weight for weight in every if weight.ndim > 1][1:-1]
        chosen = {id(weight) for weight in self.matrices}
        super().__init__([w for w in every if id(w) not in chosen], lr, betas, eps, weight_decay, fused=fused)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        super().zero_grad(set_to_none)
        for weight in self.matrices:
            weight.grad = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Learn from the gradients."""
        group = self.param_groups[0]
        for weight in self.matrices:
            if weight.grad is None:
                continue
            kept = self.state[weight]
            if not kept:
                kept["momentum"] = torch.zeros_like(weight)
            momentum = kept["momentum"].lerp_(weight.grad, 1 - group["betas"][0])
            ahead = weight.grad.lerp(momentum, group["betas"][0])  # Nesterov's
            rows = orthogonal(ahead.flatten(1))
            length = group["lr"] * 0.2 * max(rows.shape) ** 0.5
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.sub_(rows.view(weight.shape), alpha=length)
        return super().step(closure)


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix (m, n) with its singular vectors kept and its singular values drawn near to 1 (about 0.7 to 1.2)."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x = (matrix if wide else matrix.T).bfloat16()
    x = x / x.norm().clamp_min(1e-12)
    for _ in range(_ROUNDS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return (x if wide else x.T).to(matrix.dtype)
