"""Hashes by which runs and reports name weights, images and files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

_BLOCK = 1 << 24  # bytes hashed at a time


def weights_hash(net: nn.Module) -> str:
    """16 hexadecimal digits (BLAKE2b) of a network's parameters and buffers: shapes, dtypes and values, in order.

    Names are left out, so that a network has the same hash inside a wrapper.
    """
    import torch

    digest = hashlib.blake2b(digest_size=8)
    for values in net.state_dict().values():
        digest.update(f"{tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def arrays_hash(shape: Sequence[int], *arrays: Any) -> str:
    """16 hexadecimal digits (BLAKE2b) of a shape and of the bytes of arrays, which may be memory maps."""
    import numpy as np

    digest = hashlib.blake2b(repr(tuple(shape)).encode(), digest_size=8)
    for array in arrays:
        step = max(1, _BLOCK // max(1, array[:1].nbytes))
        for start in range(0, len(array), step):
            digest.update(np.ascontiguousarray(array[start : start + step]).data)
    return digest.hexdigest()


def key_hash(*key: object) -> str:
    """24 hexadecimal digits (BLAKE2b) of the ``repr`` of some values, for the name of a cache entry."""
    return hashlib.blake2b(repr(key).encode(), digest_size=12).hexdigest()


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
