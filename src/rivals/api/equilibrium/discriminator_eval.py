"""What a game's players answer and draw, told from beside: on real images that neither has learnt from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rivals.api.equilibrium import LEAST
from rivals.api.sources import images_of
from rivals.base import seeds
from rivals.base.errors import UserError
from rivals.data.holdout import chosen, hold_out
from rivals.data.names import NAMES, located
from rivals.metrics import equilibrium as measure
from rivals.metrics.entropy import histogram_entropy
from rivals.reports.run import Record

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet
    from rivals.game.game import Game
    from rivals.game.play import Moment
    from rivals.losses.gan import GanLoss

LOOKS = 20  # at the players over a run
GLANCE = 256  # images of each kind in a look
BLOCK = 250  # images in one pass


def hold_aside(
    images: ImageSet, source: Record, count: int, seed: int, quiet: bool
) -> tuple[ImageSet, ImageSet | None]:
    """The images to learn from, and those to judge by, or None where there are none.

    The latter are ``count`` of the former if that is above 0; else the source's own test images, where it has some
    on this disk, and then all that were to be learnt from are.

    Raises:
        UserError: no more than half can be kept aside.
    """
    if count:
        if not LEAST <= count <= len(images) // 2:
            raise UserError(f"--hold-out {count} of {len(images)} images: take {LEAST} to half of them, or 0 for none")
        return hold_out(images, count, seed)
    name = source["data"]
    if name in NAMES and ("test" not in NAMES[name].counts or (NAMES[name].place and not located(name, "test"))):
        return images, None  # watching is not worth a download
    try:
        held = images_of(source, quiet, "test")
    except UserError:  # most have no test images, and what is only for watching must not stop a run
        return images, None
    alike = held.images.shape[1:] == images.images.shape[1:] and held.classes == images.classes
    return images, held if alike and min(len(held), len(images)) >= LEAST else None


def levels(loss: GanLoss) -> float | None:
    """The logit or score above which the discriminator says "real": its answer at the draw, where that is known."""
    d = loss.equilibrium["d"]
    return d if d is None or loss.unit == "score" else math.log(d / (1 - d))


def pixel_entropy(images: Tensor) -> float:
    """The entropy of the values of all pixels and channels of uint8 images (N, C, H, W), in bits: 8 at most."""
    return float(histogram_entropy(torch.bincount(images.flatten(), minlength=256)))


def seen(images: ImageSet) -> tuple[Tensor, Tensor | None]:
    """A set as tensors: uint8 images, and their labels if there are any."""
    labels = None if images.labels is None else torch.from_numpy(images.labels)
    return torch.from_numpy(np.ascontiguousarray(images.images)), labels


@torch.no_grad()
def answers(net: Any, images: Tensor, labels: Tensor | None) -> Tensor:
    """A discriminator's logits (n,), on the CPU, in evaluation mode: each image is judged by itself.

    Args:
        net: The discriminator.
        images: uint8, or generated ones in [-1, 1].
        labels: Classes (n,), which a discriminator that knows none leaves aside.
    """
    net.eval()
    device = next(net.parameters()).device
    said = []
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK].to(device)
        pixels = block if block.is_floating_point() else block / 127.5 - 1
        kinds = labels[start : start + BLOCK].to(device) if net.classes and labels is not None else None
        said.append(net(pixels, kinds).float().cpu())
    return torch.cat(said)


@torch.no_grad()
def draws(net: Any, latents: Tensor, labels: Tensor | None) -> Tensor:
    """A generator's images for latents (n, latent), in [-1, 1] as a discriminator sees them, in evaluation mode."""
    net.eval()
    like = next(net.parameters())
    images = []
    for start in range(0, len(latents), BLOCK):
        kinds = labels[start : start + BLOCK].to(like.device) if net.classes and labels is not None else None
        images.append(net(latents[start : start + BLOCK].to(like), kinds))
    return torch.cat(images)


class Jury:
    """The same real images, of those that were learnt from and of others, and the same latents, asked about again.

    Args:
        generator: Whose latents and classes they are.
        images: What the players learn from.
        held: What they do not.
        n: How many of each at most.
        seed: Which ones.
    """

    def __init__(self, generator: Any, images: ImageSet, held: ImageSet, n: int, seed: int) -> None:
        n = min(n, len(images), len(held))
        self.train, self.real = (
            seen(chosen(each, np.random.default_rng(seeds.derive(seed, "jury", name)).permutation(len(each))[:n]))
            for each, name in ((images, "train"), (held, "held"))
        )
        self.latents: Tensor = generator.latents(n, seeds.derive(seed, "jury") % 2**31)

    def ask(self, discriminator: nn.Module, generator: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n,) for images that were learnt from, for others, and for generated ones of the others' classes."""
        fake = draws(generator, self.latents, self.real[1])
        return (
            answers(discriminator, *self.train),
            answers(discriminator, *self.real),
            answers(discriminator, fake, self.real[1]),
        )


def looks(game: Game, images: ImageSet, held: ImageSet, seed: int) -> Callable[[Moment], Iterator[Record]]:
    """What looks at the players at a moment: the cheap ones of the measures of equilibrium, on held-out images.

    The discriminator's scores are read out by logistic regression, so that all losses are told by the same measures.
    """
    discriminator, generator = (game.players[name].net for name in ("discriminator", "generator"))
    jury = Jury(generator, images, held, GLANCE, seed)

    def look(moment: Moment) -> Iterator[Record]:
        train, real, fake = jury.ask(discriminator, generator)
        if not all(bool(said.isfinite().all()) for said in (train, real, fake)):
            return  # the loop itself says so, and stops
        told = measure.readout(real, fake)
        found = {
            "equilibrium/accuracy": measure.accuracy(*told),
            "equilibrium/jsd_bound": measure.jsd_bound(*told),
            "equilibrium/r_v": measure.overfitting(train, real, fake),
        }
        place = {"images": moment.images, "step": moment.step, "seconds": round(moment.seconds, 3)}
        # Where D tells nothing apart, r_v is a quotient of two zeros.
        yield place | {key: each.value for key, each in found.items() if each.high - each.low < 1}

    return look
