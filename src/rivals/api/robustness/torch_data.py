"""Images and labels out of a ``Dataset`` or a ``DataLoader`` of PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from rivals.base.errors import UserError
from rivals.base.rng import generator

# What Hugging Face's data sets and image processors, and torchvision's scripts, call an image and its class.
IMAGE_KEYS = ("pixel_values", "image", "img", "x")
LABEL_KEYS = ("label", "labels", "y")


def read_torch_data(data: Dataset[Any] | DataLoader[Any], n: int | None) -> tuple[Tensor, Tensor, Sequence[int], int]:
    """Up to ``n`` images with labels, in memory.

    A data set with a length is read in the fixed order of all data sets, see
    :func:`~rivals.api.robustness.eval_data.load_eval_data`; what is iterated, as it comes.

    Args:
        data: Of pairs: an image tensor, float in the ball's bounds or uint8, and a class number; or of dictionaries
            with one of :data:`IMAGE_KEYS` and one of :data:`LABEL_KEYS`.
        n: All if None.

    Returns:
        The images (m, ...), their labels (m,), their indices in the data (m,), and how many the data have, or m.

    Raises:
        UserError: they are not such pairs, or there are none.
    """
    if isinstance(data, DataLoader):
        pairs: Iterable[Any] = _out_of_batches(data)
        order: Sequence[int] | None = None
    elif isinstance(data, IterableDataset):
        pairs, order = data, None
    else:
        count = len(data)  # type: ignore[arg-type]
        order = torch.randperm(count, generator=generator("evaluation", count))[:n].tolist()
        pairs = (data[index] for index in order)
    images, labels = [], []
    for pair in islice(pairs, n):
        image, label = _checked(pair)
        images.append(image)
        labels.append(label)
    if not images:
        raise UserError(f"the {type(data).__name__} has no images: give one or more")
    if len({image.shape for image in images}) > 1:
        first, other = sorted({tuple(image.shape) for image in images})[:2]
        raise UserError(f"the images differ in shape, as {first} and {other}: resize them in the transform")
    of = len(images) if order is None else count
    return torch.stack(images), torch.tensor(labels), range(len(images)) if order is None else order, of


def _out_of_batches(loader: DataLoader[Any]) -> Iterator[Any]:
    for batch in loader:
        yield from zip(*_pair(batch, "the DataLoader gives", "let it give pairs (images, labels)"), strict=True)


def _pair(given: Any, what: str, fix: str) -> tuple[Any, Any]:
    """Image and label, or a batch of each.

    Raises:
        UserError: it is no pair, and no dictionary with exactly one key for each.
    """
    if isinstance(given, Mapping):
        found = [[key for key in keys if key in given] for keys in (IMAGE_KEYS, LABEL_KEYS)]
        if [len(keys) for keys in found] != [1, 1]:
            known = " and ".join(f"one of {', '.join(keys)}" for keys in (IMAGE_KEYS, LABEL_KEYS))
            raise UserError(f"{what} a {type(given).__name__} of {', '.join(map(str, given))}: {fix}, or {known}")
        return given[found[0][0]], given[found[1][0]]
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise UserError(f"{what} a {type(given).__name__}: {fix}")
    return given[0], given[1]


def _checked(given: Any) -> tuple[Tensor, int]:
    image, label = _pair(given, "the data give", "let them give pairs (image, label)")
    if not isinstance(image, Tensor):
        raise UserError(
            f"the data give a {type(image).__name__} as image: let the transform make tensors, as "
            "torchvision.transforms.ToTensor does"
        )
    return image.float() / 255 if image.dtype == torch.uint8 else image, int(label)
