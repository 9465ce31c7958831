"""The memory that a GAN's training needs, found without using it.

A round is played on torch's ``meta`` device, where tensors have shapes and no values, and the bytes of all tensors that
are alive at the same time are counted. What a device's allocator and libraries need besides is not in it.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rivals.api.common.game_factory import build_game
from rivals.base import rng
from rivals.base.size import AnySize, Size
from rivals.recipes import Config

META = torch.device("meta")


def estimate_memory(config: Config, *, size: AnySize, channels: int, classes: int, micro_batches: int) -> int:
    """Peak memory in bytes of a round in which all penalties are due, in 32-bit floats.

    Args:
        config: The settings. Its number of micro-batches does not count.
        size: Of the images.
        channels: 1, 3 or 4.
        classes: Number of classes of the data; used only if the configuration is conditional.
        micro_batches: Equal parts of a batch, all of which are played on this device.
    """
    # Of more than two, only the number of partial sums counts: the levels of a binary tree.
    played = min(micro_batches, 2)
    batches = _NoBatches(config.batch_size // micro_batches, played, Size.parse(size), channels, max(classes, 1))
    with rng.fork(META), _LiveBytes() as live:
        game = build_game(
            config.changed(precision="fp32"), size=size, channels=channels, classes=classes, device=META, seed=0
        )
        game.round(0, batches, seed=0)
    levels = (micro_batches // played).bit_length() - 1
    largest = max(sum(w.nbytes for w in player.net.parameters()) for player in game.players.values())
    return int(live.peak + levels * largest)


class _NoBatches:
    """Batches of images without values."""

    n = 1_000_000

    def __init__(self, part_size: int, micro_batches: int, size: Size, channels: int, classes: int) -> None:
        self.batch_size, self.micro_batches = part_size * micro_batches, micro_batches
        self.shape = (part_size, channels, *size)

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[Tensor, Tensor]:
        images = torch.empty(self.shape, dtype=torch.uint8, device=META)
        return images, torch.empty(self.shape[0], dtype=torch.int64, device=META)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are alive: ``now``, and at their ``peak``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def forget(_: object) -> None:
            self.now -= size
            del self._alive[key]

        self._alive[key] = weakref.ref(storage, forget)
        self.now += size
        self.peak = max(self.peak, self.now)
