"""Pairs of images to translate between: two folders, or one image beside the other in a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.base.files import expand_user
from rivals.base.size import resizing
from rivals.data.batches import Batches
from rivals.data.decode import to_channels
from rivals.data.halves import Half
from rivals.data.imageset import ImageSet
from rivals.data.listing import Listing
from rivals.data.load import list_images, load
from rivals.data.splits import subset

SHOWN = 3  # names in a message

Side = tuple[Path, Path]


class PairedBatches:
    """Batches of two data sets as one, stacked along the channels: uint8 (b, C + C', H, W).

    Two :class:`~rivals.data.batches.Batches` of one seed over equally many images draw the same numbers: partners stay
    together, and are flipped together. Of two seeds they are independent.

    Args:
        first: The inputs; an epoch is one of them.
        second: The targets, of the same batch size and micro-batches.
    """

    def __init__(self, first: Batches, second: Batches) -> None:
        self.first, self.second = first, second
        self.n, self.batch_size, self.micro_batches = first.n, first.batch_size, first.micro_batches

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[Tensor, None]:
        """Micro-batch ``part`` of batch ``index``, and no labels."""
        (x, _), (y, _) = self.first.draw(index, stream, part), self.second.draw(index, stream, part)
        return torch.cat([x, y], 1), None


def load_folders(
    source: str | Path,
    split: str,
    *,
    partners: bool,
    whites: tuple[int | None, int | None] = (None, None),
    on_note: Callable[[str], None],
    **options: Any,
) -> tuple[ImageSet, ImageSet]:
    """The images of the folders ``A`` and ``B``.

    Each may have subfolders for splits (:func:`rivals.data.load.load`). CycleGAN's layout is read too: ``trainA``,
    ``trainB``, ``testA``, ``testB``.

    Args:
        source: The folder that holds both.
        split: train or test.
        partners: Whether each image of one has a partner of the same name, up to the suffix, in the other.
        whites: The white level of gray images of more than 8 bits in each, in place of the option ``white``.
        on_note: Called with each note to the user.
        options: As for :func:`rivals.data.load.load`.

    Raises:
        UserError: there are no such folders, an image has no partner, or the two differ in size or channels.
    """
    places = find_sides(source, split)
    order = _partners(places, split) if partners else None
    one, other = (
        _plain(
            load(
                place,
                split=_inner_split(place, split),
                on_note=on_note,
                **options | ({} if white is None else {"white": white}),
            ),
            source,
        )
        for place, white in zip(places, whites, strict=True)
    )
    if order is not None:
        other = subset(other, order)
    return check_alike(one, other, *(str(place) for place in places))


def load_side_by_side(
    source: str | Path, split: str, *, whites: tuple[int | None, int | None] = (None, None), **options: Any
) -> tuple[ImageSet, ImageSet]:
    """The left and the right halves of images that are twice as wide as high; as :func:`load_folders`."""
    halves: tuple[Half, Half] = ("left", "right")
    left, right = (
        _plain(
            load(source, split=split, half=half, **options | ({} if white is None else {"white": white})),
            source,
        )
        for half, white in zip(halves, whites, strict=True)
    )
    return left, right


def find_sides(source: str | Path, split: str) -> Side:
    """The two folders of a split.

    Raises:
        UserError: they are not there.
    """
    home = expand_user(source)
    candidates = [(home / "A", home / "B"), (home / f"{split}A", home / f"{split}B")]
    found = next((pair for pair in candidates if all(side.is_dir() for side in pair)), None)
    if found is None:
        raise UserError(
            f"'{source}' has no folders A and B to translate between: make them, or add --scale 2 to learn to enlarge "
            "the images"
        )
    return found


def has_folders(source: str | Path, split: str) -> bool:
    """Whether both folders have images of a split of this name."""
    try:
        for place in find_sides(source, split):
            with list_images(place, _inner_split(place, split), lambda note: None):
                pass
    except UserError:
        return False
    return True


def check_alike(one: ImageSet, other: ImageSet, name: str, other_name: str) -> tuple[ImageSet, ImageSet]:
    """Two sets of one size, as they are.

    Raises:
        UserError: their sizes differ.
    """
    if one.size != other.size:
        least = min(one.size, other.size, key=lambda size: size.area)
        raise UserError(
            f"the images in '{name}' are {one.size} px and those in '{other_name}' {other.size} px: choose one size "
            f"with --size, as in {resizing(least, one.size, other.size)}"
        )
    return one, other


def with_channels(images: ImageSet, channels: int) -> ImageSet:
    """Images with more channels: gray is repeated, and a new alpha is opaque."""
    if images.channels == channels:
        return images
    return dataclasses.replace(images, images=to_channels(images.images[:], channels))


def _inner_split(place: Path, split: str) -> str:
    """The split of a folder whose own name may say it already."""
    return "train" if place.name.startswith(split) else split


def _plain(images: ImageSet, source: str | Path) -> ImageSet:
    """Images without classes, called as their source."""
    return dataclasses.replace(images, name=expand_user(source).resolve().name, labels=None, classes=())


def _partners(places: Side, split: str) -> npt.NDArray[np.int64] | None:
    """Where the partner of each image of the first folder is in the second, (n,); None if they are in the same order.

    Images are in the order of their whole names, in which suffixes count.

    Raises:
        UserError: naming some of them.
    """
    stems: list[dict[str, str]] = []
    for place in places:
        with list_images(place, _inner_split(place, split), lambda note: None) as listing:
            stems.append(_stems(listing, place))
    alone = [
        f"'{place.name}/{name}'"
        for place, own, others in zip(places, stems, stems[::-1], strict=True)
        for stem, name in own.items()
        if stem not in others
    ]
    if alone:
        named = ", ".join(alone[:SHOWN]) + (f" and {len(alone) - SHOWN:,} more" if len(alone) > SHOWN else "")
        raise UserError(
            f"{named} in '{places[0].parent}' {'has' if len(alone) == 1 else 'have'} no partner of the same name in "
            f"the other folder ({len(stems[0]):,} images and {len(stems[1]):,}): add the partners, remove what has "
            "none, or add --pairs unpaired"
        )
    place_of = {stem: at for at, stem in enumerate(stems[1])}
    order = np.array([place_of[stem] for stem in stems[0]], np.int64)
    return None if (order == np.arange(len(order))).all() else order


def _stems(listing: Listing, place: Path) -> dict[str, str]:
    """The names of images by themselves without their suffix."""
    found: dict[str, str] = {}
    for name in listing.names:
        stem = name.rpartition(".")[0]
        if stem in found:
            raise UserError(f"'{place}' has two images of one name, '{found[stem]}' and '{name}': rename one")
        found[stem] = name
    return found
