"""Extra labeled images for adversarial training: from a folder, a zip or a conditional generator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.common.network_io import load
from rivals.base.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rivals.data.batches import Batches
    from rivals.data.generated_batches import GeneratedBatches, Judge
    from rivals.data.imageset import ImageSet
    from rivals.recipes import DataOptions

NO_CRITIC = (
    "--extra '{}' has no discriminator, which --extra-judge critic asks: name the run folder of a GAN with its "
    "checkpoints, or leave it out"
)


def extra_batches(
    source: str,
    images: ImageSet,
    options: DataOptions,
    batch_size: int,
    device: torch.device,
    *,
    labeled: bool = True,
    critic_keeps: float = 1.0,
    **how: Any,
) -> tuple[Batches | GeneratedBatches, str]:
    """Batches of labeled images of the same size and classes as ``images``, and a hash of where they come from.

    Args:
        source: A folder or zip, read with the same options as ``images``; or a conditional generator, which makes new
            images for every batch.
        images: Those of the run.
        options: How images are read.
        batch_size: Extra images per batch.
        device: Where a generator works.
        labeled: Whether their classes are needed; if not, a teacher gives them others.
        critic_keeps: Share of the generated images that is used, those that the run's discriminator takes most for
            real; 1 uses all of them.
        **how: Seed, micro-batches, flip and shift, as for :class:`~rivals.data.batches.Batches`.

    Raises:
        UserError: they have no classes, or other ones, or another size; or there is no discriminator.
    """
    import torch

    from rivals.base.hashing import key_hash, weights_hash
    from rivals.data.batches import Batches
    from rivals.data.classes import match_classes
    from rivals.data.generated_batches import GeneratedBatches
    from rivals.data.load import load as load_images
    from rivals.data.load import to_stderr

    path = Path(source)
    if (path / "run.json").exists() or path.suffix == ".safetensors":
        generator = _generator(source, device, labeled)
        content = weights_hash(generator)
        if critic_keeps < 1:
            how["judge"], critic_hash = _critic(source, generator, critic_keeps, device)
            content = key_hash([content, critic_hash])
        if not labeled:
            _check_shape(source, generator, images)
            kinds = torch.zeros(max(1, generator.classes), dtype=torch.int64)
            paint = generator.generate_on_device
            pixels = paint if generator.classes else lambda z, kinds: paint(z)
            taught = GeneratedBatches(pixels, generator.latent_dim, kinds, batch_size, device=device, **how)
            return taught, content
        one_each = _one_of_each_class(source, generator)
        _check_shape(source, one_each, images)
        labels = match_classes(one_each, images.classes, "the run", to_stderr).labels
        assert labels is not None
        made = generator.generate_on_device, generator.latent_dim, torch.from_numpy(labels)
        return GeneratedBatches(*made, batch_size, device=device, **how), content
    if critic_keeps < 1:
        raise UserError(NO_CRITIC.format(source))
    extra = load_images(source, **options.written())
    if not labeled:
        _check_shape(source, extra, images)
        return Batches(extra, batch_size, **how), extra.hash
    if extra.labels is None:
        raise UserError(f"the extra images '{source}' have no classes: put them into one subfolder per class")
    _check_shape(source, extra, images)
    return Batches(match_classes(extra, images.classes, "the run", to_stderr), batch_size, **how), extra.hash


def _generator(source: str, device: torch.device, labeled: bool) -> Any:
    generator = load(source)
    if not hasattr(generator, "sample") or not (generator.classes or not labeled):
        raise UserError(
            f"'{source}' is not a conditional generator, which extra images need: train it with --conditional, or name "
            "an --extra-teacher"
        )
    return generator.to(device)


def _critic(source: str, generator: Any, keep: float, device: torch.device) -> tuple[Judge, str]:
    """The discriminator of the run of a generator as a judge of its images, and a hash of its weights.

    Raises:
        UserError: there is none, or it is of another GAN.
    """
    from rivals.api.equilibrium.discriminator_eval import discriminator_logits
    from rivals.api.training.start_weights import load_gan
    from rivals.base.hashing import weights_hash
    from rivals.data.generated_batches import Judge

    critic = load_gan(source, "extra").discriminator
    if critic is None:
        raise UserError(NO_CRITIC.format(source))
    if (critic.classes, critic.size, critic.channels) != (generator.classes, generator.size, generator.channels):
        raise UserError(f"the generator at '{source}' is not of the run's checkpoints: put back those of one run")
    critic = critic.to(device).eval().requires_grad_(False)

    def score(images: Tensor, classes: Tensor) -> Tensor:
        return discriminator_logits(critic, images, classes)

    return Judge(score, keep), weights_hash(critic)


def _one_of_each_class(source: str, generator: Any) -> ImageSet:
    """A set like those that the generator makes, with an image of each class."""
    import numpy as np

    from rivals.data.imageset import ImageSet

    names = tuple(generator.about.get("classes") or map(str, range(generator.classes)))
    shape = (generator.classes, generator.channels, *generator.size)
    return ImageSet(Path(source).stem, "generated", np.zeros(shape, np.uint8), np.arange(generator.classes), names)


def _check_shape(source: str, extra: Any, images: ImageSet) -> None:
    shapes = [(each.channels, *each.size) for each in (extra, images)]
    if shapes[0] != shapes[1]:
        theirs, own = ("x".join(map(str, each)) for each in shapes)
        raise UserError(f"the extra images '{source}' are {theirs} and the run's {own}: give images of the same size")
