"""The random numbers of a model that draws some itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from rivals.base.seeds import derive


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
