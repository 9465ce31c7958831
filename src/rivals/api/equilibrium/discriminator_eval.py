"""Evaluates the players of a GAN on held-out real images: discriminator logits and generated images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from rivals.api.common.resume import load_images
from rivals.base import rng
from rivals.base.errors import UserError
from rivals.base.run_folder import Record
from rivals.data.builtin import DATASETS, local_path
from rivals.data.classes import match_classes
from rivals.data.splits import hold_out, subset
from rivals.metrics import equilibrium as measure
from rivals.metrics.entropy import histogram_entropy

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet
    from rivals.game.callbacks import Progress
    from rivals.game.game import Game
    from rivals.losses.gan import GanLoss
    from rivals.recipes.options import DataOptions

MIN_IMAGES = 50  # held-out images: 25 parts for each of two halves
EVALUATIONS = 20  # of the players over a run
PROBE_IMAGES = 256  # images of each kind in such an evaluation
BLOCK = 250  # images in one pass


def held_out_images(
    images: ImageSet, source: str, options: DataOptions, count: int, *, seed: int, quiet: bool
) -> tuple[ImageSet, ImageSet | None]:
    """The images to train on, and the held-out ones to evaluate on, or None where there are none.

    The latter are ``count`` of the former if that is above 0; else the test images of the source, where it has some on
    this disk.

    Raises:
        UserError: more than half would be held out.
    """
    if count:
        if len(images) < 2 * MIN_IMAGES:
            raise UserError(
                f"--hold-out {count} needs {2 * MIN_IMAGES} images, of which it takes {MIN_IMAGES} or more, and there "
                f"are {len(images)}: leave it out"
            )
        if not MIN_IMAGES <= count <= len(images) // 2:
            raise UserError(
                f"--hold-out {count} of {len(images)} images: take {MIN_IMAGES} to half of them, or 0 for none"
            )
        return hold_out(images, count, seed)
    if source in DATASETS and (
        "test" not in DATASETS[source].counts or (DATASETS[source].place and not local_path(source, "test"))
    ):
        return images, None  # monitoring is not worth a download
    try:
        held = load_images(source, options, quiet=quiet, split="test")
        if images.labels is not None:
            held = match_classes(held, images.classes, "the training set", lambda note: None)
    except UserError:  # most have no test images, and what is only for monitoring must not stop a run
        return images, None
    alike = held.images.shape[1:] == images.images.shape[1:]
    return images, held if alike and min(len(held), len(images)) >= MIN_IMAGES else None


def real_threshold(loss: GanLoss) -> float | None:
    """The logit or score above which D predicts "real": its value at equilibrium, where that is known."""
    d = loss.equilibrium["d"]
    return d if d is None or loss.unit == "score" else math.log(d / (1 - d))


def pixel_entropy(images: Tensor) -> float:
    """The entropy of the values of all pixels and channels of uint8 images (N, C, H, W), in bits: 8 at most."""
    return float(histogram_entropy(torch.bincount(images.flatten(), minlength=256)))


def as_tensors(images: ImageSet) -> tuple[Tensor, Tensor | None]:
    """An image set as tensors: uint8 images (n, C, H, W), and their labels (n,) if there are any."""
    labels = None if images.labels is None else torch.from_numpy(images.labels)
    return torch.from_numpy(np.ascontiguousarray(images.images[:])), labels


@torch.no_grad()
def discriminator_logits(net: Any, images: Tensor, labels: Tensor | None) -> Tensor:
    """A discriminator's logits (n,), on the CPU, in evaluation mode, where images do not influence each other.

    Args:
        net: The discriminator.
        images: uint8, or generated ones in [-1, 1].
        labels: Classes (n,), ignored by an unconditional discriminator.
    """
    net.eval()
    device = next(net.parameters()).device
    logits = []
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK].to(device)
        pixels = block if block.is_floating_point() else block / 127.5 - 1
        classes = labels[start : start + BLOCK].to(device) if net.classes and labels is not None else None
        logits.append(net(pixels, classes).float().cpu())
    return torch.cat(logits)


@torch.no_grad()
def generated_images(net: Any, latents: Tensor, labels: Tensor | None) -> Tensor:
    """A generator's images for latents (n, latent_dim), in [-1, 1] as a discriminator sees them, in evaluation mode."""
    net.eval()
    like = next(net.parameters())
    images = []
    for start in range(0, len(latents), BLOCK):
        classes = labels[start : start + BLOCK].to(like.device) if net.classes and labels is not None else None
        images.append(net(latents[start : start + BLOCK].to(like), classes))
    return torch.cat(images)


class ProbeSet:
    """A fixed set of training images, held-out images and latents, on which players are evaluated again and again.

    Args:
        generator: Its latents and classes count.
        images: The training images.
        held_out: Images that the players are not trained on.
        n: How many of each at most.
        seed: Which ones.
    """

    def __init__(self, generator: Any, images: ImageSet, held_out: ImageSet, n: int, seed: int) -> None:
        n = min(n, len(images), len(held_out))
        self.train, self.real = (
            as_tensors(subset(each, np.random.default_rng(rng.derive(seed, "jury", name)).permutation(len(each))[:n]))
            for each, name in ((images, "train"), (held_out, "held"))
        )
        self.latents: Tensor = generator.latents(n, rng.derive(seed, "jury") % 2**31)

    def logits(self, discriminator: nn.Module, generator: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n,) for training images, for held-out ones, and for generated ones of the held-out ones' classes."""
        fake = generated_images(generator, self.latents, self.real[1])
        return (
            discriminator_logits(discriminator, *self.train),
            discriminator_logits(discriminator, *self.real),
            discriminator_logits(discriminator, fake, self.real[1]),
        )


def equilibrium_probe(
    game: Game, images: ImageSet, held_out: ImageSet, seed: int
) -> Callable[[Progress], Iterator[Record]]:
    """A callback's action that computes the cheap measures of equilibrium, on held-out images.

    The discriminator's logits are calibrated by logistic regression, so that the measures are the same for all losses.
    """
    discriminator, generator = (game.players[name].net for name in ("discriminator", "generator"))
    probe_set = ProbeSet(generator, images, held_out, PROBE_IMAGES, seed)

    def evaluate(progress: Progress) -> Iterator[Record]:
        train, real, fake = probe_set.logits(discriminator, generator)
        if not all(bool(each.isfinite().all()) for each in (train, real, fake)):
            return  # the loop notices and stops
        calibrated = measure.calibrate(real, fake)
        found = {
            "equilibrium/accuracy": measure.balanced_accuracy(*calibrated),
            "equilibrium/jsd_bound": measure.jsd_bound(*calibrated),
            "equilibrium/r_v": measure.overfitting_rv(train, real, fake),
        }
        # Where D does not separate anything, r_v is 0 / 0.
        yield progress.record() | {key: each.value for key, each in found.items() if each.high - each.low < 1}

    return evaluate
