"""Bit-depth reduction (feature squeezing, Xu et al. 2018)."""

from __future__ import annotations

from torch import Tensor

from rivals.base.errors import UserError
from rivals.defenses.purifier import Purifier


class BitDepth(Purifier):
    """Round every value to ``bits`` bits: ``round((2^bits - 1) x) / (2^bits - 1)``.

    Args:
        bits: 1 to 8.

    Raises:
        UserError: another number.
    """

    def __init__(self, bits: int = 3) -> None:
        super().__init__()
        if not 1 <= bits <= 8:
            raise UserError(f"a depth of {bits} bits is out of range: take 1 to 8")
        self.bits = bits

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1] to images of fewer levels."""
        levels = 2**self.bits - 1
        reduced: Tensor = (x * levels).round() / levels
        return reduced
