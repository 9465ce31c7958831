"""Models around models: normalisation inside, the mean over draws of one that is randomised, smoothing by noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.seeds import generator


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


class Smoothed(nn.Module):
    """A classifier smoothed by normal noise, made so that it can be attacked: ``log mean softmax(model(x + noise))``.

    Whether the smoothed classifier changes its mind is a vote, which has no gradient; the mean of the probabilities
    has one, and where it points, votes follow (SmoothAdv: Salman et al. 2019, eq. 6). The noise is the same for every
    image and every pass: so it is a function, whose values can be compared, and batches make no difference.

    Args:
        model: Images (n, ...) to logits (n, K).
        sigma: The deviation of the noise, in the unit of the images.
        draws: Of noise; each image costs so many passes.
        seed: Of the noise.
    """

    def __init__(self, model: nn.Module, sigma: float, draws: int, seed: int = 0) -> None:
        super().__init__()
        self.model = model
        self.sigma = sigma
        self.draws = draws
        self.seed = seed
        self._noise = torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, ...) to the logarithms of mean probabilities (n, K)."""
        noise = self._noise
        if noise.shape[1:] != x.shape[1:] or noise.dtype != x.dtype or noise.device != x.device:
            drawn = torch.randn((self.draws, *x.shape[1:]), generator=generator(self.seed, "smoothed"), dtype=x.dtype)
            noise = self._noise = self.sigma * drawn.to(x.device)
        logits: Tensor = self.model((x[:, None] + noise).flatten(0, 1))
        return logits.log_softmax(1).view(len(x), self.draws, -1).logsumexp(1) - math.log(self.draws)
