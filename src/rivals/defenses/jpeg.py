"""JPEG compression as a defense (Dziugaite et al. 2016; Guo et al. 2018), and a differentiable approximation of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.base.errors import UserError
from rivals.defenses.purifier import Purifier

BLOCK = 8
# The tables of ITU-T T.81, annex K, at quality 50: luminance and chrominance.
LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99, *(99,) * 32),
)
# JFIF: R, G, B to Y, Cb, Cr.
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


class JPEG(Purifier):
    """Compress and decompress: 8 x 8 DCT, quantization, no chroma subsampling.

    Entropy coding loses nothing and is left out, so all of it is a few matrix products, on any device. The surrogate
    rounds by ``round(v) + (v - round(v))^3``, which has a gradient (Shin & Song 2017).

    Args:
        quality: 1 to 100, as in libjpeg.

    Raises:
        UserError: another quality.
    """

    dct: Tensor
    tables: Tensor
    to_ycc: Tensor

    def __init__(self, quality: int = 50) -> None:
        super().__init__()
        if not 1 <= quality <= 100:
            raise UserError(f"a JPEG quality of {quality} is out of range: take 1 to 100")
        self.quality = quality
        place = torch.arange(BLOCK, dtype=torch.float64)
        dct = torch.cos((2 * place[None] + 1) * place[:, None] * math.pi / (2 * BLOCK)) / 2
        dct[0] /= math.sqrt(2)
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality  # jpeg_quality_scaling of libjpeg
        base = torch.tensor([LUMINANCE, CHROMINANCE, CHROMINANCE]).view(3, BLOCK, BLOCK)
        tables = ((base * scale + 50) // 100).clamp(1, 255)
        self.register_buffer("dct", dct.float(), persistent=False)
        self.register_buffer("tables", tables.float(), persistent=False)
        self.register_buffer("to_ycc", torch.tensor(TO_YCC), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, C, H, W) in [0, 1], C 1 or 3, to what a JPEG file of them holds."""
        return self._compressed(x, torch.round, torch.round)

    def surrogate(self, x: Tensor) -> Tensor:
        """The same with a differentiable rounding of the coefficients (Shin & Song 2017).

        That to bytes has the gradient of the identity: the derivative of the soft rounding is 0 at whole numbers, and
        so at every pixel of an 8-bit image.
        """
        return self._compressed(x, _round_as_identity, _soft_round)

    def _compressed(
        self, x: Tensor, to_bytes: Callable[[Tensor], Tensor], rounded: Callable[[Tensor], Tensor]
    ) -> Tensor:
        channels, height, width = x.shape[1:]
        if channels not in (1, 3):
            raise UserError(f"JPEG stores 1 or 3 channels, not {channels}: leave the alpha channel out")
        dct, tables = self.dct.to(x), self.tables[:channels, None, None].to(x)
        levels = to_bytes(x * 255)  # a file is made of bytes
        values = levels - 128
        if channels == 3:  # the shift cancels in the chroma; a codec keeps Y, Cb and Cr as bytes, too
            values = to_bytes(torch.einsum("kc,nchw->nkhw", self.to_ycc.to(x), values)).clamp(-128, 127)
        padded = F.pad(values, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
        blocks = padded.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)  # (n, C, rows, columns, 8, 8)
        coefficients = rounded(dct @ blocks @ dct.T / tables) * tables
        blocks = dct.T @ coefficients @ dct
        values = blocks.permute(0, 1, 2, 4, 3, 5).reshape(padded.shape)[..., :height, :width]
        if channels == 3:
            values = to_bytes(values).clamp(-128, 127)
            values = torch.einsum("ck,nkhw->nchw", torch.linalg.inv(self.to_ycc).to(x), values)
        return to_bytes((values + 128).clamp(0, 255)) / 255


def _round_as_identity(v: Tensor) -> Tensor:
    return v + (v.round() - v).detach()


def _soft_round(v: Tensor) -> Tensor:
    nearest = v.detach().round()
    return nearest + (v - nearest) ** 3
