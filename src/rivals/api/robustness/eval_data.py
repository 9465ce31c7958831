"""The images of an evaluation, taken a chunk at a time, in an order that is the same for everyone."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.common.model_zoo import NamedModel
from rivals.base.errors import UserError
from rivals.base.hashing import arrays_hash
from rivals.base.registry import unknown
from rivals.base.rng import generator
from rivals.base.size import Size
from rivals.recipes.options import DataOptions, EvalConfig

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from rivals.data.imageset import ImageSet


@dataclass(frozen=True, eq=False)
class EvalData:
    """Images with labels, in the order of the evaluation.

    Attributes:
        labels: The class of each (n,).
        order: Which image of the source each is (n,).
        classes: Their names, in the order of the model's logits; empty if they have none.
        shape: Of one image.
        about: What ``run.json`` says of them.
        gather: Images, floating-point in the ball's bounds, by their indices in the source.
        targets: The class that a targeted attack has to reach for each (n,), or None.
    """

    labels: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    about: dict[str, Any]
    gather: Callable[[npt.NDArray[np.int64]], Tensor]
    targets: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.order)

    def take(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """Some of the images (m, ...), by their indices in the order."""
        return self.gather(self.order[indices])

    def aimed_at(self, label: str, note: Callable[[str], None]) -> EvalData:
        """The same for an attack that has to reach one class, given by name or number, without the images of it.

        Raises:
            UserError: there is no such class, or there are no images of another.
        """
        import numpy as np

        from rivals.data.classes import class_index

        index = class_index(label, self.classes, len(self.classes) or sys.maxsize)
        if index is None:
            raise unknown("target class", label, self.classes or ["0", "1", "..."])
        others = np.flatnonzero(self.labels != index)
        if not len(others):
            raise UserError(f"all images are of the target class '{label}': give images of other classes, or another")
        note(
            f"targeted: an image counts as fooled only where it is classified as '{label}'; "
            f"{len(self) - len(others)} images of that class are left out"
        )
        about = {**self.about, "n": len(others)}
        targets = np.full(len(others), index)
        return dataclasses.replace(
            self, labels=self.labels[others], order=self.order[others], about=about, targets=targets
        )


def load_eval_data(
    data: Any,
    bounds: Any,
    named: NamedModel,
    config: EvalConfig,
    options: DataOptions,
    note: Callable[[str], None],
) -> EvalData:
    """The first ``config.n`` images of some data, in a fixed random order.

    Files are often sorted by class. So the order of a data set is one permutation that depends on the number of its
    images alone, not on the seed: the first 100 are among the first 1,000, and the same for every model and attack.
    Tensors are taken as they come.

    Args:
        data: A name, a folder, a zip or shards; an :class:`ImageSet`; a ``Dataset`` or ``DataLoader`` of PyTorch; or
            tensors (images, labels), with a third for targets.
        bounds: The range of the images.
        named: The model: images of files are resized to the size that it takes.
        config: How many images, and of which split.
        options: How images are read.
        note: Receives what the user should know.

    Raises:
        UserError: the data cannot be read, or do not fit the model.
    """
    if config.n is not None and config.n < 1:
        raise UserError(f"{config.n} images make no evaluation: take 1 or more")
    if isinstance(data, tuple | list):
        return _from_tensors(data, bounds, config.n)
    if not isinstance(data, str | Path) and (loaded := _from_torch(data, bounds, named, config.n, note)) is not None:
        return loaded
    images = _images(data, named, config.split, options, note)
    if images.labels is None:
        raise UserError(
            f"'{images.name}' has no labels, so nothing can be right or wrong: put its images into one subfolder per "
            "class"
        )
    if named.channels and named.channels != images.channels:
        raise UserError(
            f"the model takes images of {named.channels} channels, and '{images.name}' has {images.channels}: give "
            "a model that was made for them"
        )
    if named.size and named.size != images.size:
        raise UserError(f"the model takes images of {named.size} px, and these have {images.size}: leave out --size")
    images = _by_name(images, named, note)
    assert images.labels is not None
    import numpy as np
    import torch

    from rivals.base.norm_balls import describe_bounds

    if isinstance(bounds[0], torch.Tensor) or bounds != (0.0, 1.0):
        raise UserError(
            f"images of a data set run from 0 to 1, but the ball's bounds are {describe_bounds(bounds)}: leave them out"
        )
    count = len(images) if config.n is None else min(config.n, len(images))
    order = torch.randperm(len(images), generator=generator("evaluation", len(images)))[:count].numpy()
    pixels, labels = images.images, images.labels

    def gather(indices: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(pixels[indices])).float().div_(255)

    about = {"name": images.name, "split": images.split, "n": count, "of": len(images), "size": images.size.written}
    about |= {"channels": images.channels, "classes": list(images.classes), "hash": images.hash}
    about["white"] = images.white
    return EvalData(labels[order], order, images.classes, tuple(pixels.shape[1:]), about, gather)


def _by_name(images: ImageSet, named: NamedModel, note: Callable[[str], None]) -> ImageSet:
    """Images whose labels are the model's, by the names of the classes; unchanged if the model has no names.

    Raises:
        UserError: the model has no class of a name.
    """
    from rivals.data.classes import FIX, match_classes

    if not named.classes:
        return images
    fix = f"{FIX}, or name the model's classes as the data do with --classes FILE"
    return match_classes(images, named.classes, f"the model '{named.name}'", note, fix)


def _images(
    data: Any, named: NamedModel, split: str | None, options: DataOptions, note: Callable[[str], None]
) -> ImageSet:
    """Images as they are, or resized to the size that was asked for, or else to the one that the model takes."""
    from rivals.data.builtin import DATASETS
    from rivals.data.decode import strict_limits
    from rivals.data.imageset import ImageSet
    from rivals.data.load import evaluation_split, has_split, list_images, load

    if isinstance(data, ImageSet):
        if data.white and named.white and data.white != named.white:
            note(
                f"'{data.name}' was read with a white of {data.white:,}, and the model was trained with "
                f"{named.white:,}: read the images with white={named.white} unless that is meant"
            )
        return data
    if not isinstance(data, str | Path):
        raise UserError(
            f"the data are a {type(data).__name__}: give a name, a folder, a zip, shards or (images, labels)"
        )
    # Where test images have no classes, training images have, and "all" cannot be read.
    split = split or evaluation_split(data) or ("all" if has_split(data, "all") else "train")

    options = options.with_default_white(named.white)

    def read(size: Size | None) -> ImageSet:
        return load(data, split=split, **vars(options.changed(size=size)), on_note=note)

    if options.size is not None or named.size is None:
        return read(options.size)
    if data in DATASETS:
        images = read(None)
        if images.size == named.size:
            return images
        first, images = f"{images.size} px", read(named.size)
    else:
        images = read(named.size)  # of a folder each may have a size of its own
        with list_images(data, split, lambda note: None) as listing, strict_limits():
            width, height = listing.open_image(0).size
        if Size(height, width) == named.size:
            return images
        first = f"the first has {width} x {height}"
    note(f"the images ({first}) are resized to {named.size} px, which the model takes")
    return images


def _from_torch(
    data: Any, bounds: Any, named: NamedModel, n: int | None, note: Callable[[str], None]
) -> EvalData | None:
    """Images of a ``Dataset`` or a ``DataLoader``, matched by the names of its classes; None if it is none."""
    import numpy as np
    from torch.utils.data import DataLoader, Dataset

    from rivals.api.robustness.torch_data import read_torch_data
    from rivals.data.imageset import ImageSet

    if not isinstance(data, Dataset | DataLoader):
        return None
    x, y, order, of = read_torch_data(data, n)
    source = data.dataset if isinstance(data, DataLoader) else data
    name, classes = type(source).__name__, tuple(map(str, getattr(source, "classes", ())))
    if named.classes and classes:
        only_labels = ImageSet(name, "all", np.zeros((len(y), 1, 1, 1), np.uint8), y.numpy(), classes)
        matched = _by_name(only_labels, named, note)
        assert matched.labels is not None
        y, classes = y.new_tensor(matched.labels), matched.classes
    found = _from_tensors((x, y), bounds, None)
    positions = {index: position for position, index in enumerate(order)}
    take = found.gather
    return dataclasses.replace(
        found,
        order=np.array(order),
        classes=classes,
        about={**found.about, "name": name, "of": of, "classes": list(classes)},
        gather=lambda indices: take(np.array([positions[index] for index in indices.tolist()])),
    )


def _from_tensors(data: Any, bounds: Any, n: int | None) -> EvalData:
    import numpy as np
    import torch

    from rivals.attacks.input_checks import check_images, check_labels

    if len(data) not in (2, 3):
        raise UserError(f"the data are {len(data)} things: give a pair of tensors (images, labels), or (..., targets)")
    x = check_images(data[0], bounds)
    y = check_labels(data[1], x)
    targets = check_labels(data[2], x, "targets") if len(data) == 3 else None
    if targets is not None and bool((targets == y).any()):
        raise UserError(f"the targets are the labels of {int((targets == y).sum())} images: give other classes")
    if not len(x):
        raise UserError("there are no images: give one or more")
    count = len(x) if n is None else min(n, len(x))
    pixels = x[:count].detach().cpu()
    if pixels.dtype == torch.bfloat16:  # which numpy has not
        pixels = pixels.float()
    kept = None if targets is None else targets[:count].cpu().numpy()
    content = arrays_hash(x.shape, pixels.numpy(), y[:count].cpu().numpy(), *([] if kept is None else [kept]))
    about = {"name": "tensors", "n": count, "of": len(x), "shape": list(x.shape[1:]), "hash": content}

    def gather(indices: npt.NDArray[np.int64]) -> Tensor:
        return x[int(indices[0]) : int(indices[-1]) + 1] if _runs(indices) else x[indices.tolist()]

    return EvalData(y[:count].cpu().numpy(), np.arange(count), (), tuple(x.shape[1:]), about, gather, kept)


def _runs(indices: npt.NDArray[np.int64]) -> bool:
    return len(indices) > 0 and int(indices[-1]) - int(indices[0]) == len(indices) - 1
