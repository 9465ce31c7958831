"""Defense-GAN (Samangouei, Kabkab & Chellappa 2018): the nearest image that a generator can make."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.defenses.purifier import Purifier

BETA1, BETA2, TINY = 0.7, 0.9, 1e-8
NAME = "Defense-GAN"


def check_generator(generator: nn.Module, defense: str) -> None:
    """Refuse what is no generator of images from latents.

    Raises:
        UserError: it is none.
    """
    if not hasattr(generator, "latent_dim"):
        raise UserError(
            f"{defense} takes a generator of images from latents, not a {type(generator).__name__}: give that of a run "
            "of rivals train"
        )


def check_images(generator: nn.Module, x: Tensor, defense: str) -> None:
    """Refuse images (n, C, H, W) of another shape than the generator's.

    Raises:
        UserError: they are.
    """
    facts: Any = generator
    shape = (facts.channels, *Size.parse(facts.size))
    if tuple(x.shape[1:]) != shape:
        theirs, ours = (" x ".join(map(str, each)) for each in (shape, x.shape[1:]))
        raise UserError(
            f"the generator of {defense} makes images of {theirs}, and these are {ours}: train one on such images"
        )


class DefenseGAN(Purifier):
    """``G(z*)`` with ``z* = argmin_z ||G(z) - x||^2``, found by L steps from each of R random starts (their eq. 6).

    The steps are Adam's instead of gradient descent at one rate: it needs fewer, and no rate for each generator. The
    random starts make it a randomized defense; they are drawn from the global random state.

    Args:
        generator: Latents (m, latent_dim) and labels (m,) or None to images (m, C, H, W) in [-1, 1], with
            ``latent_dim``, ``classes`` (0 if unconditional), ``channels`` and ``size``.
        steps: L.
        restarts: R. With a conditional generator start r is of class r mod K, so R must be K or more.
        lr: Step size in the latent space.
        unrolled: Steps, the last ones, through which a gradient flows from the result to the image; 0 for none, as it
            is deployed.

    Raises:
        UserError: a number is out of range, or the generator needs more restarts.
    """

    def __init__(
        self, generator: nn.Module, steps: int = 100, restarts: int = 4, lr: float = 0.1, unrolled: int = 0
    ) -> None:
        super().__init__()
        for name, value, least in (("steps", steps, 1), ("restarts", restarts, 1), ("unrolled", unrolled, 0)):
            if value < least:
                raise UserError(f"{name}={value} of Defense-GAN cannot work: take {least} or more")
        if not lr > 0:
            raise UserError(f"lr={lr:g} of Defense-GAN cannot work: take a step size above 0, such as 0.1")
        check_generator(generator, NAME)
        facts: Any = generator
        if facts.classes > restarts:
            raise UserError(
                f"restarts={restarts} leave out some of the generator's {facts.classes} classes: take "
                f"{facts.classes} or more, or a generator without classes"
            )
        self.generator = generator
        self.steps, self.restarts, self.lr, self.unrolled = steps, restarts, lr, unrolled

    def with_unrolled(self, unrolled: int) -> DefenseGAN:
        """The same with a gradient through the last steps; it shares the generator."""
        return DefenseGAN(self.generator, self.steps, self.restarts, self.lr, unrolled)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1] to their nearest generated images.

        Raises:
            UserError: the generator makes images of another shape.
        """
        check_images(self.generator, x, NAME)
        facts: Any = self.generator
        if not len(x):
            return x
        wanted = (x * 2 - 1).repeat_interleave(self.restarts, 0)
        labels = None
        if facts.classes:
            labels = torch.arange(self.restarts, device=x.device).remainder(facts.classes).repeat(len(x))
        like = next(self.generator.parameters())
        through = self.unrolled > 0 and torch.is_grad_enabled() and x.requires_grad
        with torch.enable_grad():
            z = self._projected(wanted.to(like), labels, through)
        z = z if through else z.detach()
        images = self.generator(z, labels)
        error = (images.detach() - wanted.detach()).flatten(1).square().mean(1).view(-1, self.restarts)
        best = error.argmin(1) + self.restarts * torch.arange(len(x), device=x.device)
        nearest: Tensor = images[best].to(x)
        return nearest.add(1).div(2).clamp(0, 1)

    def _projected(self, wanted: Tensor, labels: Tensor | None, through: bool) -> Tensor:
        """Latents (m, latent_dim) whose images are near ``wanted`` (m, C, H, W) in [-1, 1]."""
        facts: Any = self.generator
        z = torch.randn(len(wanted), facts.latent_dim, dtype=wanted.dtype, device=wanted.device)
        first, second = torch.zeros_like(z), torch.zeros_like(z)
        for step in range(self.steps):
            unrolled = through and step >= self.steps - self.unrolled
            z = z.requires_grad_() if unrolled else z.detach().requires_grad_()
            target = wanted if unrolled else wanted.detach()
            # Of a sum over images: each has its own gradient, whatever the batch.
            error = (self.generator(z, labels) - target).flatten(1).square().mean(1).sum()
            (gradient,) = torch.autograd.grad(error, z, create_graph=unrolled)
            first = BETA1 * first + (1 - BETA1) * gradient
            second = BETA2 * second + (1 - BETA2) * gradient.detach().square()
            size = (second / (1 - BETA2 ** (step + 1))).sqrt() + TINY
            rate = self.lr * (1 - step / self.steps)
            z = z - rate * first / (1 - BETA1 ** (step + 1)) / size
            if not unrolled:
                first = first.detach()
        return z
