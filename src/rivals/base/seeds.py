"""Random streams that are functions of where they are used, so that nothing random needs saving.

Every draw of a run belongs to a place: ``(seed, rank, step, turn)``. Its generator is seeded by a hash of that
place, so a resumed run, or one that is spread over several processes, meets the same numbers at the same step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def derive(*place: int | str) -> int:
    """A 63-bit seed for a place: the same for the same words and numbers, on every machine."""
    digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*place: int | str) -> torch.Generator:
    """A CPU random generator seeded by :func:`derive`."""
    import torch

    return torch.Generator().manual_seed(derive(*place))


def streams(x: Tensor, trials: Sequence[int], *place: int | str) -> list[torch.Generator]:
    """A CPU generator for each image (n, ...) in its trial, at a place as ``(seed, "pgd")``.

    It belongs to the image, not to its place in a batch: its draws are a function of the seed, of what they are for,
    and of the image's own values. So neither the size of the batch nor the order of the images, nor who else is there,
    changes what happens to it; and copies of an image, each with its own radius, meet the same noise.
    """
    import torch

    rows = x.detach().cpu().flatten(1).contiguous().view(torch.uint8).numpy()
    return [
        generator(*place, trial, hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest())
        for row, trial in zip(rows, trials, strict=True)
    ]
