"""Large images through a translator in overlapping tiles, joined without seams."""

from __future__ import annotations

import torch
from torch import Tensor

from rivals.base.errors import UserError
from rivals.nets.translator import Translator, padded_to

TILE = 256  # pixels of the input, by default
SMALLEST_TILE = 16


@torch.no_grad()
def translate_in_tiles(net: Translator, x: Tensor, *, tile: int = TILE, overlap: int | None = None) -> Tensor:
    """What a translator in evaluation mode makes of images, tile by tile.

    Near the inner border of a tile the network sees padding where the image goes on. Those pixels are left out as far
    as the network looks (``net.reach``), or as half of the overlap allows, and over the rest of the overlap both tiles
    are blended. With the default overlap the result is that of the whole image, up to rounding, unless half a tile is
    less than twice the reach.

    Args:
        net: The translator.
        x: Images (B, C, H, W) in [0, 1], on the translator's device.
        tile: Side of a tile in input pixels, at least 16; an image that is not larger goes through as a whole.
        overlap: Of neighboring tiles, in input pixels; by default twice the reach and a blend of 8 pixels, at most half
            of a tile.

    Returns:
        Images (B, C', scale * H, scale * W) in [0, 1], on the CPU.

    Raises:
        UserError: the tile is too small, or the overlap does not fit it.
    """
    step = net.multiple
    tile = max(tile, 0) // step * step
    if tile < max(SMALLEST_TILE, 2 * step):
        raise UserError(f"a tile of {tile} pixels is too small: take {max(SMALLEST_TILE, 2 * step)} or more")
    chosen = min(2 * net.reach + 8, tile // 2) if overlap is None else overlap
    if not 0 <= chosen <= tile - step:
        raise UserError(f"tiles of {tile} pixels cannot overlap by {chosen}: take 0 to {tile - step}")
    chosen = min(-(-chosen // step) * step, tile - step)
    padded, scale = padded_to(x, step), net.scale
    height, width = padded.shape[2:]
    rows, columns = (_starts(side, tile, chosen) for side in (height, width))
    if len(rows) == len(columns) == 1:
        whole: Tensor = net(x).cpu()
        return whole
    total = torch.zeros(len(x), net.channels, scale * height, scale * width)
    weight = torch.zeros(scale * height, scale * width)
    across = [_weights(columns, i, tile, scale, net.reach) for i in range(len(columns))]
    for i, top in enumerate(rows):
        down = _weights(rows, i, tile, scale, net.reach)
        for left, along in zip(columns, across, strict=True):
            part = net(padded[..., top : top + tile, left : left + tile]).float().cpu()
            share = down[: part.shape[2], None] * along[None, : part.shape[3]]
            place = (
                ...,
                slice(scale * top, scale * top + part.shape[2]),
                slice(scale * left, scale * left + part.shape[3]),
            )
            total[place] += share * part
            weight[place] += share
    return (total / weight)[..., : scale * x.shape[2], : scale * x.shape[3]]


def _starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along a side: all as large as a tile, the last one at the end of the side."""
    if side <= tile:
        return [0]
    return [*range(0, side - tile, tile - overlap), side - tile]


def _weights(starts: list[int], index: int, tile: int, scale: int, reach: int) -> Tensor:
    """The weight of each output pixel of a tile along an axis, (scale * tile,).

    Toward a neighbor it is 0 within the reach, then rises along a line, and is 1 once the neighbor's is 0.
    """
    weight = torch.ones(scale * tile)
    for neighbor in (index - 1, index + 1):
        if not 0 <= neighbor < len(starts):
            continue
        shared = scale * (tile - abs(starts[neighbor] - starts[index]))
        if not shared:
            continue
        margin = min(scale * reach, (shared - 1) // 2)
        blend = shared - 2 * margin
        rise = ((torch.arange(shared) - margin + 0.5) / blend).clamp(0, 1)
        if neighbor < index:
            weight[:shared] *= rise
        else:
            weight[-shared:] *= rise.flip(0)
    return weight
