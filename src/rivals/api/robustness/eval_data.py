"""The images of an evaluation, taken a chunk at a time, in an order that is the same for everyone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rivals.api.models import Named
from rivals.base.balls import Ball
from rivals.base.errors import UserError
from rivals.base.seeds import generator

if TYPE_CHECKING:
    from torch import Tensor

    from rivals.data.imageset import ImageSet


@dataclass(frozen=True, eq=False)
class Pool:
    """Images with labels, in the order of the evaluation.

    Attributes:
        labels: The class of each (n,).
        order: Which image of the source each is (n,).
        classes: Their names, if they have any.
        shape: Of one image.
        about: What ``run.json`` says of them.
        gather: Images, floating-point in the ball's bounds, by their places in the source.
    """

    labels: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    about: dict[str, Any]
    gather: Callable[[npt.NDArray[np.int64]], Tensor]

    def __len__(self) -> int:
        return len(self.order)

    def take(self, chosen: npt.NDArray[np.int64]) -> Tensor:
        """Some of the images (m, ...), by their places in the order."""
        return self.gather(self.order[chosen])


def fill(
    data: Any,
    ball: Ball,
    named: Named,
    n: int | None,
    *,
    split: str | None,
    size: int | None,
    note: Callable[[str], None],
    **how: bool,
) -> Pool:
    """The first ``n`` images of some data.

    Files are often sorted by class. So the order of a data set is one permutation that depends on the number of its
    images alone, not on the seed: the first 100 are among the first 1,000, and the same for every model and attack.
    Tensors are taken as they come.

    Args:
        data: A name, a folder or a zip; an :class:`ImageSet`; or a pair of tensors (images, labels).
        ball: Its bounds are those of the images.
        named: The model: images of a file are resized to what it takes.
        n: How many; all if None.
        split: Of a data set that has a name.
        size: Side to resize to, in pixels.
        note: Gets what the user should know.
        how: Handed to the loader: crop, skip_bad.

    Raises:
        UserError: the data cannot be had, or do not fit the model.
    """
    if n is not None and n < 1:
        raise UserError(f"{n} images make no evaluation: take 1 or more")
    if isinstance(data, tuple | list):
        return _from_pair(data, ball, n)
    images = _images(data, named, split=split, size=size, note=note, **how)
    if images.labels is None:
        raise UserError(
            f"'{images.name}' has no labels, and without them nothing can be right or wrong: put its images into one "
            "sub-folder per class"
        )
    if named.channels and named.channels != images.channels:
        raise UserError(
            f"the model takes images of {named.channels} channels, and '{images.name}' has {images.channels}: give "
            "a model that was made for them"
        )
    if named.size and named.size != images.size:
        raise UserError(f"the model takes images of {named.size} px, and these have {images.size}: leave out --size")
    if ball.bounds != (0.0, 1.0):
        raise UserError(
            f"images of a data set run from 0 to 1, but the ball's bounds are {ball.bounds}: leave them out"
        )
    import torch

    count = len(images) if n is None else min(n, len(images))
    order = torch.randperm(len(images), generator=generator("evaluation", len(images)))[:count].numpy()
    pixels, labels = images.images, images.labels

    def gather(places: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(pixels[places])).float().div_(255)

    about = {"name": images.name, "split": images.split, "n": count, "of": len(images), "size": images.size}
    about |= {"channels": images.channels, "classes": list(images.classes), "hash": images.hash}
    return Pool(labels[order], order, images.classes, tuple(pixels.shape[1:]), about, gather)


def _images(
    data: Any, named: Named, *, split: str | None, size: int | None, note: Callable[[str], None], **how: bool
) -> ImageSet:
    from rivals.data.imageset import ImageSet

    if isinstance(data, ImageSet):
        return data
    if not isinstance(data, str | Path):
        raise UserError(f"the data are a {type(data).__name__}: give a name, a folder, a zip or (images, labels)")
    if split is not None:
        return _read(data, split, named, size, note, how)
    try:
        return _read(data, "test", named, size, note, how)
    except UserError:  # if the cause is another, it is met again
        return _read(data, "all", named, size, note, how)


def _read(
    data: str | Path, split: str, named: Named, size: int | None, note: Callable[[str], None], how: dict[str, bool]
) -> ImageSet:
    """Images as they are, or resized to what was asked for or else to what the model takes."""
    from rivals.data.load import load
    from rivals.data.names import NAMES
    from rivals.data.sources import from_path

    def read(side: int | None) -> ImageSet:
        return load(data, split=split, size=side, on_note=note, **how)

    if size is not None or named.size is None:
        return read(size)
    if data in NAMES:
        images = read(None)
        if images.size == named.size:
            return images
        first, images = f"{images.size} px", read(named.size)
    else:
        images = read(named.size)  # of a folder each may have a size of its own
        with from_path(Path(data).expanduser(), split) as listing:
            wide, high = listing.image(0).size
        if wide == high == named.size:
            return images
        first = f"the first has {wide} x {high}"
    note(f"the images ({first}) are resized to {named.size} px, which the model takes")
    return images


def _from_pair(data: Any, ball: Ball, n: int | None) -> Pool:
    import torch

    from rivals.attacks.checks import check_images, check_labels

    if len(data) != 2:
        raise UserError(f"the data are {len(data)} things: give a pair of tensors (images, labels)")
    x = check_images(data[0], ball.bounds)
    y = check_labels(data[1], x)
    if not len(x):
        raise UserError("there are no images: give one or more")
    count = len(x) if n is None else min(n, len(x))
    digest = hashlib.blake2b(repr(tuple(x.shape)).encode(), digest_size=8)
    for some in (*torch.split(x[:count], 1024), y[:count]):
        digest.update(some.detach().cpu().contiguous().numpy().tobytes())
    about = {"name": "tensors", "n": count, "of": len(x), "shape": list(x.shape[1:]), "hash": digest.hexdigest()}

    def gather(places: npt.NDArray[np.int64]) -> Tensor:
        return x[int(places[0]) : int(places[-1]) + 1] if _runs(places) else x[places.tolist()]

    return Pool(y[:count].cpu().numpy(), np.arange(count), (), tuple(x.shape[1:]), about, gather)


def _runs(places: npt.NDArray[np.int64]) -> bool:
    return len(places) > 0 and int(places[-1]) - int(places[0]) == len(places) - 1
