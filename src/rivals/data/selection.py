"""Some of a set's images, as a view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rivals.data.mapped_pixels import Index, MappedPixels

if TYPE_CHECKING:
    import torch


class Selection:
    """The images at some indices of others, uint8 (n, C, H, W), which are copied where they are indexed, not before.

    Args:
        images: The others.
        indices: int64 (n,), from 0 on.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self, images: npt.NDArray[np.uint8] | MappedPixels | Selection, indices: npt.NDArray[np.int64]
    ) -> None:
        self.images: npt.NDArray[np.uint8] | MappedPixels = images.images if isinstance(images, Selection) else images
        self.indices: npt.NDArray[np.int64] = images.indices[indices] if isinstance(images, Selection) else indices
        self.shape: tuple[int, ...] = (len(indices), *images.shape[1:])

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def nbytes(self) -> int:
        """Size of a copy in bytes."""
        return int(np.prod(self.shape))

    def __getitem__(self, index: Index) -> npt.NDArray[np.uint8]:
        """Images by a number, a slice or an array of numbers, as of an array."""
        return np.asarray(self.images[self.indices[index]])

    def select(self, rows: torch.Tensor) -> torch.Tensor:
        """Images by their numbers, int64 (n,), as a new tensor."""
        import torch

        return select(self.images, torch.from_numpy(self.indices)[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """All images, for numpy."""
        return np.array(self[:], dtype, copy=copy)


def select(images: npt.NDArray[np.uint8] | MappedPixels | Selection, rows: torch.Tensor) -> torch.Tensor:
    """Images by their numbers, int64 (n,), as a new tensor (n, C, H, W)."""
    import torch

    if not isinstance(images, np.ndarray):
        return images.select(rows)
    # Of an array, rows are selected several times faster by torch.
    return torch.from_numpy(images.reshape(len(images), -1)).index_select(0, rows).view(-1, *images.shape[1:])


def in_memory(images: npt.NDArray[np.uint8] | MappedPixels | Selection) -> bool:
    """Whether images are in memory, or are a selection of such."""
    return isinstance(images.images if isinstance(images, Selection) else images, np.ndarray)
