"""Models around models: normalisation put inside, and the mean over the draws of one that is randomised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError


class Normalised(nn.Module):
    """A model that wants normalised images, made to take them in [0, 1]: ``model((x - mean) / std)``.

    So attacks work on the images as they are, and eps has the images' unit.

    Args:
        model: Images (n, C, H, W) to logits.
        mean: One number a channel.
        std: One number a channel, above 0.

    Raises:
        UserError: they do not come in pairs, or std is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if not mean or len(mean) != len(std) or not min(std) > 0:
            raise UserError(
                f"mean {list(mean)} and std {list(std)} make no normalisation: give one number of each a channel, std "
                "above 0"
            )
        self.model = model
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
        for name, values in (("mean", mean), ("std", std)):
            column = torch.tensor(list(values), dtype=like.dtype, device=like.device).view(-1, 1, 1)
            self.register_buffer(name, column, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1] to logits (n, K)."""
        logits: Tensor = self.model((x - self.mean) / self.std)
        return logits


class Averaged(nn.Module):
    """The mean of a randomised model's logits over ``draws`` passes: expectation over transformation (Athalye 2018).

    Its gradient is the mean of the gradients, so an attack sees where the model goes on average.
    """

    def __init__(self, model: nn.Module, draws: int) -> None:
        super().__init__()
        self.model = model
        self.draws = draws

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, ...) to logits (n, K)."""
        total: Tensor = self.model(x)
        for _ in range(self.draws - 1):
            total = total + self.model(x)
        return total / self.draws
