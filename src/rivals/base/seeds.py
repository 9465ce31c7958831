"""Random streams that are functions of where they are used, so that nothing random needs saving.

Every draw of a run belongs to a place: ``(seed, rank, step, turn)``. Its generator is seeded by a hash of that
place, so a resumed run, or one that is spread over several processes, meets the same numbers at the same step.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(*place: int | str) -> int:
    """A 63-bit seed for a place: the same for the same words and numbers, on every machine."""
    digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*place: int | str) -> torch.Generator:
    """A CPU random generator seeded by :func:`derive`."""
    import torch

    return torch.Generator().manual_seed(derive(*place))
