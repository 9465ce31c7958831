"""Wrappers of classifiers: normalization, expectation over transformation, randomized smoothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.images_under_noise import images_under_noise
from rivals.base.rng import generator


class NormalizedModel(nn.Module):
    """A model with its normalization inside, ``model((x - mean) / std)``, so that eps is in the unit of [0, 1] images.

    Args:
        model: Normalized images (n, C, H, W) to logits.
        mean: One number per channel.
        std: One number per channel, above 0.

    Raises:
        UserError: mean and std differ in length, or std is not positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if not mean or len(mean) != len(std) or not min(std) > 0:
            raise UserError(
                f"mean {list(mean)} and std {list(std)} make no normalization: give one of each per channel, std "
                "above 0"
            )
        self.model = model
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
        for name, values in (("mean", mean), ("std", std)):
            per_channel = torch.tensor(list(values), dtype=like.dtype, device=like.device).view(-1, 1, 1)
            self.register_buffer(name, per_channel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1] to logits (n, K)."""
        logits: Tensor = self.model((x - self.mean) / self.std)
        return logits


class ReorderedModel(nn.Module):
    """A model with its classes in another order.

    Args:
        model: Images (n, C, H, W) to logits (n, K).
        order: For each class the index of its logit in ``model``, K of them.
    """

    order: Tensor

    def __init__(self, model: nn.Module, order: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        device = next((p.device for p in model.parameters()), None)
        self.register_buffer("order", torch.tensor(list(order), device=device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, C, H, W) to logits (n, K), in the new order."""
        logits: Tensor = self.model(x)
        return logits[:, self.order]


class EOTModel(nn.Module):
    """A randomized model's logits averaged over ``passes`` forward passes (EOT, Athalye et al. 2018).

    Its gradient is the mean of the gradients, the direction that fools the model on average.
    """

    def __init__(self, model: nn.Module, passes: int) -> None:
        super().__init__()
        self.model = model
        self.passes = passes

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, ...) to logits (n, K)."""
        total: Tensor = self.model(x.clone())  # a copy for each pass: a model may write on its input
        for _ in range(self.passes - 1):
            total = total + self.model(x.clone())
        return total / self.passes


class SmoothedClassifier(nn.Module):
    """A classifier smoothed by Gaussian noise, differentiable: ``log mean_i softmax(model(x + noise_i))``.

    The smoothed classifier itself is a majority vote, which has no gradient; the mean of the probabilities has one, and
    the vote follows it (SmoothAdv: Salman et al. 2019, eq. 6). The noise is the same for every image and every pass, so
    this is a deterministic function, independent of the batch.

    Args:
        model: Images (n, ...) to logits (n, K).
        sigma: Standard deviation of the noise, in the unit of the images.
        samples: Number of noise samples, each of which costs a forward pass.
        seed: Of the noise.
    """

    def __init__(self, model: nn.Module, sigma: float, samples: int, seed: int = 0) -> None:
        super().__init__()
        self.model = model
        self.sigma = sigma
        self.samples = samples
        self.seed = seed
        self._noise = torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, ...) to the logarithms of mean probabilities (n, K)."""
        noise = self._noise
        if noise.shape[1:] != x.shape[1:] or noise.dtype != x.dtype or noise.device != x.device:
            unit = torch.randn((self.samples, *x.shape[1:]), generator=generator(self.seed, "smoothed"), dtype=x.dtype)
            noise = self._noise = self.sigma * unit.to(x.device)
        with images_under_noise():
            logits: Tensor = self.model((x[:, None] + noise).flatten(0, 1))
        # log((1/m) sum_i p_i) from log-probabilities, without underflow.
        # A class that is masked, of -inf, has a gradient of 0 and not NaN.
        logs = logits.log_softmax(1).clamp_min(torch.finfo(logits.dtype).min)
        return logs.view(len(x), self.samples, -1).logsumexp(1) - math.log(self.samples)
