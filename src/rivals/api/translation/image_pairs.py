"""The images of a translation: targets with their inputs, which may be made from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rivals.base import rng
from rivals.base.errors import UserError
from rivals.base.size import Size

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rivals.data.imageset import ImageSet
    from rivals.game.game import Batches
    from rivals.recipes import DataOptions, TranslateConfig

MAX_HELD_OUT = 1000  # training images held out by default, at most a tenth
MIN_IMAGES = 10


@dataclass(frozen=True, eq=False)
class ImagePairs:
    """Targets and inputs.

    Attributes:
        targets: The images to arrive at.
        inputs: Those to start from, of the same size; None where the targets are downscaled.
        scale: By how much.
        paired: Whether input i belongs to target i.
    """

    targets: ImageSet
    inputs: ImageSet | None
    scale: int
    paired: bool

    @property
    def in_channels(self) -> int:
        """Channels of the inputs."""
        return self.targets.channels if self.inputs is None else self.inputs.channels

    @property
    def whites(self) -> tuple[int | None, int | None]:
        """The white levels of gray inputs and targets of more than 8 bits."""
        return (self.targets if self.inputs is None else self.inputs).white, self.targets.white

    def shuffled(self) -> ImagePairs:
        """The same pairs in one random order: files are often sorted by class, and the first ones are judged."""
        from rivals.data.splits import subset

        def order(n: int) -> Any:
            return np.random.default_rng(0).permutation(n)

        inputs = None if self.inputs is None else subset(self.inputs, order(len(self.inputs)))
        return ImagePairs(subset(self.targets, order(len(self.targets))), inputs, self.scale, self.paired)

    def __len__(self) -> int:
        """How many inputs there are."""
        return len(self.targets if self.inputs is None else self.inputs)

    def x(self, first: int, last: int, device: torch.device) -> Tensor:
        """Inputs from ``first`` to before ``last``, (n, C, h, w) in [0, 1]."""
        import torch

        if self.inputs is None:
            return self.split(self.y(first, last, device))[0]
        return torch.from_numpy(self.inputs.images[first:last]).to(device) / 255

    def y(self, first: int, last: int, device: torch.device) -> Tensor:
        """Targets from ``first`` to before ``last``, (n, C', H, W) in [0, 1]."""
        import torch

        return torch.from_numpy(self.targets.images[first:last]).to(device) / 255

    @property
    def split(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """From a batch of :meth:`batches`, in [0, 1], to inputs and targets."""
        if self.inputs is None:
            return partial(_downscale, scale=self.scale)
        return partial(_unstack, channels=self.inputs.channels)

    def batches(self, config: TranslateConfig, seed: int, micro_batches: int) -> Batches:
        """Batches of targets, or of inputs and targets stacked along the channels."""
        from rivals.data.batches import Batches as ImageBatches
        from rivals.data.pairs import PairedBatches

        options: dict[str, Any] = {"micro_batches": micro_batches, "flip": config.flip}
        if self.inputs is None:
            return _cut(ImageBatches(self.targets, config.batch_size, seed=seed, **options), config, seed)
        other_seed = seed if self.paired else rng.derive(seed, "targets")
        inputs = ImageBatches(self.inputs, config.batch_size, seed=seed, **options)
        targets = ImageBatches(self.targets, config.batch_size, seed=other_seed, **options)
        return _cut(PairedBatches(inputs, targets), config, seed)

    def held_out(self, count: int, seed: int) -> tuple[ImagePairs, ImagePairs]:
        """The pairs without some random ones, and those; without pairs some of either side."""
        from rivals.data.splits import hold_out

        kept, held = hold_out(self.targets, count, seed)
        if self.inputs is None:
            parts: tuple[Any, Any] = (None, None)
        else:
            parts = hold_out(self.inputs, count, seed)  # of as many, the same
        return (
            ImagePairs(kept, parts[0], self.scale, self.paired),
            ImagePairs(held, parts[1], self.scale, self.paired),
        )

    @property
    def hash(self) -> str:
        """Of the content of both sides."""
        from rivals.base.hashing import key_hash

        return self.targets.hash if self.inputs is None else key_hash(self.targets.hash, self.inputs.hash)


def _cut(batches: Batches, config: TranslateConfig, seed: int) -> Batches:
    from rivals.data.patches import PatchBatches

    return batches if config.patch_size is None else PatchBatches(batches, config.patch_size, seed=seed)


def _downscale(images: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    from rivals.data.downscaling import downscaled

    return downscaled(images, scale), images


def _unstack(images: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    return images[:, :channels], images[:, channels:]


def load_image_pairs(
    source: str,
    config: TranslateConfig,
    options: DataOptions,
    split: str,
    on_note: Callable[[str], None],
    like: ImagePairs | None = None,
) -> ImagePairs:
    """The images of a split.

    Args:
        source: Of the data.
        config: What is translated into what.
        options: How images are read.
        split: train or test.
        on_note: Called with each note to the user.
        like: Pairs with the same white levels, each side its own.

    Raises:
        UserError: they cannot be read, or make no pairs.
    """
    from rivals.data.load import load
    from rivals.data.pairs import load_folders, load_side_by_side, with_channels

    reading: dict[str, Any] = {**vars(options), "on_note": on_note}
    of_inputs, of_targets = (None, None) if like is None else like.whites
    whites = (of_targets, of_inputs) if config.reverse else (of_inputs, of_targets)
    if config.scale > 1:
        reading["white"] = reading["white"] if of_targets is None else of_targets
        images = load(source, split=split, **reading)
        if any(side % config.scale or side // config.scale < 4 for side in images.size):
            least = max(8, 4 * config.scale)
            fit = Size(*(max(least, side // config.scale * config.scale) for side in images.size))
            raise UserError(
                f"the images of '{images.name}' are {images.size} px, which makes no low resolution at --scale "
                f"{config.scale}: take a size that it divides, as --size {fit} --crop"
            )
        return ImagePairs(images, None, config.scale, True)
    if config.pairs == "side-by-side":
        both = load_side_by_side(source, split, whites=whites, **reading)
    else:
        if options.skip_bad and config.paired:
            raise UserError("--skip-bad would leave the partner of an image alone: remove both files of such pairs")
        both = load_folders(source, split, partners=config.paired, whites=whites, **reading)
    inputs, targets = both[::-1] if config.reverse else both
    if not config.paired:
        # PatchNCE passes what came out through the same encoder as the input.
        channels = max(inputs.channels, targets.channels)
        inputs, targets = with_channels(inputs, channels), with_channels(targets, channels)
    return ImagePairs(targets, inputs, 1, config.paired)


def load_held_out(
    pairs: ImagePairs,
    source: str,
    config: TranslateConfig,
    options: DataOptions,
    seed: int,
    on_note: Callable[[str], None],
) -> tuple[ImagePairs, ImagePairs]:
    """Pairs to train on, and pairs to judge on: test images if there are some, else some of the training images.

    Raises:
        UserError: there are too few images.
    """
    fewest = min(len(pairs), len(pairs.targets))
    if fewest < MIN_IMAGES:
        raise UserError(f"'{pairs.targets.name}' has {fewest} images, too few to learn from: give {MIN_IMAGES} or more")
    if not config.hold_out and _has_test(source, config):
        test = load_image_pairs(source, config, options, "test", on_note, like=pairs)
        if min(len(test), len(test.targets)) < 2:
            raise UserError(
                f"'{pairs.targets.name}' has a single test image, and the translator is judged on 2 or more: add "
                "others, or add --hold-out 10 to judge it on training images"
            )
        ours, theirs = ((each.targets.size.written, each.targets.channels, each.in_channels) for each in (pairs, test))
        if ours != theirs:
            raise UserError(
                f"the test images of '{pairs.targets.name}' have size and channels {theirs}, those to train on "
                f"{ours}: make them alike"
            )
        return pairs, test.shuffled()
    count = config.hold_out or max(2, min(MAX_HELD_OUT, fewest // 10))
    if count > fewest // 2:
        raise UserError(
            f"'{pairs.targets.name}' has {fewest} images, of which {count} would be held out: give more images, or a "
            "smaller --hold-out"
        )
    return pairs.held_out(count, seed)


def _has_test(source: str, config: TranslateConfig) -> bool:
    from rivals.data.load import has_split
    from rivals.data.pairs import has_folders

    if config.scale > 1 or config.pairs == "side-by-side":
        return has_split(source, "test")
    return has_folders(source, "test")
