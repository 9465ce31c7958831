"""Random streams that belong to images, not to places in a batch.

An image's draws are a function of the seed, of what they are for, and of the image's own values. So neither the size of
the batch nor the order of the images, nor who else is attacked, changes what happens to it; and copies of an image,
each with its own radius, meet the same noise.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Generator, Tensor

from rivals.base.seeds import derive, generator


def streams(x: Tensor, trials: Sequence[int], *place: int | str) -> list[Generator]:
    """A CPU generator for each image (n, ...) in its trial, at a place as ``(seed, "pgd")``."""
    rows = x.detach().cpu().flatten(1).contiguous().view(torch.uint8).numpy()
    return [
        generator(*place, trial, hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest())
        for row, trial in zip(rows, trials, strict=True)
    ]


@contextlib.contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Let a model that draws from the global random state draw by ``seed``, and put that state back afterwards."""
    kind = device.type if device.type != "cpu" else "cuda"
    devices = [device] if device.type != "cpu" else []
    with torch.random.fork_rng(devices, device_type=kind):
        torch.default_generator.manual_seed(derive(seed, "model"))
        if devices:
            torch.get_device_module(device).manual_seed(derive(seed, "model"))
        yield
