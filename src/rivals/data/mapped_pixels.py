"""Images in a file: read where they are indexed, and verified."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from rivals.base.errors import UserError

if TYPE_CHECKING:
    import torch

Index = int | slice | npt.NDArray[Any]


class Indexed(Protocol):
    """An array, or what is read like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: slice, /) -> npt.NDArray[np.uint8]: ...


BLOCK = 1 << 18  # bytes that have a digest, at least those of one image: a batch may touch as many blocks as images
_MOST_BLOCKS = 1 << 17  # of larger arrays the blocks are larger


def block_rows(shape: Sequence[int]) -> int:
    """How many images a block has."""
    image = math.prod(shape[1:])
    return max(1, max(BLOCK, shape[0] * image // _MOST_BLOCKS) // image)


def digests(pixels: Indexed) -> Iterator[str]:
    """The SHA-256 of each block of images, uint8 (N, C, H, W)."""
    rows = block_rows(pixels.shape)
    for start in range(0, len(pixels), rows):
        yield _digest(pixels[start : start + rows])


def _digest(block: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(block).data).hexdigest()


class MappedPixels:
    """The array of a file, uint8 (N, C, H, W). Indexing gives arrays, whose blocks are verified when first read.

    Args:
        file: Holds the array's bytes and nothing else.
        shape: Of the array.
        expected: The digest of each block.
        restore: Called if a block differs from its digest; returns the right array.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has another size.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        file: Path,
        shape: tuple[int, ...],
        expected: Sequence[str],
        restore: Callable[[], npt.NDArray[np.uint8] | MappedPixels],
    ) -> None:
        if file.stat().st_size != np.prod(shape):
            raise ValueError(f"the file of an array of shape {shape} has {file.stat().st_size} bytes")
        self.shape = shape
        # Copy on write: torch wants writable memory, and the file must not change.
        self._pixels: npt.NDArray[np.uint8] = np.memmap(file, np.uint8, mode="c", shape=shape)
        self._expected = expected
        self._restore = restore
        self._verified = np.zeros(len(expected), bool)
        self._all_verified = False
        self._rows = block_rows(shape)

    @property
    def digests(self) -> Sequence[str]:
        """The digest of each block: what is read has it."""
        return self._expected

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return int(np.prod(self.shape))

    def __getitem__(self, index: Index) -> npt.NDArray[np.uint8]:
        """Images by a number, a slice or an array of numbers, as of an array.

        Raises:
            UserError: they are damaged and cannot be restored.
        """
        rows = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index)
        self._verify(rows)
        return np.asarray(self._pixels[index])

    def select(self, rows: torch.Tensor) -> torch.Tensor:
        """Images by their numbers, int64 (n,), as a new tensor: several times faster than by indexing.

        Raises:
            UserError: they are damaged and cannot be restored.
        """
        import torch

        self._verify(rows.numpy())
        return torch.from_numpy(self._pixels.reshape(len(self), -1)).index_select(0, rows).view(-1, *self.shape[1:])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """All images, for numpy."""
        return np.array(self[:], dtype, copy=copy)

    def _verify(self, rows: npt.NDArray[np.int64]) -> None:
        if self._all_verified:
            return
        blocks = np.unique(rows % len(self) // self._rows)
        for block in blocks[~self._verified[blocks]]:
            if not self._is_right(block):
                restored = self._restore()
                self._pixels = restored._pixels if isinstance(restored, MappedPixels) else restored
                self._verified[:] = False
                if not self._is_right(block):
                    raise UserError("decoded images were damaged again: check the disk and the memory of this machine")
            self._verified[block] = True
        self._all_verified = bool(self._verified.all())

    def _is_right(self, block: int) -> bool:
        start = block * self._rows
        return _digest(self._pixels[start : start + self._rows]) == self._expected[block]
